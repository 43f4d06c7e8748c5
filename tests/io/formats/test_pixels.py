"""Pixels of files as arrays: slices, turns, pyramids and colours, by value."""

from __future__ import annotations

import pickle
from typing import Any

import dask.array as da
import numpy as np
import pytest

from spatialwhisperer._access.elements.halving import mean_of_four
from spatialwhisperer.io._formats import pixels as px


class InMemory(px.Pixels):
    """Pixels of an array of shape (y, x, samples), and the boxes that were read."""

    def __init__(self, stored: np.ndarray, convert: Any = px.as_stored) -> None:
        super().__init__(stored.shape[0], stored.shape[1], stored.dtype, convert)
        self.stored = stored
        self.boxes: list[tuple[int, int, int, int]] = []

    def read(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        self.boxes.append((top, bottom, left, right))
        return self.stored[top:bottom, left:right]


STORED = np.random.default_rng(0).integers(0, 256, (9, 11, 4), dtype=np.uint8)
PLANES = np.moveaxis(STORED[..., :3], -1, 0)


@pytest.mark.parametrize(
    ("key", "box"),
    [
        (np.s_[:, 2:5, 3:4], (2, 5, 3, 4)),
        (np.s_[1, :, 1:8:3], (0, 9, 1, 8)),
        (np.s_[:, ::-2, 10:4:-1], (0, 9, 5, 11)),
        (np.s_[0:2, 4:100, -3:], (4, 9, 8, 11)),
    ],
)
def test_a_slice_reads_its_box_alone(key: Any, box: tuple[int, ...]) -> None:
    image = InMemory(STORED)
    assert np.array_equal(image[key], PLANES[key])
    assert image.boxes == [box]


def test_an_empty_slice_reads_nothing() -> None:
    image = InMemory(STORED)
    assert image[:, 3:3, 2:4].shape == (3, 0, 2)
    assert image[0, 1:3, 20:].shape == (2, 0)
    assert image.boxes == []


def test_chunks_are_whole_tiles_of_the_file() -> None:
    image = InMemory(np.zeros((5000, 3000, 3), np.uint8))
    assert px.lazy(image, (300, 4000)).chunks == ((3,), (900,) * 5 + (500,), (3000,))
    assert px.lazy(image).chunks[1][0] == px.CHUNK_PX == 1024
    assert np.array_equal(px.lazy(InMemory(STORED)).compute(), PLANES)


def test_orientations_are_those_of_exif() -> None:
    """Where the first row and the first column of what is stored are to be seen."""
    first = np.array([[[1, 2], [3, 4], [5, 6]]] * 3)
    shown = {
        1: [[1, 2], [3, 4], [5, 6]],
        2: [[2, 1], [4, 3], [6, 5]],
        3: [[6, 5], [4, 3], [2, 1]],
        4: [[5, 6], [3, 4], [1, 2]],
        5: [[1, 3, 5], [2, 4, 6]],
        6: [[5, 3, 1], [6, 4, 2]],
        7: [[6, 4, 2], [5, 3, 1]],
        8: [[2, 4, 6], [1, 3, 5]],
        0: [[1, 2], [3, 4], [5, 6]],
        9: [[1, 2], [3, 4], [5, 6]],
    }
    for orientation, expected in shown.items():
        assert px.turned(first, orientation).tolist() == [expected] * 3, orientation
        assert px.swaps_axes(orientation) == (len(expected) == 2)


def test_squares_of_four_are_rounded_to_the_nearest_and_halves_up() -> None:
    block = np.zeros((3, 2, 8), np.uint8)
    block[:, 0] = [1, 0, 1, 1, 255, 255, 2, 3]
    block[:, 1] = [0, 0, 0, 0, 255, 255, 1, 1]
    assert mean_of_four(block)[0].tolist() == [[0, 1, 255, 2]]
    assert mean_of_four(np.full((3, 2, 2), 65535, np.uint16)).tolist() == [[[65535]]] * 3
    assert mean_of_four(block.astype(np.float32))[0].tolist() == [[0.25, 0.5, 255, 1.75]]


@pytest.mark.parametrize("longest", [2048, 2049, 4096, 4098])
def test_a_pyramid_ends_where_both_edges_are_small(longest: int) -> None:
    stored = np.random.default_rng(1).integers(0, 256, (longest, 37, 3), dtype=np.uint8)
    expected = {2048: 1, 2049: 2, 4096: 2, 4098: 3}[longest]
    kept = px.halves(InMemory(stored))
    lazily = px.with_pyramid(da.from_array(np.moveaxis(stored, -1, 0), chunks=(3, 701, 20)))
    assert len(kept) == len(lazily) == expected
    shape, planes = stored.shape[:2], np.moveaxis(stored, -1, 0)
    for one, other in zip(kept[1:], lazily[1:], strict=True):
        planes = mean_of_four(planes[:, : shape[0] // 2 * 2, : shape[1] // 2 * 2])
        shape = planes.shape[1:]
        assert one.shape == other.shape == planes.shape
        assert np.array_equal(one[:, :, :], planes)
        assert np.array_equal(other.compute(), planes)


def test_a_halved_picture_is_sent_without_its_pixels_and_made_again() -> None:
    halved = px.HalvedPixels(InMemory(STORED))
    before = halved[:, :, :]
    again = pickle.loads(pickle.dumps(halved))
    assert again._halved is None
    assert np.array_equal(again[:, :, :], before)


def test_inks_and_palettes_become_colours() -> None:
    inks = np.array([[[0, 255, 51, 0], [0, 0, 0, 51], [0, 128, 0, 255]]], np.uint8)
    assert px.from_cmyk(inks).tolist() == [[[255, 0, 204], [204, 204, 204], [0, 0, 0]]]
    palette = px.FromPalette(np.array([[0, 65535], [256, 511], [255, 512]], np.uint16))
    assert palette(np.array([[[1], [0]]])).tolist() == [[[255, 1, 2], [0, 1, 0]]]
