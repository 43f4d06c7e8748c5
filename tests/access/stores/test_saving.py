"""Results in a store: of either version of zarr, with the permissions and the compression that it had."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import anndata as ad
import h5py
import numpy as np
import pytest
import zarr
from scipy.sparse import csr_matrix
from spatialdata._io.format import SpatialDataContainerFormats

from spatialwhisperer._access.grid import Grid, add_tile_grid
from spatialwhisperer._access.stores import saving
from spatialwhisperer._access.stores.reading import read_object
from spatialwhisperer._access.stores.saving import check_can_save, compression_of, save_results

if TYPE_CHECKING:
    from pathlib import Path

CONTAINERS = {2: SpatialDataContainerFormats["0.1"], 3: SpatialDataContainerFormats["0.2"]}


def written(data: Any, path: Path, version: int) -> Path:
    data.write(path, sdata_formats=CONTAINERS[version])
    return path


def in_metadata(path: Path, version: int) -> set[str]:
    """What the copy of all metadata at the root of a store names."""
    if version == 3:
        assert not (path / ".zmetadata").exists()
        return set(json.loads((path / "zarr.json").read_text())["consolidated_metadata"]["metadata"])
    assert not (path / "zarr.json").exists()
    return {name.rpartition("/")[0] for name in json.loads((path / ".zmetadata").read_text())["metadata"]}


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("images", [True, False])
def test_a_store_of_either_version_of_zarr_lists_its_results(
    build: Any, tmp_path: Path, images: bool, version: int
) -> None:
    data = build.one() if images else build.one(images={})
    path = written(data, tmp_path / "a.zarr", version)
    read: Any = read_object(path)
    read["table"].obs["new"] = [1.0, 2.0, 3.0]
    read.tables["more"] = build.table({"spots": ["i1"]})
    save_results(read, path)
    kept: Any = read_object(path)
    assert set(kept.tables) == {"table", "more"}
    assert kept["table"].obs["new"].tolist() == [1, 2, 3]
    assert set(kept.images) == ({"he"} if images else set())
    assert list(kept["spots"].index) == ["i0", "i1", "i2"]
    assert {"tables/table/obs/new", "tables/more/obs", "shapes/spots"} <= in_metadata(path, version)
    assert zarr.open_group(path, mode="r").metadata.zarr_format == version
    # and what is read without the copy of the metadata is the same
    assert set(zarr.open_group(path, mode="r", use_consolidated=False)["tables"].group_keys()) == {"table", "more"}  # type: ignore[union-attr]
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


@pytest.mark.filterwarnings("error:The table is annotating")
def test_nobody_is_warned_of_shapes_that_stay_in_the_store(build: Any, tmp_path: Path) -> None:
    path = written(build.one(), tmp_path / "a.zarr", 3)
    read: Any = read_object(path)
    read["table"].obs["new"] = 1
    save_results(read, path)
    assert "new" in read_object(path)["table"].obs


@pytest.mark.parametrize("version", [2, 3])
def test_a_store_of_an_image_alone_gets_a_table_and_shapes(build: Any, tmp_path: Path, version: int) -> None:
    path = written(build.one(shapes={}, tables={}), tmp_path / "a.zarr", version)
    read: Any = read_object(path)
    add_tile_grid(read, {"he": Grid(build.XY, 4.0)}, "sw_tiles")
    save_results(read, path)
    kept: Any = read_object(path)
    assert set(kept.tables) == {"sw_tiles"}
    assert set(kept.shapes) == {"he_tiles"}
    assert {"tables/sw_tiles/obs", "shapes/he_tiles", "images/he"} <= in_metadata(path, version)


@pytest.mark.parametrize("version", [2, 3])
def test_elements_that_a_store_would_not_list_are_not_moved_into_it(
    build: Any, tmp_path: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(build.one(), tmp_path / "a.zarr", version)
    read: Any = read_object(path)
    before = in_metadata(path, version)
    monkeypatch.setattr(saving, "_format_of", lambda _: CONTAINERS[5 - version])
    with pytest.raises(
        RuntimeError, match=rf"a store of zarr v{version}, and spatialdata wrote tables/table otherwise"
    ):
        save_results(read, path)
    assert "table" in read_object(path).tables  # type: ignore[union-attr]
    assert in_metadata(path, version) == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


@pytest.mark.parametrize("options", [{}, {"compression": "gzip", "compression_opts": 7}, {"compression": "lzf"}])
@pytest.mark.parametrize("sparse", [True, False])
def test_a_file_stays_compressed_as_it_was(tmp_path: Path, sparse: bool, options: dict[str, Any]) -> None:
    values = np.ones((40, 30), np.float32)
    adata, path = ad.AnnData(csr_matrix(values) if sparse else values), tmp_path / "a.h5ad"
    adata.write_h5ad(path, **options)
    adata.obs["new"] = 1
    save_results(adata, path)
    with h5py.File(path) as file:
        stored: Any = file["X/data" if sparse else "X"]
        assert stored.compression == options.get("compression")
        assert stored.compression_opts == options.get("compression_opts")
    assert (ad.read_h5ad(path).obs["new"] == 1).all()


def test_a_file_without_values_has_no_compression(tmp_path: Path) -> None:
    ad.AnnData(shape=(3, 0)).write_h5ad(tmp_path / "a.h5ad")
    assert compression_of(tmp_path / "a.h5ad") == {}


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_results_are_open_to_those_who_could_read_the_store(build: Any, tmp_path: Path) -> None:
    path = written(build.one(), tmp_path / "a.zarr", 3)
    file = tmp_path / "a.h5ad"
    build.table({"spots": ["i0"]}).write_h5ad(file)
    for permissions in (0o700, 0o2775):
        (path / "tables" / "table").chmod(permissions)
        file.chmod(permissions & 0o666)
        save_results(read_object(path), path)
        save_results(read_object(file), file)
        assert (path / "tables" / "table").stat().st_mode & 0o7777 == permissions
        assert (path / "tables" / "table" / "zarr.json").stat().st_mode & 0o777 == permissions & 0o666
        assert file.stat().st_mode & 0o777 == permissions & 0o666


def test_results_go_to_what_a_link_points_to(build: Any, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    written(build.one(), tmp_path / "far" / "a.zarr", 3)
    build.table({"spots": ["i0"]}).write_h5ad(tmp_path / "far" / "a.h5ad")
    for name in ("a.zarr", "a.h5ad"):
        link = tmp_path / name
        link.symlink_to(tmp_path / "far" / name)
        data: Any = read_object(link)
        table = data if name == "a.h5ad" else data["table"]
        table.obs["new"] = 1
        save_results(data, link)
        assert link.is_symlink()
        far: Any = read_object(tmp_path / "far" / name)
        assert "new" in (far if name == "a.h5ad" else far["table"]).obs
    assert {p.name for p in tmp_path.iterdir()} == {"far", "a.zarr", "a.h5ad"}
    assert {p.name for p in (tmp_path / "far").iterdir()} == {"a.zarr", "a.h5ad"}


@pytest.mark.usefixtures("ordinary_user")
def test_a_read_only_store_is_noticed(build: Any, tmp_path: Path) -> None:
    path = written(build.one(), tmp_path / "far" / "a.zarr", 3)
    link = tmp_path / "a.zarr"
    link.symlink_to(path)
    check_can_save(link)
    for part in (".", "zarr.json", "tables", "tables/table", "shapes", ".."):
        before = (path / part).stat().st_mode
        (path / part).chmod(before & ~0o222)
        with pytest.raises(PermissionError, match=r"Results of a path are written into it"):
            check_can_save(link)
        (path / part).chmod(before)
    shutil.rmtree(path / "shapes")
    check_can_save(link)
