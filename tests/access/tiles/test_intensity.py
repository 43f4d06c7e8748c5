"""An image that holds nothing, or other numbers than its type states, is not read in silence."""

from __future__ import annotations

import warnings
from typing import Any

import dask.array as da
import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer._access.images import Level, RasterImage
from spatialwhisperer._access.sections.section import Section
from spatialwhisperer._access.tiles.intensity import BlackTiles, check_intensity
from spatialwhisperer._messages import SpatialWhispererWarning

PIXELS = np.random.default_rng(0).integers(40, 250, (3, 60, 80), dtype=np.uint8)


def section(pixels: Any) -> Section:
    image = RasterImage("slide", (Level(pixels, 1.0, 1.0),), (float(pixels.shape[2]), float(pixels.shape[1])))
    xy = np.random.default_rng(1).uniform(0, pixels.shape[1:], (30, 2))[:, ::-1]
    return Section("P1", np.arange(30), xy, image, None)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros_like(PIXELS), "is black .0. wherever it was looked at.*read or write the image again"),
        (np.full(PIXELS.shape, np.nan, np.float32), "nothing but NaN"),
        (PIXELS.astype(np.uint16) * 16, r"reach 3984 of 65535.*12-bit values.*pixels // 16.\.astype\('uint8'\)"),
        (PIXELS.astype(np.uint16), r"8-bit values.*: pixels\.astype\('uint8'\)"),
    ],
    ids=["black", "nan", "12-bit", "8-bit"],
)
def test_an_image_that_would_be_read_wrongly_is_refused(pixels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^Image 'slide' of section 'P1'.*{message}"):
        check_intensity(section(pixels))


def test_a_dark_image_is_warned_of() -> None:
    with pytest.warns(SpatialWhispererWarning, match="is dark: its values reach 62 of 255"):
        check_intensity(section(PIXELS // 4))


def test_a_missing_chunk_is_warned_of() -> None:
    holed = PIXELS.copy()
    holed[:, :, 20:40] = 0
    with pytest.warns(SpatialWhispererWarning, match="25 % of the pixels of image 'slide' .* exactly black"):
        check_intensity(section(holed))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_an_image_that_uses_its_range_passes(dtype: Any) -> None:
    scale = {np.uint8: 1, np.uint16: 257, np.float32: 1 / 255}[dtype]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_intensity(section((PIXELS * np.asarray(scale, dtype)).astype(dtype)))


def test_of_a_large_image_some_windows_are_read() -> None:
    read: list[int] = []

    def block(shape: Any) -> np.ndarray:
        read.append(1)
        return np.full(shape, 200, np.uint8)

    pixels = da.map_blocks(
        lambda b: block(b.shape), da.zeros((3, 20000, 20000), np.uint8, chunks=(3, 500, 500)), dtype=np.uint8
    )
    read.clear()
    check_intensity(section(pixels))
    assert 1 <= len(read) <= 36


def test_features_and_training_look_at_the_image_in_the_same_place(adata: Any, model: Any) -> None:
    library = adata.uns["spatial"]["P3"]
    library["images"] = {"fullres": library["images"]["fullres"].astype(np.uint16) * 16}
    del adata.obsm["X_stain_texture"]
    adata.obs["text"] = "tissue"
    for call in (
        lambda: sw.pp.embed_images(adata, tile_um=80, tile_px=64),
        lambda: sw.tl.embed(adata, model=model),
        lambda: sw.tl.train(adata, image=sw.tl.ImageFeatures(tile_um=80, tile_px=64), gene="pca", max_epochs=1),
    ):
        with pytest.raises(ValueError, match="12-bit values"):
            call()


def test_black_tiles_are_counted() -> None:
    tiles = np.full((4, 3, 32, 32), 200, np.uint8)
    tiles[1] = 0
    tiles[2, :, :8] = 0
    black = BlackTiles()
    black.look(np.array([5, 6, 7, 8]), tiles)
    with pytest.warns(SpatialWhispererWarning, match="1 of 4 tiles .such as that of row 6. are exactly black"):
        black.report()


def test_nothing_but_black_tiles_is_refused_where_all_were_read() -> None:
    black = BlackTiles()
    black.look(np.arange(2), np.zeros((2, 3, 8, 8), np.uint8))
    with pytest.raises(ValueError, match="2 of 2 tiles .* read or write the image again"):
        black.check()
    with pytest.warns(SpatialWhispererWarning, match="2 of 2 tiles"):
        black.report()


def without_a_chunk(section: Any) -> Any:
    """The section with a chunk that is missing in the finest level of its image alone."""
    tree = section.images["P3_image"].copy(deep=True)
    finest = tree["scale0"]["image"]
    holed = finest.to_numpy()
    xy = section["table"].obsm["spatial"][0].astype(int)
    holed[:, max(xy[1] - 100, 0) : xy[1] + 100, max(xy[0] - 100, 0) : xy[0] + 100] = 0
    finest.data = da.from_array(holed, chunks=(3, 256, 256))
    section.images.data["P3_image"] = tree
    return section


def test_a_chunk_that_is_missing_in_the_finest_level_alone_is_warned_of(section: Any) -> None:
    without_a_chunk(section)
    for call in (
        lambda: sw.pp.embed_images(section, tile_um=80, tile_px=150, key_added="X_again"),
        lambda: sw.tl.tissue_darkness(section, tile_um=80, tile_px=150),
    ):
        with pytest.warns(SpatialWhispererWarning, match="of 120 tiles .such as that of row 0. are exactly black"):
            call()


def test_black_tiles_of_several_sizes_are_warned_of_once(section: Any) -> None:
    without_a_chunk(section)
    with pytest.warns(SpatialWhispererWarning) as said:
        sw.pp.embed_images(section, tile_um=[80, 60], tile_px=64, key_added="X_again")
    assert sum("are exactly black" in str(one.message) and "tiles" in str(one.message) for one in said) == 1


def test_darkness_and_pictures_look_at_the_image(adata: Any) -> None:
    library = adata.uns["spatial"]["P3"]
    library["images"] = {"fullres": library["images"]["fullres"].astype(np.uint16) * 16}
    adata.obs["number"] = np.arange(adata.n_obs) / 10
    for call in (
        lambda: sw.tl.tissue_darkness(adata, tile_um=80),
        lambda: sw.pl.top_tiles(adata, "number", tile_um=80, n=2),
    ):
        with pytest.raises(ValueError, match="12-bit values"):
            call()
