"""Averages over the cells of a tile, against integrals that are written out."""

from __future__ import annotations

import numpy as np
import pytest

from spatialwhisperer._access.tiles.resample import Cells, _weights

PLANE = np.arange(3 * 6 * 8, dtype=np.uint8).reshape(1, 3, 6, 8)


def average(cells: Cells, left: float, top: float, bias: float = 0.0, planes: np.ndarray = PLANE) -> np.ndarray:
    return cells.average(planes, np.zeros(1, int), np.array([left]), np.array([top]), bias)[0]


def test_whole_pixels_are_taken_as_they_are() -> None:
    assert np.array_equal(average(Cells(3, 1, 1), 2, 1), PLANE[0, :, 1:4, 2:5])


def test_a_cell_is_the_mean_of_its_pixels_with_halves_rounded_up() -> None:
    expected = PLANE[0, :, :4, :6].reshape(3, 2, 2, 2, 3).mean(axis=(2, 4))
    assert np.array_equal(average(Cells(2, 3, 2), 0, 0), np.floor(expected + 0.5))


def test_pixels_that_are_cut_count_in_part() -> None:
    # cells from .25 to 1.75 and to 3.25: .75 of the first pixel and .75 of the second, …
    row = np.zeros((1, 3, 1, 4), np.uint8)
    row[..., :] = [0, 100, 200, 40]
    found = average(
        Cells(2, 1.5, 1.0),
        0.25,
        0,
        planes=np.repeat(row, 3, axis=2),
    )
    assert found[0, 0].tolist() == [50, round((0.25 * 100 + 200 + 0.25 * 40) / 1.5 + 1e-9)]


def test_bias_is_added_and_values_stay_in_range() -> None:
    assert np.array_equal(average(Cells(2, 1, 1), 0, 0, 10.0), PLANE[0, :, :2, :2] + 10)
    assert (average(Cells(2, 1, 1), 0, 0, -300.0) == 0).all()
    assert (average(Cells(2, 1, 1), 0, 0, 300.0) == 255).all()


@pytest.mark.parametrize(("cell", "margin"), [(0.25, 0.25), (0.4, 0.1), (0.5, 0.0), (2.0, 0.0)])
def test_small_cells_read_beyond_their_edges(cell: float, margin: float) -> None:
    assert Cells(4, cell, 1.0).margin == pytest.approx((margin, 0.0))
    assert Cells(4, cell, 2.0).size == (4 * cell, 8.0)


@pytest.mark.parametrize(("cell", "width"), [(0.3, 0.7), (1.0, 1.0), (2.4, 2.4)])
def test_weights_are_the_parts_of_pixels_under_a_cell(cell: float, width: float) -> None:
    first, weights = _weights(3.21, cell, width, 3)
    for i in range(3):
        middle = 3.21 + (i + 0.5) * cell
        low, high = middle - width / 2, middle + width / 2
        assert first[i] == int(low)
        parts = [max(min(high, p + 1) - max(low, p), 0) / width for p in range(first[i], first[i] + weights.shape[1])]
        np.testing.assert_allclose(weights[i], parts, atol=1e-6)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)


def test_each_tile_is_read_from_its_own_plane() -> None:
    planes = np.concatenate([PLANE, 255 - PLANE])
    found = Cells(2, 1, 1).average(planes, np.array([1, 0]), np.array([1.0, 3.0]), np.array([2.0, 0.0]))
    assert np.array_equal(found[0], 255 - PLANE[0, :, 2:4, 1:3])
    assert np.array_equal(found[1], PLANE[0, :, :2, 3:5])


def parts(start: float, cell: float, n: int, pixels: int) -> np.ndarray:
    """The part of each cell that lies on each pixel, shape (n, pixels); a small cell is averaged over a pixel at least."""
    width = max(cell, 1 - cell)
    low = start + (np.arange(n) + 0.5)[:, None] * cell - width / 2
    edges = np.arange(pixels)
    return np.clip(np.minimum(low + width, edges + 1) - np.maximum(low, edges), 0, None) / width


@pytest.mark.parametrize("cell", [0.3, 0.5, 0.93, 0.99, 1.0, 1.02, 1.3, 2.7])
def test_averages_are_integrals_over_cells_of_any_size(cell: float) -> None:
    """About as many cells as pixels are added in runs; where a pixel is left out or taken twice, another run begins."""
    n, start = 48, 1.37
    pixels = int(n * cell) + 6
    plane = np.random.default_rng(0).integers(0, 256, (1, 3, pixels, pixels), dtype=np.uint8)
    found = average(Cells(n, cell, cell), start, start, planes=plane)
    weights = parts(start, cell, n, pixels)
    np.testing.assert_allclose(found, weights @ plane[0].astype(float) @ weights.T, atol=0.5 + 1e-3)
