"""x and y that were exchanged, on made tissue and on real sections."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.tiles.plan import plan_tiles
from spatialwhisperer._messages import SpatialWhispererWarning

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def tissue(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """A slide with tissue in its right half, and 100 places on it."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(235, 250, (3, height, width)).astype(np.uint8)
    pixels[:, height // 10 : height * 9 // 10, width // 2 :] -= 90
    xy = rng.uniform([width * 0.55, height * 0.15], [width * 0.95, height * 0.85], (100, 2))
    return pixels, xy


def plan(build: Any, pixels: np.ndarray, xy: np.ndarray) -> Any:
    return plan_tiles(Slide.open(build.library(xy, pixels=pixels), mpp=0.5))


def test_places_on_tissue_pass(build: Any) -> None:
    for size in ((400, 400), (400, 300)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            plan(build, *tissue(*size))


def test_exchanged_places_on_a_square_slide_are_warned_of_with_the_call_that_mends_it(build: Any) -> None:
    pixels, xy = tissue(400, 400)
    with pytest.warns(SpatialWhispererWarning, match=r"section 'L' seem to be exchanged: \d+ % .* 100 % .*\[:, ::-1\]"):
        plan(build, pixels, xy[:, ::-1])
    # few places say nothing
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan(build, pixels, xy[:20, ::-1])


def test_exchanged_places_that_leave_the_slide_are_refused(build: Any) -> None:
    pixels, xy = tissue(400, 300)
    with pytest.raises(ValueError, match="x and y of section 'L' seem to be exchanged"):
        plan(build, pixels, xy[:, ::-1])
    with pytest.raises(ValueError, match="x and y of section 'L' seem to be exchanged"):
        plan_tiles(Slide.open(build.library(xy[:, ::-1], pixels=pixels), mpp=0.5), "nan")
    # another mistake is no exchange
    with pytest.raises(ValueError, match="are off image"):
        plan(build, pixels, xy * 3)


def test_the_call_that_is_named_mends_shapes(build: Any) -> None:
    import spatialdata.transformations as st

    pixels, xy = tissue(400, 300)
    index = [f"i{k}" for k in range(100)]
    sdata = build.sdata(
        images={"he": build.image(pixels, build.maps(S=1.0, T=2.0))},
        shapes={"spots": build.spots(xy[:, ::-1], build.maps(S=1.0, T=2.0))},
        tables={"table": build.table({"spots": index})},
    )
    with pytest.raises(ValueError, match="Exchange them") as caught:
        plan_tiles(Slide.open(sdata, mpp=0.5))
    call = str(caught.value).split("Exchange them: ")[1].split(", all from")[0]
    names = {name: getattr(st, name) for name in ("Affine", "Sequence", "get_transformation", "set_transformation")}
    exec(call, {**names, "sdata": sdata})
    (section,) = plan_tiles(Slide.open(sdata, mpp=0.5)).sections
    assert np.allclose(section.xy_px, xy)


@pytest.mark.parametrize("names", [None, ["x", "y"], ["y", "x"], ["a", "b"]])
def test_the_call_that_is_named_mends_a_table(build: Any, names: list[str] | None) -> None:
    pixels, xy = tissue(400, 300)
    adata = build.library(xy[:, ::-1], pixels=pixels)
    if names is not None:
        stored = xy if names == ["y", "x"] else xy[:, ::-1]
        adata.obsm["spatial"] = pd.DataFrame(stored, index=adata.obs_names, columns=names)
    with pytest.raises(ValueError, match="Exchange them") as caught:
        plan_tiles(Slide.open(adata, mpp=0.5))
    exec(str(caught.value).split("Exchange them: ")[1].removesuffix("."), {"adata": adata})
    (section,) = plan_tiles(Slide.open(adata, mpp=0.5)).sections
    assert np.allclose(section.xy_px, xy)


def breast(folder: Path) -> Iterator[tuple[str, Path, np.ndarray]]:
    for name in ("A1", "C2", "C3", "C4", "C5"):
        own = folder / "her2st" / name
        meta = json.loads((own / "meta.json").read_text())
        yield name, own / meta["image"], np.asarray(ad.read_h5ad(own / "counts.h5ad").obsm["spatial"], float)


def bulb(folder: Path) -> Iterator[tuple[str, Path, np.ndarray]]:
    from PIL import Image

    for image in sorted((folder / "mob_regions" / "images").glob("*.jpg")):
        spots = pd.read_csv(folder / "mob_regions" / "annotations" / f"{image.stem}_01.tsv", sep="\t", index_col=0)
        array = np.array([[float(v) for v in name.split("_")] for name in spots.columns])
        with Image.open(image) as opened:
            yield f"bulb {image.stem}", image, (array - 1) / [32, 34] * opened.size


def lung(folder: Path) -> Iterator[tuple[str, Path, np.ndarray]]:
    cells: Any = ad.read_h5ad(folder / "xenium_lung_ncbi858" / "NCBI858.h5ad").obs
    yield "lung", folder / "xenium_lung_ncbi858" / "NCBI858.jpg", cells[["y_pixel", "x_pixel"]].to_numpy(float)


@pytest.mark.slow
def test_real_sections_pass_as_they_are_and_are_found_when_exchanged(data_folder: Path) -> None:
    from PIL import Image

    from spatialwhisperer._access.images import Level, RasterImage
    from spatialwhisperer._access.tiles.swapped import both_ways

    found, alarms = {}, {}
    for read in (breast, bulb, lung):
        for name, file, xy in read(data_folder):
            with Image.open(file) as picture:
                pixels = np.moveaxis(np.asarray(picture.convert("RGB")), -1, 0)
            image = RasterImage(name, (Level(pixels, 1.0, 1.0),), pixels.shape[:0:-1])
            alarms[name], found[name] = both_ways(image, xy), both_ways(image, xy[:, ::-1])
    assert len(found) == 15
    assert not [name for name, f in alarms.items() if f.is_likely or f.is_certain]
    # these two are about as wide as high and fill the image: exchanged spots are on tissue too
    assert [name for name, f in found.items() if not (f.is_likely or f.is_certain)] == ["bulb 01", "bulb 08"]
    assert [name for name, f in found.items() if f.is_certain] == ["lung"]


def test_the_axes_of_a_real_xenium_section_are_exchanged(build: Any, data_folder: Path) -> None:
    from PIL import Image

    (_, file, xy), *_ = lung(data_folder)
    with Image.open(file) as picture:
        pixels = np.moveaxis(np.asarray(picture.convert("RGB")), -1, 0)
    with pytest.raises(ValueError, match=r"x and y of section 'L' seem to be exchanged: \d+ % .* 100 % with"):
        plan(build, pixels, xy[:, ::-1])
    plan(build, pixels, xy)
