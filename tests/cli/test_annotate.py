"""``spatialwhisperer annotate`` from files to files."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer.cli import annotate
from tests.cli.conftest import HOSTILE, LABELS, OPTIONS, Folder, labels_of, scores_of, times, write_slide

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., Any]


def opened(store: Path) -> Any:
    from spatialdata import SpatialData

    return SpatialData.read(store)


def by_hand(path: Path, labels: list[str] | None = None, **options: Any) -> Any:
    """What the functions of the package give."""
    sdata = sw.io.read_slide(path)
    sw.tl.zero_shot_annotate(sdata, labels, **options)
    return sdata


def simulated_section() -> Any:
    """A small section with its image, as a SpatialData."""
    made = sw.datasets.simulate_sections(1, 40, n_genes=20, n_reference_cells=20, random_state=0)
    return made.sections["P1"]


def with_image_inside(section: Any) -> Any:
    """The same section as an AnnData."""
    adata = section["table"].copy()
    del adata.uns["spatialdata_attrs"]
    pixels = np.moveaxis(section.images["P1_image"]["scale0"]["image"].to_numpy(), 0, -1)
    adata.uns["spatial"] = {"P1": {"images": {"fullres": pixels}, "scalefactors": {"microns_per_pixel": 0.5}}}
    return adata


# ------------------------------------------------------------------------------------------- a folder


@pytest.mark.slow
def test_a_bad_slide_does_not_stop_the_others(annotated: Folder) -> None:
    assert annotated.ran.code == 1
    assert annotated.ran.out[-1] == "3 slides: 2 annotated, 0 skipped, 1 failed."
    assert [line for line in annotated.ran.err if ": error: " in line] == [
        f"spatialwhisperer: error: bad.tif: {annotated.slides / 'bad.tif'} holds no image."
    ]
    stems = {"plain", HOSTILE.removesuffix(".tif")}
    found = {path.name for path in annotated.results.iterdir()}
    assert found == {f"{stem}{ending}" for stem in stems for ending in (".zarr", ".geojson", ".html")}


def test_results_are_those_of_the_functions_of_the_package(annotated: Folder) -> None:
    expected = by_hand(annotated.slides / "plain.tif", [*LABELS])
    sdata = opened(annotated.results / "plain.zarr")
    table, own = sdata["sw_tiles"], expected["sw_tiles"]
    np.testing.assert_array_equal(scores_of(table), scores_of(own))
    assert labels_of(table) == labels_of(own)
    assert sdata["plain"].shape == (3, 900, 1200)
    with (annotated.results / "plain.geojson").open() as file:
        features = json.load(file)["features"]
    assert [one["properties"].get("classification", {}).get("name") for one in features] == labels_of(own)


def test_the_same_command_again_skips_what_is_complete(annotated: Folder, results: Path, run: Run) -> None:
    before = times(results)
    done = run("annotate", annotated.slides, "--out", results, *OPTIONS)
    assert done.code == 1
    assert f"plain.tif: skipped, {results / 'plain.zarr'} is complete." in done.out
    assert done.out[-1] == "3 slides: 0 annotated, 2 skipped, 1 failed."
    assert [line for line in done.err if "bad.tif" in line] == done.err
    assert times(results) == before


@pytest.mark.slow
def test_the_same_command_again_writes_what_is_missing_alone(annotated: Folder, results: Path, run: Run) -> None:
    before = times(results)
    (results / "plain.html").unlink()
    done = run("annotate", annotated.slides, "--out", results, *OPTIONS)
    assert done.out[-1] == "3 slides: 1 annotated, 1 skipped, 1 failed."
    after = times(results)
    assert {name for name in after if after[name] != before[name]} == {"plain.html"}


def test_a_result_that_was_made_otherwise_is_refused_with_the_difference(
    annotated: Folder, results: Path, run: Run
) -> None:
    before = times(results)
    typed = ["annotate", annotated.slides / "plain.tif", "--out", results / "plain.zarr", "--quiet"]
    done = run(*typed, "--labels", "fat cell,T cell", "--min-margin", "0.1")
    assert done.code == 1
    assert len(done.err) == 1
    assert re.search(r"error: plain\.tif: .* was made otherwise \(--labels, --min-margin\).*--overwrite", done.err[0])
    assert times(results) == before


def test_the_result_of_another_slide_of_that_name_is_refused(
    annotated: Folder, results: Path, tmp_path: Path, run: Run
) -> None:
    typed = ("--out", results / "plain.zarr", *OPTIONS)
    slide = tmp_path / "plain.tif"
    shutil.copyfile(annotated.slides / "plain.tif", slide)
    assert "skipped" in run("annotate", slide, *typed).out[0]
    write_slide(slide, 5)
    assert slide.stat().st_size == (annotated.slides / "plain.tif").stat().st_size
    done = run("annotate", slide, *typed)
    assert done.code == 1
    assert "was made otherwise (content of the slide)" in done.err[0]


@pytest.mark.slow
def test_overwrite_replaces_a_result(annotated: Folder, results: Path, run: Run) -> None:
    out = results / "plain.zarr"
    typed = ["annotate", annotated.slides / "plain.tif", "--out", out, "--geojson", "--quiet", "--overwrite"]
    done = run(*typed, "--labels", "fat cell,T cell", "--no-image", "--min-confidence", 0.6)
    assert done.code == 0
    sdata = opened(out)
    expected = by_hand(annotated.slides / "plain.tif", ["fat cell", "T cell"], min_confidence=0.6)["sw_tiles"]
    np.testing.assert_array_equal(scores_of(sdata["sw_tiles"]), scores_of(expected))
    assert labels_of(sdata["sw_tiles"]) == labels_of(expected)
    assert not sdata.images
    measured = json.loads((results / "plain.geojson").read_text())["features"][0]["properties"]["measurements"]
    assert set(measured) >= {"fat cell", "T cell"}
    assert not [path for path in results.iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_a_report_of_a_former_result_does_not_pass_for_that_of_a_new_one(
    annotated: Folder, results: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a process that was killed between the two."""
    from spatialwhisperer.cli.reporting import page

    typed = ["annotate", annotated.slides / "plain.tif", "--out", results / "plain.zarr", "--report", "--no-image"]
    typed += ["--quiet", "--labels", "fat cell,T cell"]
    with monkeypatch.context() as broken:
        broken.setattr(page, "render", lambda *_, **__: 1 / 0)
        assert run(*typed, "--overwrite").code == 1
    assert not (results / "plain.html").exists()
    assert run(*typed).code == 0
    assert "malignant cell" not in (results / "plain.html").read_text(encoding="utf-8")


def test_a_file_that_is_older_than_its_result_is_refused(annotated: Folder, results: Path, run: Run) -> None:
    """As after a result was made anew without its report."""
    import os

    os.utime(results / "plain.html", (0, 0))
    slide, out = annotated.slides / "plain.tif", results / "plain.zarr"
    done = run("annotate", slide, "--out", out, *OPTIONS)
    assert done.code == 1
    assert re.search(r"plain\.html exists and is older than .*plain\.zarr\. .*--overwrite", done.err[-1])


# ------------------------------------------------------------------------------------------- what is left alone


@pytest.mark.parametrize("more", [[], ["--overwrite"]], ids=["", "overwrite"])
def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path, run: Run, more: list[str]) -> None:
    slide = write_slide(tmp_path / "s.tif")
    own = tmp_path / "mine.zarr"
    own.mkdir()
    (own / "notes.txt").write_text("keep")
    done = run("annotate", slide, "--out", own, "--quiet", *more)
    assert done.code == 1
    assert "mine.zarr exists and" in done.err[-1]
    assert (own / "notes.txt").read_text() == "keep"


def test_a_file_that_is_there_is_not_replaced(tmp_path: Path, run: Run) -> None:
    slide, report = write_slide(tmp_path / "s.tif"), tmp_path / "r.html"
    report.write_text("keep")
    done = run("annotate", slide, "--out", tmp_path / "r.zarr", "--report", "--quiet")
    assert done.code == 1
    assert re.search(r"r\.html exists\. .*--overwrite", done.err[-1])
    assert report.read_text() == "keep"
    assert not (tmp_path / "r.zarr").exists()


@pytest.mark.slow
def test_an_error_while_writing_keeps_the_former_result(
    annotated: Folder, results: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spatialwhisperer.cli.slides import results as writing

    def broken(_: Path) -> None:
        raise OSError("no space left on device")

    before = times(results)
    monkeypatch.setattr(writing, "make_durable", broken)
    done = run("annotate", annotated.slides / "plain.tif", "--out", results / "plain.zarr", "--quiet", "--overwrite")
    assert (done.code, done.err[-1]) == (1, "spatialwhisperer: error: plain.tif: no space left on device")
    assert times(results) == before


# ------------------------------------------------------------------------------------------- kinds of slides


@pytest.mark.slow
def test_a_scale_that_is_not_known_is_named_and_can_be_passed(tmp_path: Path, run: Run) -> None:
    slide, out = write_slide(tmp_path / "s.tif", mpp=None), tmp_path / "r.zarr"
    done = run("annotate", slide, "--out", out, "--quiet")
    assert done.code == 1
    assert "microns per pixel" in done.err[-1]
    assert done.err[-1].endswith(" On the command line: --mpp, --spot-pitch-um, --tile-um.")
    assert not out.exists()
    assert run("annotate", slide, "--out", out, "--quiet", "--mpp", 0.5).code == 0
    expected = sw.io.read_slide(slide, mpp=0.5)
    sw.tl.zero_shot_annotate(expected)
    np.testing.assert_array_equal(scores_of(opened(out)["sw_tiles"]), scores_of(expected["sw_tiles"]))


@pytest.mark.slow
def test_tiles_are_laid_as_asked(annotated: Folder, tmp_path: Path, run: Run) -> None:
    slide, out = annotated.slides / "plain.tif", tmp_path / "r.zarr"
    typed = ["annotate", slide, "--out", out, "--quiet", "--tile-um", 60, "--stride-um", 50, "--min-tissue", 0.9]
    assert run(*typed).code == 0
    sdata = sw.io.read_slide(slide)
    sw.pp.tiles(sdata, at="grid", tile_um=60, stride_um=50, min_tissue=0.9)
    np.testing.assert_array_equal(opened(out)["sw_tiles"].obsm["sw_tiles"], sdata["sw_tiles"].obsm["sw_tiles"])
    # without --tile-um the tiles are those of the model
    assert run("annotate", slide, "--out", tmp_path / "s.zarr", "--quiet", "--min-tissue", 0).code == 0
    sdata = sw.io.read_slide(slide)
    sw.pp.tiles(sdata, at="grid", tile_um=100, min_tissue=0)
    tiles = opened(tmp_path / "s.zarr")["sw_tiles"].obsm["sw_tiles"]
    np.testing.assert_array_equal(tiles, sdata["sw_tiles"].obsm["sw_tiles"])


@pytest.mark.slow
def test_a_spatialdata_store_is_annotated_on_its_own_rows(tmp_path: Path, run: Run) -> None:
    section = simulated_section()
    section.write(tmp_path / "s.zarr")
    out = tmp_path / "r.zarr"
    done = run("annotate", tmp_path / "s.zarr", "--out", out, *OPTIONS, "--table-key", "table")
    assert done.code == 0
    sw.tl.zero_shot_annotate(section, [*LABELS], table_key="table")
    np.testing.assert_array_equal(scores_of(opened(out)["table"]), scores_of(section["table"]))
    assert "sw_label" not in opened(tmp_path / "s.zarr")["table"].obs
    assert "40 rows" in done.out[0]
    refused = run("annotate", tmp_path / "s.zarr", "--out", tmp_path / "t.zarr", "--quiet", "--tile-um", 60)
    assert "this object has a table" in refused.err[-1]


@pytest.mark.slow
def test_an_anndata_file_gives_an_anndata_file(tmp_path: Path, run: Run) -> None:
    import anndata as ad

    adata = with_image_inside(simulated_section())
    adata.uns["spatial"]["is_single"] = True
    adata.write_h5ad(tmp_path / "s.h5ad")
    typed = ["annotate", tmp_path / "s.h5ad", "--out", tmp_path / "r.h5ad", *OPTIONS]
    assert run(*typed).code == 0
    sw.tl.zero_shot_annotate(adata, [*LABELS])
    np.testing.assert_array_equal(scores_of(ad.read_h5ad(tmp_path / "r.h5ad")), scores_of(adata))
    assert (tmp_path / "r.html").read_text().count("<img") == 2 + len(LABELS)
    assert "skipped" in run(*typed).out[0]
    assert run(*typed, "--overwrite", "--no-image").code == 0
    libraries = ad.read_h5ad(tmp_path / "r.h5ad").uns["spatial"]
    assert not libraries["P1"].get("images")
    assert libraries["is_single"]


@pytest.mark.slow
def test_of_several_sections_one_is_chosen_for_qupath_and_report(tmp_path: Path, run: Run) -> None:
    import anndata as ad

    one, other = with_image_inside(simulated_section()), with_image_inside(simulated_section())
    other.uns["spatial"] = {"P2": other.uns["spatial"]["P1"]}
    both = ad.concat({"P1": one, "P2": other}, label="library", index_unique="-")
    both.uns["spatial"] = {**one.uns["spatial"], **other.uns["spatial"]}
    both.write_h5ad(tmp_path / "s.h5ad")
    typed = ["annotate", tmp_path / "s.h5ad", "--out", tmp_path / "r.h5ad", *OPTIONS, "--library-key", "library"]
    done = run(*typed)
    assert (done.code, done.err[-1].endswith("belongs to one. Pass --section.")) == (1, True)
    assert not (tmp_path / "r.h5ad").exists()
    assert "There is no section 'P3'" in run(*typed, "--section", "P3").err[-1]
    assert run(*typed, "--section", "P2").code == 0
    features = json.loads((tmp_path / "r.geojson").read_text())["features"]
    assert {one["properties"]["name"].rpartition("-")[2] for one in features} == {"P2"}
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert re.search(r"section in the pictures</th><td>P2<", text)
    assert "image of P1" in text


def test_an_object_without_an_image_has_a_report_without_pictures(tmp_path: Path, run: Run) -> None:
    import anndata as ad

    sections = simulated_section()
    adata = ad.AnnData(obs=sections["table"].obs[[]].copy())
    width = sw.models.default_model().config.projection_dim
    rows = np.random.default_rng(0).normal(size=(adata.n_obs, width)).astype(np.float32)
    adata.obsm["X_own"] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    adata.write_h5ad(tmp_path / "s.h5ad")
    typed = ["annotate", tmp_path / "s.h5ad", "--out", tmp_path / "r.h5ad", "--embedding-key", "X_own"]
    assert run(*typed, "--report", "--quiet").code == 0
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<img" not in text
    assert "There are no pictures" in text
    done = run(*typed, "--geojson", "--quiet")
    assert (done.code, len(done.err)) == (1, 1)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("s.zarr", None, "There is no file"),
        ("s.h5ad", b"no HDF5", "cannot be read as an AnnData"),
        ("s.png", b"", "is empty"),
        ("gone.tif", None, "There is no file"),
    ],
)
def test_what_cannot_be_read_is_one_line(name: str, content: bytes | None, says: str, tmp_path: Path, run: Run) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    out = tmp_path / ("r.h5ad" if name.endswith(".h5ad") else "r.zarr")
    done = run("annotate", tmp_path / name, "--out", out, "--quiet")
    assert (done.code, len(done.err)) == (1, 1)
    assert says in done.err[0]


@pytest.mark.parametrize(
    ("more", "says"),
    [(["--model", "nowhere"], "no folder nowhere"), (["--device", "abacus"], "is not the name of a torch device")],
    ids=["model", "device"],
)
def test_a_model_or_device_that_is_not_there_stops_before_the_first_slide(
    more: list[str], says: str, tmp_path: Path, run: Run
) -> None:
    done = run("annotate", tmp_path / "a.tif", tmp_path / "b.tif", "--out", tmp_path / "r", *more)
    assert (done.code, len(done.err)) == (2, 1)
    assert says in done.err[0]
    assert not (tmp_path / "r").exists()


# ------------------------------------------------------------------------------------------- what is said


def test_warnings_and_summaries_are_lines_of_their_own(annotated: Folder) -> None:
    own = [line for line in annotated.ran.out if line.startswith("plain.tif: ")]
    assert len(own) == 1
    assert re.fullmatch(r"plain\.tif: 12 rows, .* with a label(; .*)?; \d warnings? -> .*plain\.zarr", own[0])
    starts = [f"spatialwhisperer: warning: {name}: " for name in ("plain.tif", HOSTILE)]
    warned = [line for line in annotated.ran.err if ": error: " not in line]
    assert all(any(line.startswith(start) for line in warned) for start in starts)
    assert all(line.startswith(tuple(starts)) for line in warned)


def test_an_unexpected_error_is_a_line_and_with_debug_a_traceback(
    annotated: Folder, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr(annotate, "_label", broken)
    typed = ["annotate", annotated.slides / "plain.tif", "--out", tmp_path / "r.zarr", "--quiet"]
    assert run(*typed).err == ["spatialwhisperer: error: plain.tif: RuntimeError: odd (--debug shows where)"]
    with pytest.raises(RuntimeError, match="odd"):
        run(*typed, "--debug")


# ------------------------------------------------------------------------------------------- real slides


@pytest.mark.slow
def test_a_real_slide_has_labels_picture_and_report(data_folder: Path, tmp_path: Path, run: Run) -> None:
    slide = shutil.copy(data_folder / "her2st" / "A1" / "image.jpg", tmp_path / "A1.jpg")
    done = run("annotate", slide, "--mpp", 3.19, "--out", tmp_path / "A1.zarr", *OPTIONS)
    assert done.code == 0
    table = opened(tmp_path / "A1.zarr")["sw_tiles"]
    assert table.n_obs > 100
    assert len(json.loads((tmp_path / "A1.geojson").read_text())["features"]) == table.n_obs
    assert "3.19 µm per pixel" in (tmp_path / "A1.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_tissue_that_is_unlike_the_training_can_be_labelled_all_the_same(
    annotated: Folder, tmp_path: Path, run: Run
) -> None:
    """``unknown`` is an argument of :func:`spatialwhisperer.tl.zero_shot_annotate` where the version has it."""
    import inspect

    typed = ["annotate", annotated.slides / "plain.tif", "--out", tmp_path / "r.zarr", "--quiet", "--unknown", "label"]
    if "unknown" in inspect.signature(sw.tl.zero_shot_annotate).parameters:
        assert run(*typed).code == 0
        reasons = opened(tmp_path / "r.zarr")["sw_tiles"].obs["sw_label_reason"]
        assert set(reasons.dropna()) <= {"below min_confidence"}
    else:
        assert "no argument 'unknown'" in run(*typed).err[-1]


# ------------------------------------------------------------------------------------------- a cluster


@pytest.mark.slow
def test_processes_of_a_cluster_write_what_one_process_writes(annotated: Folder, tmp_path: Path, run: Run) -> None:
    shutil.copytree(annotated.slides, tmp_path / "slides")
    ran = run("annotate", tmp_path / "slides", "--out", tmp_path / "results", *OPTIONS, "--cluster", 2)
    assert ran.code == 1
    assert ran.out[-1] == "3 slides: 2 annotated, 0 skipped, 1 failed."
    name = "plain.zarr"
    ours, theirs = (opened(folder / name)["sw_tiles"] for folder in (tmp_path / "results", annotated.results))
    np.testing.assert_array_equal(scores_of(ours), scores_of(theirs))
    assert run("annotate", tmp_path / "slides", "--out", tmp_path / "results", *OPTIONS).out[-1] == (
        "3 slides: 0 annotated, 2 skipped, 1 failed."
    )


def test_a_cluster_that_is_not_there_is_named(run: Run, tmp_path: Path) -> None:
    write_slide(tmp_path / "plain.tif")
    for typed, words in (
        ("0", "argument --cluster: must be a number of processes, 1 or more, or the address of a scheduler"),
        (
            str(tmp_path / "scheduler.json"),
            "--cluster must be a number, an address as tcp://host:8786, or the file of a scheduler",
        ),
    ):
        ran = run("annotate", tmp_path / "plain.tif", "--out", tmp_path / "plain.zarr", "--cluster", typed)
        assert ran.code == 2
        assert words in " ".join(ran.err)
    assert not (tmp_path / "plain.zarr").exists()
