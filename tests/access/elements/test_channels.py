from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spatialwhisperer._access.elements.channels import are_colours, colour_order, laid_on_white, on_white


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
        (["Brightfield_Red", "Brightfield_Green", "Brightfield_Blue"], (0, 1, 2)),
        (["Blue channel", "Green channel", "Red channel"], (2, 1, 0)),
        (["TL Brightfield-R", "TL Brightfield-G", "TL Brightfield-B"], (0, 1, 2)),
        (["Cam-G", "Cam-B", "Cam-R"], (2, 0, 1)),
        (["CameraRed", "CameraGreen", "CameraBlue"], (0, 1, 2)),
        (["R: 1", "G: 1", "B: 1"], (0, 1, 2)),
        (["sRGB A", "sRGB R", "sRGB G", "sRGB B"], (1, 2, 3, 0)),
        (["Red", "Green", ""], (0, 1, 2)),
        (["Blue", "", "Red"], (2, 1, 0)),
        (["Cam-B", "Cam-G", ""], (2, 1, 0)),
        (["Red", "", ""], (0, 1, 2)),
        (["a", "r", "g", ""], (1, 2, 3, 0)),
        (["r", "g", "b", ""], None),
        (["DAPI", "", ""], None),
        (["Red", "DAPI", ""], None),
        (["AF594 red", "AF488 green", "AF405 blue"], None),
        (["CR", "CG", "CB"], None),
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


def test_each_channel_of_an_image_of_colours_is_named_after_one() -> None:
    assert are_colours(["Cam-R", "Cam-G", "Cam-B", "Cam-A"])
    assert are_colours(["Alpha", "red", "g", "B"])
    for names in ([], ["0", "1", "2", "3"], ["r", "g", "b", ""], ["r", "g", "b", "DAPI"]):
        assert not are_colours(names)


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
