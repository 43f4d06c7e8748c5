"""Frozen dataclasses become plain values and come back, checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, dataclass, field
from typing import Any, Literal

import numpy as np
import pytest

from spatialwhisperer._frozen import FrozenMapping, frozen
from spatialwhisperer._storage.schema import Stored, from_plain, to_plain


@dataclass(frozen=True)
class Inner(Stored):
    name: str
    share: float = 0.5


@dataclass(frozen=True)
class Outer(Stored):
    n: int
    how: Literal["a", "b"]
    inner: Inner
    sizes: tuple[float, ...] = ()
    by_name: Mapping[str, Inner] = field(default_factory=frozen)
    mpp: tuple[float, float] | None = None
    anything: Mapping[str, Any] = field(default_factory=frozen)


FULL = Outer(3, "a", Inner("größer"), (1.0, 2.5), {"x": Inner("y", 1.0)}, (0.5, 1.0), {"z": [1, {"a": None}]})
PLAIN: dict[str, Any] = {"n": 3, "how": "a", "inner": {"name": "x"}}


def back(value: Outer) -> Outer:
    return from_plain(Outer, json.loads(json.dumps(to_plain(value))), "the settings of a test")


@pytest.mark.parametrize("value", [FULL, Outer(0, "b", Inner(""))])
def test_a_value_comes_back_equal(value: Outer) -> None:
    assert back(value) == value
    assert to_plain(back(value)) == to_plain(value)


def test_lists_come_back_as_tuples_and_mappings_as_ones_that_cannot_be_changed() -> None:
    read = back(FULL)
    assert isinstance(read.sizes, tuple)
    for one in (read, FULL):
        assert isinstance(one.by_name, FrozenMapping)
        with pytest.raises(TypeError, match="item assignment"):
            one.by_name["x"] = Inner("z")  # type: ignore[index]
        with pytest.raises(FrozenInstanceError):
            one.n = 4  # type: ignore[misc]


def test_a_mapping_that_is_changed_afterwards_does_not_matter() -> None:
    given = {"x": Inner("y")}
    value = Outer(1, "a", Inner("x"), by_name=given)
    given["z"] = Inner("w")
    assert set(value.by_name) == {"x"}


def test_defaults_fill_what_was_left_out() -> None:
    assert from_plain(Outer, PLAIN, "x") == Outer(3, "a", Inner("x"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"more": 1}, "more: Unexpected keyword argument"),
        ({"inner": {"name": "x", "nmae": "y"}}, "inner.nmae: Unexpected keyword argument"),
        ({"n": "3"}, "n: Input should be a valid integer"),
        ({"n": 2.5}, "n: Input should be a valid integer"),
        ({"n": True}, "n: Input should be a valid integer"),
        ({"how": "c"}, "how: Input should be 'a' or 'b'"),
        ({"sizes": [1, "2"]}, "sizes.1: Input should be a valid number"),
        ({"sizes": 1}, "sizes: Input should be a valid array"),
        ({"mpp": [1.0]}, "mpp.1: Field required"),
        ({"inner": None}, "inner: "),
        ({"by_name": {"x": {}}}, "by_name.x.name: Field required"),
        ({"by_name": []}, "by_name: "),
        ({"n": None, "how": None}, "n: .*; how: "),
    ],
)
def test_values_that_do_not_fit_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"The settings of a test does not fit this version of the package: {message}"):
        from_plain(Outer, PLAIN | changes, "the settings of a test")


def test_a_missing_value_is_named() -> None:
    with pytest.raises(ValueError, match="how: Field required"):
        from_plain(Outer, {"n": 3, "inner": {"name": "x"}}, "x")


@pytest.mark.parametrize("plain", [None, [], 3, "n"])
def test_what_is_no_mapping_is_refused(plain: Any) -> None:
    with pytest.raises(ValueError, match="the whole: "):
        from_plain(Outer, plain, "x")


def test_whole_numbers_stand_for_any() -> None:
    read = from_plain(Inner, {"name": "x", "share": 1}, "x")
    assert read.share == 1.0
    assert isinstance(read.share, float)


def test_sets_become_sorted_lists() -> None:
    assert to_plain({"a": {"b", "a", "c"}, "n": frozenset({10, 9})}) == {"a": ["a", "b", "c"], "n": [9, 10]}
    assert to_plain({2, "b", 1, "a"}) == [1, 2, "a", "b"]


def test_numbers_of_numpy_become_plain_ones() -> None:
    plain = to_plain({1: np.float32(0.5), "a": np.arange(2), "b": (np.bool_(True), {np.int64(3)})})
    assert plain == {"1": 0.5, "a": [0, 1], "b": [True, [3]]}
    assert json.loads(json.dumps(plain)) == plain
