from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spatialwhisperer._access.elements.channels import colour_order, laid_on_white, on_white


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], (0, 1, 2)),
        ([0, 1, 2], (0, 1, 2)),
        (["c0", "c1", "c2"], (0, 1, 2)),
        (["Channel:0:1", "Channel:0:2", "Channel:0:3"], (0, 1, 2)),
        (["", "", ""], (0, 1, 2)),
        (["R", "G", "B"], (0, 1, 2)),
        (["red", "green", "blue"], (0, 1, 2)),
        (["b", "g", "r"], (2, 1, 0)),
        (["a", "r", "g", "b"], (1, 2, 3, 0)),
        (["r", "g", "b", "a"], (0, 1, 2, 3)),
        ([0, 1, 2, 3], (0, 1, 2, 3)),
        (["DAPI", "CD45", "CK"], None),
        (["CD3", "CD4", "CD8"], None),
        (["r", "g", "a"], None),
        (["r", "g", "r"], None),
        (["r", "g", "b", "DAPI"], None),
        (["DAPI", "ATP1A1", "18S", "alphaSMA"], None),
        (["r", "g"], None),
    ],
)
def test_channels_are_ordered_by_their_colours(names: list[Any], expected: Any) -> None:
    assert colour_order(names, len(names) or 3) == expected


def test_colours_with_alpha_are_laid_over_white() -> None:
    rgba = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 51]]], np.uint8)
    assert on_white(rgba).tolist() == [[[200, 100, 0], [255, 255, 255], [244, 224, 204]]]
    once = np.array([[[40, 20, 0, 51], [255, 255, 255, 51]]], np.uint8)
    assert on_white(once, premultiplied=True).tolist() == [[[244, 224, 204], [255, 255, 255]]]
    floats = np.array([[[0.5, 0.0, 1.0, 0.5]]], np.float32)
    assert on_white(floats).tolist() == [[[0.75, 0.5, 1.0]]]
    deep = np.array([[[0, 0, 0, 0x8000]]], np.uint16)
    assert on_white(deep).tolist() == [[[32767] * 3]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_an_opaque_image_keeps_its_values(dtype: Any) -> None:
    top = 1.0 if dtype == np.float32 else np.iinfo(dtype).max
    planes = (np.random.default_rng(0).random((4, 3, 5)) * top).astype(dtype)
    planes[3] = top
    assert np.array_equal(laid_on_white(planes), planes[:3])
    planes[3, 0] = 0
    assert np.array_equal(laid_on_white(planes)[:, 1:], planes[:3, 1:])
    assert (laid_on_white(planes)[:, 0] == top).all()
