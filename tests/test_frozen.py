"""A mapping that cannot be changed, and behaves as a value."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from spatialwhisperer._frozen import FrozenMapping, frozen

VALUES: dict[Any, Any] = {"a": 1, ("image", "gene"): 2.5}


def test_it_reads_like_a_dictionary() -> None:
    values = FrozenMapping(VALUES)
    assert values["a"] == 1
    assert list(values) == list(VALUES)
    assert dict(values) == VALUES
    assert {**frozen(b=1)} == {"b": 1}
    assert len(frozen()) == 0
    assert repr(values) == repr(VALUES)
    assert FrozenMapping({"a": 1, "b": 2}) == frozen(a=1, b=2)
    assert FrozenMapping(frozen(a=1)) == {"a": 1}
    with pytest.raises(KeyError):
        values["b"]


def test_it_cannot_be_changed() -> None:
    values: Any = FrozenMapping(VALUES)
    with pytest.raises(TypeError, match="item assignment"):
        values["a"] = 2
    with pytest.raises(TypeError, match="item deletion"):
        del values["a"]
    with pytest.raises(AttributeError):
        values.other = 1
    for method in ("update", "pop", "clear", "setdefault"):
        assert not hasattr(values, method)


def test_what_it_was_made_of_may_change() -> None:
    given = dict(VALUES)
    values = FrozenMapping(given)
    given["a"] = 7
    assert values["a"] == 1


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))])
def test_copies_are_equal(again: Any) -> None:
    values = FrozenMapping({"a": (1, 2), "inner": frozen(b=3)})
    assert again(values) == values
    assert isinstance(again(values), FrozenMapping)
    assert isinstance(again(values)["inner"], FrozenMapping)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_of_pickle_keeps_it(protocol: int) -> None:
    assert pickle.loads(pickle.dumps(FrozenMapping(VALUES), protocol)) == FrozenMapping(VALUES)


def test_equal_ones_have_equal_hashes() -> None:
    assert hash(frozen(a=1, b=2)) == hash(frozen(b=2, a=1))
    assert frozen(a=1, b=2) == frozen(b=2, a=1)
    assert frozen(a=1) != frozen(a=2)
    assert {frozen(a=1): "x"}[frozen(a=1)] == "x"
    assert frozen(a=1) == {"a": 1}
    assert {"a": 1} == frozen(a=1)
    with pytest.raises(TypeError, match="unhashable"):
        hash(frozen(a=[]))
