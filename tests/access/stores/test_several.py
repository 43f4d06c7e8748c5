"""Several slides in one call: objects, stores, and stores spread over the processes of a cluster."""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer._access.stores import saving
from spatialwhisperer._access.stores.reading import read_object

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LABELS = ["fat cell", "T cell"]
OPTIONS: dict[str, Any] = {"unknown": "label", "mpp": 0.5}


@pytest.fixture(scope="module")
def sections() -> dict[str, Any]:
    return sw.datasets.simulate_sections(2, 30, n_genes=20, n_reference_cells=20, random_state=0).sections


@pytest.fixture(scope="module")
def expected(sections) -> list[np.ndarray]:
    return [
        np.asarray(sw.tl.zero_shot_annotate(section, LABELS, inplace=False, **OPTIONS)) for section in sections.values()
    ]


@pytest.fixture
def stores(sections, tmp_path) -> list[Path]:
    """A SpatialData store, and an AnnData file with its image inside."""
    first, second = sections.values()
    first.write(tmp_path / "first.zarr")
    adata = second["table"].copy()
    del adata.uns["spatialdata_attrs"]
    pixels = np.moveaxis(next(iter(second.images.values()))["scale0"]["image"].to_numpy(), 0, -1)
    adata.uns["spatial"] = {"P2": {"images": {"fullres": pixels}, "scalefactors": {}}}
    adata.write_h5ad(tmp_path / "second.h5ad")
    return [tmp_path / "first.zarr", tmp_path / "second.h5ad"]


def table_of(path: Path) -> Any:
    data = read_object(path)
    return data["table"] if hasattr(data, "tables") else data


def copy_of(section: Any) -> Any:
    return type(section)(
        images=dict(section.images), shapes=dict(section.shapes), tables={"table": section["table"].copy()}
    )


def test_objects_get_what_each_gets_alone(sections, expected) -> None:
    copies = [copy_of(section) for section in sections.values()]
    assert sw.tl.zero_shot_annotate(copies, LABELS, **OPTIONS) is None
    for copy, scores in zip(copies, expected, strict=True):
        np.testing.assert_array_equal(copy["table"].obsm["sw_label_scores"], scores)


@pytest.mark.slow
def test_stores_hold_their_results_and_images_afterwards(stores, sections, expected) -> None:
    chunks = {p: p.stat().st_mtime_ns for p in (stores[0] / "images").rglob("*") if p.is_file()}
    sw.tl.zero_shot_annotate([str(p) for p in stores], LABELS, **OPTIONS)
    for path, scores in zip(stores, expected, strict=True):
        np.testing.assert_allclose(table_of(path).obsm["sw_label_scores"], scores, atol=1e-4)
    assert {p: p.stat().st_mtime_ns for p in chunks} == chunks
    kept = read_object(stores[0])
    assert kept["table"].uns["spatialdata_attrs"] == sections["P1"]["table"].uns["spatialdata_attrs"]
    assert not [p for p in stores[0].parent.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("container", ["0.1", "0.2"])
@pytest.mark.slow
def test_a_slide_without_a_table_gets_one_with_its_squares(container, tmp_path, sections) -> None:
    from spatialdata._io.format import SpatialDataContainerFormats

    section = sections["P1"]
    written_as = SpatialDataContainerFormats[container]
    type(section)(images=dict(section.images)).write(tmp_path / "bare.zarr", sdata_formats=written_as)
    sw.tl.zero_shot_annotate([tmp_path / "bare.zarr"], LABELS, unknown="label")
    kept: Any = read_object(tmp_path / "bare.zarr")
    assert set(kept.tables) == {"sw_tiles"}
    assert set(np.atleast_1d(kept["sw_tiles"].uns["spatialdata_attrs"]["region"])) <= set(kept.shapes)
    assert kept["sw_tiles"].obs["sw_label"].notna().any()


@pytest.mark.slow
def test_a_slide_that_fails_leaves_the_others_their_results(stores, tmp_path) -> None:
    broken = tmp_path / "broken.h5ad"
    broken.write_bytes(b"no file of that kind")
    with pytest.raises(
        RuntimeError, match=r"1 of 3 slides have no result, and the others do: .*broken\.h5ad \(ValueError"
    ):
        sw.pp.embed_images([stores[0], broken, stores[1]], encoder="stain_texture", tile_um=56, tile_px=64, mpp=0.5)
    for path in stores:
        assert np.isfinite(table_of(path).obsm["X_stain_texture"]).all()


def test_a_store_that_is_empty_or_half_copied_is_a_slide_that_fails(sections, tmp_path) -> None:
    (tmp_path / "empty.zarr").mkdir()
    (tmp_path / "half.zarr" / "images").mkdir(parents=True)
    section = copy_of(sections["P1"])
    with pytest.raises(
        RuntimeError,
        match=r"2 of 3 slides .*the others do: .*empty\.zarr holds no zarr store: it is empty or half copied .*Copy it again",
    ):
        sw.pp.embed_images(
            [tmp_path / "empty.zarr", section, tmp_path / "half.zarr"], encoder="stain_texture", tile_um=56, tile_px=64
        )


def test_a_store_of_an_anndata_is_named(tmp_path) -> None:
    import anndata as ad

    ad.AnnData(np.zeros((2, 2))).write_zarr(tmp_path / "adata.zarr")
    with pytest.raises(
        ValueError, match=r"adata\.zarr is a zarr store without an element of SpatialData\. An AnnData is read from"
    ):
        sw.pp.embed_images([tmp_path / "adata.zarr"])


def test_a_wrong_argument_ends_as_it_does_for_one_slide(stores) -> None:
    with pytest.raises(ValueError, match="tile_um"):
        sw.pp.embed_images(stores, encoder="stain_texture", tile_um=-1.0)
    with pytest.raises(TypeError, match="Did you mean mpp"):
        sw.pp.embed_images(stores, mmp=0.5)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="at least two"):
        sw.tl.zero_shot_annotate(stores, ["fat cell"])


@pytest.mark.usefixtures("ordinary_user")
def test_a_store_that_cannot_be_written_is_refused_before_it_is_read(stores) -> None:
    for path, closed, read in (
        (stores[0], stores[0] / "tables" / "table", r"data = spatialdata\.read_zarr\('.*first\.zarr'\)"),
        (stores[1], stores[1], r"data = anndata\.read_h5ad\('.*second\.h5ad'\).*--out"),
        (stores[1], stores[1].parent, "cannot be written"),
    ):
        before = closed.stat().st_mode
        closed.chmod(before & ~0o222)
        with pytest.raises(PermissionError, match=read):
            sw.pp.embed_images([path], encoder="no encoder of this name")
        closed.chmod(before)
    assert "X_stain_texture" not in table_of(stores[0]).obsm


def test_what_is_wrong_with_a_list_is_said_before_a_slide_is_read(stores, sections, tmp_path) -> None:
    section = sections["P1"]
    (tmp_path / "slide.tif").write_bytes(b"")
    for data, error, words in (
        ([], ValueError, "data must hold at least one slide"),
        ([stores[0], 3], TypeError, r"data\[1\] must be an AnnData, a SpatialData or a path, not int"),
        ([tmp_path / "nothing.zarr"], FileNotFoundError, r"There is no .*nothing\.zarr \(data\[0\]\)"),
        ([tmp_path / "slide.tif"], ValueError, r"Make a store of a slide first: sw\.io\.read_slide"),
        ([tmp_path], ValueError, "which holds no results"),
        ([stores[0], stores[1], str(stores[0])], ValueError, r"data\[0\] and data\[2\] are the same slide"),
        ([section, section], ValueError, r"data\[0\] and data\[1\] are the same slide"),
    ):
        with pytest.raises(error, match=words):
            sw.pp.embed_images(data)
    with pytest.raises(ValueError, match="inplace=False returns the result of one slide"):
        sw.pp.embed_images([section], inplace=False)
    with pytest.raises(TypeError, match=r"client must be a dask\.distributed\.Client, not int"):
        sw.pp.embed_images([stores[0]], client=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="client distributes several slides over a cluster, and this is one"):
        sw.pp.embed_images(section, client=object())  # type: ignore[arg-type]


class Killed(BaseException):
    """Stands for a process that is killed: nothing of ours catches it."""


@pytest.mark.parametrize("at", range(4))
@pytest.mark.slow
def test_a_store_can_be_read_whenever_a_process_is_killed(at, stores, monkeypatch) -> None:
    """Killed before each step that changes the store, and at the end; the next call mends it."""
    path = stores[0]
    before = table_of(path).obs.columns.tolist()
    steps = iter(range(99))

    def dying(step: Any) -> Any:
        def work(*args: Any) -> Any:
            if next(steps) == at:
                raise Killed
            return step(*args)

        return work

    for name in ("_forget_consolidated", "put"):
        monkeypatch.setattr(saving, name, dying(getattr(saving, name)))
    data: Any = read_object(path)
    monkeypatch.setattr(type(data), "write_consolidated_metadata", dying(type(data).write_consolidated_metadata))
    data["table"].obs["new"] = 1
    try:
        saving.save_results(data, path)
    except Killed:
        pass
    columns = table_of(path).obs.columns.tolist()
    assert columns in (before, [*before, "new"])
    # zarr reads a copy of the metadata instead of the elements where there is one
    copied = "consolidated_metadata" in json.loads((path / "zarr.json").read_text(encoding="utf-8"))
    assert copied == (at < 2), columns
    monkeypatch.undo()
    saving.save_results(data, path)
    assert table_of(path).obs.columns.tolist() == [*before, "new"]


# --------------------------------------------------------------------------------------------- a cluster


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.mark.slow
def test_a_cluster_gives_the_same_results(client, stores, expected) -> None:
    sw.tl.zero_shot_annotate(stores, LABELS, client=client, **OPTIONS)
    for path, scores in zip(stores, expected, strict=True):
        np.testing.assert_allclose(table_of(path).obsm["sw_label_scores"], scores, atol=1e-4)
    with pytest.raises(ValueError, match=r"data\[0\] is an object in memory\. Write it first.*sdata\.write"):
        sw.tl.zero_shot_annotate([read_object(stores[0])], LABELS, client=client)
    with pytest.raises(ValueError, match="tile_um"):
        sw.pp.embed_images(stores, encoder="stain_texture", tile_um=-1.0, client=client)


@pytest.mark.slow
def test_a_killed_worker_only_delays(client, stores, expected) -> None:
    """A worker dies with a slide in its hands; another one does its work too."""
    processes = client.run(os.getpid)
    killed: list[str] = []

    def kill() -> None:
        while not killed:
            for worker, keys in client.processing().items():
                if worker in processes and any("spatialwhisperer-slide" in str(key) for key in keys):
                    os.kill(processes[worker], signal.SIGKILL)
                    killed.append(worker)
                    return
            time.sleep(0.01)

    thread = Thread(target=kill, daemon=True)
    thread.start()
    sw.tl.zero_shot_annotate(stores, LABELS, client=client, **OPTIONS)
    thread.join(30)
    assert killed
    for path, scores in zip(stores, expected, strict=True):
        np.testing.assert_allclose(table_of(path).obsm["sw_label_scores"], scores, atol=1e-4)
