"""A corpus on the disk: what it holds, what continues it, and what is refused before anything is written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw
from spatialwhisperer._messages import SpatialWhispererWarning
from spatialwhisperer.training.corpus.shards import Corpus
from tests import corpora

if TYPE_CHECKING:
    from pathlib import Path


def files(folder: Path) -> dict[str, bytes]:
    found = [p for p in folder.rglob("*") if p.is_file() and not any(q.startswith(".") for q in p.parts[-2:])]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}


def test_a_shard_holds_the_features_of_its_slide(built: Path) -> None:
    given = corpora.sources()
    corpus = Corpus.open(built)
    assert {s.record.modalities for s in corpus.shards} == {("gene", "image"), ("gene", "text")}
    shard = next(s for s in corpus.shards if "S1" in s.record.path)
    rows = ad.read_zarr(shard.path)
    original = given[0].data["S1"]
    assert np.array_equal(rows.obsm["X_image"], original.obsm["X_image"])
    assert np.array_equal(rows.obsm["X_gene"], original.obsm["X_gene"])
    assert rows.obs["patient"].unique().tolist() == ["P1"]
    block = shard.block(3, 9)
    assert np.array_equal(block.features["image"], original.obsm["X_image"][3:9])


def test_rows_of_a_shard_are_sorted_by_patient_and_keep_their_captions(built: Path) -> None:
    given = corpora.sources()
    corpus = Corpus.open(built)
    shard = next(s for s in corpus.shards if "cells" in s.record.path)
    assert [name for name, _ in shard.record.patients] == ["C1", "C2"]
    cells = given[1].data
    order = np.argsort(cells.obs["patient"].to_numpy(str), kind="stable")
    texts, block = shard.caption_texts(), shard.block(40, 60)
    assert block.captions is not None
    assert block.caption_id is not None
    expected = corpora.HashedText().encode(cells.obs["text"].iloc[order[40:60]].tolist())
    assert np.array_equal(block.features["text"][block.captions[:, 0]], expected)
    assert set(texts) == set(cells.obs["text"])
    same = cells.obs["text"].to_numpy()[order[40:60]]
    assert len(set(zip(same, block.caption_id, strict=True))) == len(set(same)) == len(set(block.caption_id))


@pytest.mark.slow
def test_a_large_slide_becomes_several_shards(tmp_path: Path) -> None:
    corpus = Corpus.open(corpora.build(tmp_path / "c", shard_rows=25))
    assert max(s.record.rows for s in corpus.shards) == 25
    assert corpus.manifest.rows("image", "gene") == 40 + 50 + 60
    assert corpus.manifest.rows("gene", "text") == 90


def test_rows_with_one_modality_are_left_out(tmp_path: Path) -> None:
    given = corpora.sources()
    given[1].data.obs.loc[given[1].data.obs_names[:30], "text"] = None
    given[0].data["S0"].obsm["X_image"][5] = np.nan
    corpus = Corpus.open(corpora.build(tmp_path / "c", given))
    assert corpus.manifest.rows("gene", "text") == 60
    assert corpus.manifest.rows("image", "gene") == 149
    assert corpus.manifest.find("cells", "cells").rows == 90  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_second_call_adds_slides_and_computes_none_again(built: Path, tmp_path: Path) -> None:
    first, both = corpora.sources()[:1], corpora.sources()
    folder = corpora.build(tmp_path / "c", first)
    before = {p: p.stat().st_mtime_ns for p in (folder / "shards").rglob("*") if p.is_file()}
    corpora.build(folder, both)
    assert all(p.stat().st_mtime_ns == t for p, t in before.items())
    # whatever the order in which the slides were added
    assert files(folder) == files(built)


@pytest.mark.slow
def test_float16_needs_half_the_space(built: Path, tmp_path: Path) -> None:
    half = corpora.build(tmp_path / "half", dtype="float16")
    x, y = (np.asarray(Corpus.open(f).shards[1].block(0, 5).features["image"]) for f in (built, half))
    assert y.dtype == np.float16
    assert np.allclose(x, y, rtol=1e-3)


_KILLED = """
import os, signal, sys
from pathlib import Path
from spatialwhisperer.pp.corpus import writing
from tests import corpora

original, count = writing._fill, 0

def fill(folder, *args):
    global count
    original(folder, *args)
    count += 1
    if count == 3:
        os.kill(os.getpid(), signal.SIGKILL)

writing._fill = fill
corpora.build(Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_killed_build_continues_with_what_it_had(built: Path, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    # pytest finds the package without an installation, and so must the process
    path = os.pathsep.join(p for p in sys.path if p) + os.pathsep + os.getcwd()
    ended = subprocess.run(
        [sys.executable, "-c", _KILLED, str(folder)], env={**os.environ, "PYTHONPATH": path}, check=False
    )
    assert ended.returncode == -signal.SIGKILL
    before = {p: p.stat().st_mtime_ns for p in (folder / "shards").rglob("c/*/*") if ".S" not in str(p)}
    done = json.loads((folder / "manifest.json").read_text())["slides"]
    assert len(done) == 2
    corpora.build(folder)
    kept = [p for p in before if p.exists() and any(s["name"] in str(p) for s in done)]
    assert kept
    assert all(p.stat().st_mtime_ns == before[p] for p in kept)
    assert files(folder) == files(built)
    assert not [p for p in folder.rglob(".*") if p.is_dir() and p.name != ".locks"]


def test_an_error_names_the_slide_that_it_was_found_in(tmp_path: Path) -> None:
    given = corpora.sources()
    table = given[0].data["S1"]
    table.obs = pd.concat([table.obs, table.obs[["patient"]]], axis=1)
    with pytest.raises(ValueError, match="Several columns") as caught:
        corpora.build(tmp_path / "c", given)
    assert any("This was found in" in note and "/S1." in note for note in caught.value.__notes__)


def patientless(given: list[sw.pp.CorpusSource]) -> None:
    del given[1].data.obs["patient"]


def partly_patientless(given: list[sw.pp.CorpusSource]) -> None:
    given[1].data.obs["patient"] = [None, *given[1].data.obs["patient"].tolist()[1:]]


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        (patientless, KeyError, "'cells' has no patient column: 'patient' is not in .obs"),
        (partly_patientless, ValueError, "1 rows of cells have no patient"),
    ],
)
def test_a_source_without_patients_is_refused(change: Any, kind: Any, text: str, tmp_path: Path) -> None:
    folder = corpora.build(tmp_path / "c", corpora.sources()[:1])
    before, given = files(folder), corpora.sources()
    change(given)
    with pytest.raises(kind, match=text):
        corpora.build(folder, given)
    assert files(folder) == before


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("CC BY 4.0", True),
        ("CC0", True),
        ("CC BY-NC-SA 4.0", True),
        ("cc-by-nc-nd-4.0", False),
        ("CC BY-ND 4.0", False),
        ("research use only", False),
        ("MIT", True),
        ("all rights reserved", False),
        ("unknown", False),
    ],
)
def test_a_licence_that_forbids_to_pass_data_on_is_refused_in_a_shared_corpus(
    licence: str, allowed: bool, tmp_path: Path
) -> None:
    given = corpora.sources(licence=licence)
    assert given[0].may_be_shared is allowed
    assert corpora.sources(licence=licence, shareable=not allowed)[0].may_be_shared is not allowed
    if allowed:
        return
    with pytest.raises(ValueError, match=r"shared=True, and these licences do not allow .*source 'slides' \("):
        corpora.build(tmp_path / "c", given, shared=True)
    assert not (tmp_path / "c").exists()


def test_a_corpus_that_is_shared_later_names_sources_that_are_there_already(tmp_path: Path) -> None:
    folder = corpora.build(tmp_path / "c", corpora.sources(licence="unknown")[:1])
    with pytest.raises(ValueError, match="source 'slides'"):
        corpora.build(folder, corpora.sources()[1:], shared=True)


class Filtered(dict):
    """Tables whose values are looked at before rows are left out, as those of the Census are."""

    def peek(self, name: str) -> Any:
        return corpora.slide(9, 30, ["C"], image=False, captions=["tumour", "fat"]) if name == "none" else self[name]


def test_a_table_of_which_no_row_is_left_is_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = corpora.sources()[1].data
    given = sw.pp.CorpusSource("cells", Filtered(some=cells, none=cells[:0].copy()), licence="CC0")
    with sw.settings.override(verbose=True):
        folder = corpora.build(tmp_path / "c", [given], image=None)
    assert "cells/none: no row of the table is left" in capsys.readouterr().err
    corpus = Corpus.open(folder)
    assert {s.name: (s.rows, len(s.shards)) for s in corpus.manifest.slides} == {"none": (0, 0), "some": (90, 1)}
    before = files(folder)
    corpora.build(folder, [given], image=None)
    assert files(folder) == before


def counted(seed: int, names: list[str]) -> ad.AnnData:
    x = np.random.default_rng(seed).poisson(1.0, (30, len(names))).astype(np.float32)
    out = ad.AnnData(x, obs=pd.DataFrame({"patient": "A", "text": "a tumour"}, index=[f"{i}" for i in range(30)]))
    out.var_names = names
    return out


def test_genes_of_two_species_are_refused(tmp_path: Path) -> None:
    human = counted(0, [f"ENSG{i:011d}" for i in range(60)])
    mouse = counted(1, [f"ENSMUSG{i:011d}" for i in range(60)])
    encoder = sw.pp.fit_gene_encoder(human, "pca", n_latent=3, n_top_genes=None)
    source = sw.pp.CorpusSource("cells", {"h": human, "m": mouse}, licence="CC0")
    with pytest.raises(ValueError, match="two species.*human: cells/h; mouse: cells/m"):
        sw.pp.build_corpus(source, tmp_path / "c", gene=encoder, text=corpora.HashedText())
    assert not (tmp_path / "c").exists()


def test_a_corpus_of_another_recipe_is_refused(folder: Path) -> None:
    before = files(folder)
    with pytest.raises(ValueError, match="another recipe(.|\n)*text: hashed.* there, minilm asked for"):
        corpora.build(folder, text="minilm")
    with pytest.raises(ValueError, match="dtype: float32 there, float16 asked for"):
        corpora.build(folder, dtype="float16")
    assert files(folder) == before


def test_a_shard_that_is_cut_off_is_refused(folder: Path) -> None:
    path = next((folder / "shards").glob("*S1*/*/obsm/X_image/c/0/0"))
    path.write_bytes(path.read_bytes()[:-20])
    for call in (lambda: corpora.build(folder), lambda: Corpus.open(folder)):
        with pytest.raises(ValueError, match=r"1 shards of .* are damaged: .*S1.*is cut off or changed"):
            call()


def test_a_changed_byte_is_found_by_the_checksums_and_when_it_is_read(folder: Path) -> None:
    path = next((folder / "shards").glob("*S1*/*/obsm/X_image/c/0/0"))
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="its checksum is another one"):
        corpora.build(folder, verify=True)
    shard = next(s for s in Corpus.open(folder).shards if "S1" in s.record.path)
    with pytest.raises(ValueError, match="cannot be opened"):
        shard.block(0, 5)


def test_a_removed_shard_is_built_again(folder: Path) -> None:
    before = files(folder)
    shutil.rmtree(next((folder / "shards").glob("*S1*")))
    with pytest.raises(ValueError, match="is missing"):
        Corpus.open(folder)
    corpora.build(folder)
    assert files(folder) == before


def test_a_slide_that_changed_is_refused(folder: Path) -> None:
    given = corpora.sources()
    given[0].data["S1"].obs["patient"] = "another"
    with pytest.raises(ValueError, match=r"slides/S1 \(rows, patients or sections\) changed since they were built"):
        corpora.build(folder, given)


def test_a_gene_encoder_that_would_be_fitted_to_each_slide_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="would be fitted to each slide by itself"):
        corpora.build(tmp_path / "c", gene="pca")
    assert not (tmp_path / "c").exists()


def test_features_of_another_width_are_refused(folder: Path) -> None:
    before, wide = files(folder), corpora.slide(5, 30, ["M"])
    wide.obsm["X_image"] = np.zeros((30, 9), np.float32)
    source = sw.pp.CorpusSource("more", wide, "CC0")
    with pytest.raises(ValueError, match="image: 6 features there, 9 asked for"):
        corpora.build(folder, [source])
    with pytest.raises(ValueError, match="image features of more have 9 columns, and those of the slides before 6"):
        corpora.build(folder, [corpora.sources()[0], source])
    assert files(folder) == before


def test_an_image_without_its_scale_factor_is_said(tmp_path: Path) -> None:
    cells = corpora.sources()[1:]
    table = cells[0].data
    table.obsm["spatial"] = np.random.default_rng(0).uniform(0, 50, (table.n_obs, 2))
    table.uns["spatial"] = {"L": {"images": {"hires": np.zeros((50, 50, 3), np.uint8)}, "scalefactors": {}}}
    image = sw.tl.ImageFeatures(tile_um=80, tile_px=64)
    with pytest.warns(SpatialWhispererWarning, match="Library 'L' holds the image 'hires' without a scale factor"):
        corpus = Corpus.open(corpora.build(tmp_path / "c", cells, image=image))
    assert corpus.manifest.rows("gene", "text") == 90


def test_one_modality_gives_no_pairs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="A corpus holds pairs"):
        corpora.build(tmp_path / "c", image=None, text=None)
    with pytest.raises(ValueError, match="No slide holds two"):
        corpora.build(tmp_path / "c", corpora.sources()[:1], gene=None)


@pytest.mark.slow
def test_slides_may_be_files_or_functions(built: Path, tmp_path: Path) -> None:
    given = corpora.sources()[0].data
    given["S0"].write_h5ad(tmp_path / "S0.h5ad")
    data = {"S0": tmp_path / "S0.h5ad", "S1": lambda: given["S1"], "S2": given["S2"]}
    corpora.build(tmp_path / "a", [sw.pp.CorpusSource("slides", data, licence="CC BY 4.0"), corpora.sources()[1]])
    assert files(tmp_path / "a") == files(built)


@pytest.mark.slow
def test_two_processes_build_different_slides(tmp_path: Path) -> None:
    from filelock import FileLock

    from spatialwhisperer.pp.corpus.writing import slide_folder

    folder = tmp_path / "c"
    corpora.build(folder, corpora.sources()[1:])
    # another process is at this slide
    lock = slide_folder("slides", "S1").rpartition("/")[2]
    with FileLock(folder / ".locks" / f"{lock}.lock"):
        corpora.build(folder)
        assert not list((folder / "shards").glob("*S1*"))
    corpora.build(folder)
    assert Corpus.open(folder).manifest.rows("image", "gene") == 150


def test_a_slide_that_another_process_builds_again_at_this_moment_is_not_damaged(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a look at the manifest and one at the shards their record names others, and the former ones are being removed."""
    from spatialwhisperer.pp.corpus import build as module

    check = module.check_sizes
    calls: list[int] = []

    def late(where: Path, manifest: Any) -> None:
        if not calls:
            former = where / manifest.shards[0].path
            later = former.with_name("later")
            shutil.copytree(former, later)
            text = (where / "manifest.json").read_text(encoding="utf-8")
            stated = text.replace(manifest.shards[0].path, later.relative_to(where).as_posix())
            (where / "manifest.json").write_text(stated, encoding="utf-8")
            next(path for path in former.rglob("*") if path.is_file()).unlink()
        calls.append(1)
        check(where, manifest)

    monkeypatch.setattr(module, "check_sizes", late)
    corpora.build(folder)
    assert len(calls) >= 2
    assert Corpus.open(folder).manifest.shards
