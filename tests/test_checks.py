"""Checks of single arguments."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest

from spatialwhisperer._checks.checked import checked, checked_fields, checked_options
from spatialwhisperer._checks.texts import plain_text, reads_missing
from spatialwhisperer._checks.values import check_batch_size, check_key_added, check_path, check_tile, one_of, positive


def test_keys_that_storage_can_keep_pass() -> None:
    for key in (None, "sw_label", "größer_µm", "a-b.c"):
        check_key_added(key)


@pytest.mark.parametrize(
    ("key", "error"),
    [
        *(
            (key, ValueError)
            for key in ("", " ", "a/b", "spatialwhisperer", "spatial", "spatialdata_attrs", "array_row")
        ),
        (3, TypeError),
    ],
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


@checked
def call(k: int = 3, *, note: str | None = None, key: str | None = None, random_state: int = 0, **others: Any) -> str:
    return f"{k} {note} {key} {random_state} {others}"


def test_arguments_are_checked_by_their_names_and_by_their_annotations() -> None:
    assert call(2, note="a") == "2 a None 0 {}"
    several: list[dict[str, Any]] = [{"k": 0}, {"note": 7}, {"key": 7}, {"random_state": -1}]
    for wrong in several:
        with pytest.raises((TypeError, ValueError), match=f"^{next(iter(wrong))} must be"):
            call(**wrong)


def test_nothing_is_refused_where_it_stands_for_nothing() -> None:
    @checked
    def bins(n_bins: int = 3, n_seeds: int | None = 4) -> tuple[int, int | None]:
        return n_bins, n_seeds

    assert bins(n_seeds=None) == (3, None)
    wrong: dict[str, Any] = {"n_bins": None}
    with pytest.raises(TypeError, match="n_bins must be a whole number, not None"):
        bins(**wrong)


def test_a_default_is_right_where_it_is_passed() -> None:
    assert call(key=None, note=None)


def test_an_argument_that_does_not_exist_is_named_by_python() -> None:
    with pytest.raises(TypeError, match="missing|unexpected"):
        checked(lambda a: a)(b=1)  # type: ignore[call-arg]


def test_fields_are_checked_whenever_one_is_made() -> None:
    @checked_options
    @dataclass(frozen=True)
    class Options:
        tile_px: int | None = None
        note: str = ""

    assert replace(Options(tile_px=3), note="a").note == "a"
    with pytest.raises(ValueError, match="tile_px must be"):
        Options(tile_px=-1)
    with pytest.raises(TypeError, match="note must be text"):
        replace(Options(), note=7)  # type: ignore[arg-type]

    @checked_fields
    @dataclass(frozen=True)
    class Fields:
        tile_px: int | None = None

    assert Fields(-1).tile_px == -1
    with pytest.raises(TypeError, match="tile_px must be a whole number or None"):
        Fields("1")  # type: ignore[arg-type]


@pytest.mark.parametrize(("path", "error"), [("", ValueError), ("a\0b", ValueError), (7, TypeError), (b"a", TypeError)])
def test_what_names_no_file_is_refused(path: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="folder must"):
        check_path("folder", path)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("  fat \t tissue\n", "fat tissue"),
        ("Sjo\u0308gren", "Sj\u00f6gren"),
        (" \u200b", ""),
        ("\ufeff\u2060\u200d", ""),
        # within words such a character has a meaning
        ("\u0646\u200c\u0646", "\u0646\u200c\u0646"),
    ],
)
def test_a_text_in_which_nothing_can_be_seen_is_empty(text: str, plain: str) -> None:
    assert plain_text(text) == plain


def test_texts_of_missing_values_are_told_from_words() -> None:
    assert all(map(reads_missing, ["", " ", *map(str, (None, float("nan"), pd.NA, pd.NaT)), "NA", "n/a", " N/A "]))
    assert not any(map(reads_missing, ["none", "unknown", "nan cell"]))
