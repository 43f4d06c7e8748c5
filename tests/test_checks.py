"""Checks of single arguments."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest

from spatialwhisperer._checks import check_batch_size, check_key_added, check_tile, one_of, positive


def test_keys_that_storage_can_keep_pass() -> None:
    for key in (None, "sw_label", "größer_µm", "a-b.c"):
        check_key_added(key)


@pytest.mark.parametrize(
    ("key", "error"),
    [("", ValueError), (" ", ValueError), ("a/b", ValueError), ("spatialwhisperer", ValueError), (3, TypeError)],
)
def test_keys_that_it_cannot_keep_are_refused(key: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="key_added must be .*Pass another name, or leave it out"):
        check_key_added(key)


@pytest.mark.parametrize("size", [None, 1, np.int64(3)])
def test_batch_sizes_are_whole_and_positive(size: Any) -> None:
    check_batch_size(size)


@pytest.mark.parametrize("size", [0, -1, 2.5, "3", True, np.nan])
def test_other_batch_sizes_are_refused(size: Any) -> None:
    with pytest.raises(ValueError, match="batch_size must be a positive whole number, not"):
        check_batch_size(size)


@pytest.mark.parametrize("value", [0, -1.5, np.nan, np.inf])
def test_a_positive_number_is_positive_and_finite(value: float) -> None:
    assert positive("mpp", 2) == 2.0
    with pytest.raises(ValueError, match="mpp must be a positive number, not"):
        positive("mpp", value)


def test_a_choice_is_one_of_those_there_are() -> None:
    kinds = Literal["pad", "nan"]
    assert one_of("border", "pad", kinds) == "pad"
    for value in ("Pad", None, 3, ["pad"]):
        with pytest.raises(ValueError, match="border must be one of 'pad', 'nan', not"):
            one_of("border", value, kinds)


@pytest.mark.parametrize(("um", "px"), [(80, None), (0.5, 1), (112.0, 224), (80, 64.0)])
def test_sizes_of_tiles_pass(um: float, px: Any) -> None:
    check_tile(um, px)


@pytest.mark.parametrize(
    ("um", "px", "error", "message"),
    [
        (0, None, ValueError, "tile_um must be a positive number"),
        (np.nan, None, ValueError, "tile_um must be a positive number"),
        ((80, 100), None, TypeError, "tile_um must be one number here"),
        (80, 0, ValueError, "tile_px must be a positive whole number, not 0"),
        (80, 2.5, ValueError, "tile_px must be a positive whole number, not 2.5"),
        (80, True, ValueError, "tile_px must be a positive whole number, not True"),
    ],
)
def test_sizes_that_are_none_are_refused(um: Any, px: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_tile(um, px)
