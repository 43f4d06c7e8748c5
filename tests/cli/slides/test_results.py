"""Results of the command line in their place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import h5py
import numpy as np
import pytest
import spatialdata as sd
from spatialdata.models import Image2DModel

from spatialwhisperer.cli.slides import results
from spatialwhisperer.cli.slides.jobs import Job
from spatialwhisperer.cli.slides.sources import Source
from tests.cli.conftest import LABELS, write_slide

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def written(data: Any, source: Path, place: Path) -> Path:
    """Write an object as the result of a slide."""
    table = data if place.suffix == ".h5ad" else data["table"]
    job = Job(Source(source, "anndata" if source.suffix == ".h5ad" else "spatialdata"), place, None, None)
    results.write(data, table, job, {}, image=True)
    return place


def slide() -> Any:
    image = Image2DModel.parse(np.zeros((3, 8, 8), np.uint8), dims=("c", "y", "x"))
    return sd.SpatialData(images={"he": image}, tables={"table": ad.AnnData(np.ones((4, 3), np.float32))})


def test_a_result_goes_to_what_a_link_points_to(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    file = tmp_path / "slide.h5ad"
    slide()["table"].write_h5ad(file)
    for name, source in (("a.zarr", tmp_path / "slide.zarr"), ("a.h5ad", file)):
        far, link = tmp_path / "far" / name, tmp_path / name
        # at first there is nothing that it points to
        link.symlink_to(far)
        for _ in range(2):
            data = slide() if name == "a.zarr" else slide()["table"]
            written(data, source, link)
            assert link.is_symlink()
            assert far.exists()
            assert not far.is_symlink()
    assert {path.name for path in (tmp_path / "far").iterdir()} == {"a.zarr", "a.h5ad"}


def test_a_replaced_store_keeps_its_permissions(tmp_path: Path) -> None:
    place = written(slide(), tmp_path / "slide.zarr", tmp_path / "a.zarr")
    place.chmod(0o700)
    written(slide(), tmp_path / "slide.zarr", place)
    assert place.stat().st_mode & 0o777 == 0o700
    assert (place / "zarr.json").stat().st_mode & 0o777 == 0o600


def test_a_file_is_compressed_like_that_of_the_slide(tmp_path: Path) -> None:
    adata = slide()["table"]
    for compression in ("gzip", None):
        adata.write_h5ad(tmp_path / "slide.h5ad", compression=compression)
        place = written(adata, tmp_path / "slide.h5ad", tmp_path / "a.h5ad")
        with h5py.File(place) as file:
            stored: Any = file["X"]
            assert stored.compression == compression


@pytest.mark.usefixtures("ordinary_user")
def test_a_read_only_folder_is_named_before_a_slide_is_read(tmp_path: Path, run: Callable[..., Any]) -> None:
    slide = write_slide(tmp_path / "plain.tif", mpp=None)
    out = tmp_path / "out"
    out.mkdir()
    out.chmod(0o555)
    # without a scale, reading it would be an error too
    done = run("annotate", slide, "--out", out / "a.zarr", "--labels", ",".join(LABELS), "--quiet")
    assert done.code == 1
    assert f"error: plain.tif: {out} cannot be written" in done.err[0]
    assert "Choose another --out" in done.err[0]
    with pytest.raises(PermissionError):
        results.check_places([out / "new" / "folder" / "a.zarr"])
    results.check_places([tmp_path / "new" / "folder" / "a.zarr"])
