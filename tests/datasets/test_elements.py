from __future__ import annotations

from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
import pytest

from spatialwhisperer._access.elements.halving import mean_of_four
from spatialwhisperer.datasets._files import jpeg
from spatialwhisperer.datasets._sections.elements import n_levels, pyramid

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@pytest.fixture
def picture() -> np.ndarray:
    """Pixels of an odd size, (3, 1301, 1103)."""
    return np.random.default_rng(0).integers(0, 256, (3, 1301, 1103), np.uint8)


def check(levels: Sequence[da.Array], finest: np.ndarray) -> None:
    for level in levels:
        assert np.array_equal(level.compute(), finest)
        assert np.array_equal(level[:, 3:40, 100:101].compute(), finest[:, 3:40, 100:101])
        _, height, width = finest.shape
        finest = mean_of_four(finest[:, : height // 2 * 2, : width // 2 * 2])


def test_each_level_holds_the_means_of_the_one_before(picture: np.ndarray) -> None:
    for pixels in (picture, da.from_array(picture, chunks=(3, 300, 257))):
        levels = pyramid(pixels)
        assert len(levels) == n_levels(picture.shape) == 2
        check(levels, picture)


def test_levels_of_a_file_are_those_of_its_pixels_and_need_no_finer_one(picture: np.ndarray, tmp_path: Path) -> None:
    from PIL import Image

    # without losses, so that the pixels are known
    Image.fromarray(np.moveaxis(picture, 0, -1)).save(tmp_path / "image.png")
    levels = jpeg.pyramid(tmp_path / "image.png", chunk_px=256, n=4)
    check(levels, picture)
    assert not set(levels[0].dask.layers) & set(levels[3].dask.layers)


@pytest.mark.parametrize(("size", "n"), [(10, 2), (512, 2), (2047, 2), (2048, 3), (9911, 5)])
def test_the_last_level_is_small(size: int, n: int) -> None:
    assert n_levels((3, 7, size)) == n
