"""Pickles are read as values: what the standard library writes comes back, and nothing that a pickle asks for is run."""

from __future__ import annotations

import collections
import io
import os
import pickle
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatialwhisperer._storage.pickles import Named, StandIn, UnsafePickle, read_pickle

KEYS = st.text(max_size=8) | st.integers() | st.booleans() | st.none() | st.binary(max_size=4)
LEAVES = KEYS | st.floats(allow_nan=False)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(KEYS, inner, max_size=6) | st.tuples(inner, inner),
    max_leaves=30,
)


@settings(max_examples=150, deadline=None)
@given(value=VALUES, protocol=st.integers(2, 5))
def test_plain_values_come_back(value: Any, protocol: int) -> None:
    calls: dict[str, Any] = {"_codecs.encode": lambda text, _: text.encode("latin1"), "__builtin__.bytes": bytes}
    assert read_pickle(pickle.dumps(value, protocol=protocol), "it", calls=calls) == value


def test_values_that_occur_twice_are_one() -> None:
    once = [1, 2]
    first, second, _ = read_pickle(pickle.dumps([once, once, tuple(range(3000))]), "it")
    assert first is second


class Setting:
    def __init__(self) -> None:
        self.size, self.parts = 3, [1]

    def __setstate__(self, state: Any) -> None:
        pytest.fail("its own code was run")


def test_objects_of_known_packages_are_inert() -> None:
    for protocol in (2, 4):
        found = read_pickle(pickle.dumps({"x": Setting()}, protocol=protocol), "it", packages={"tests"})["x"]
        assert isinstance(found, StandIn)
        assert found.named == Named(Setting.__module__, "Setting")
        assert found.state == {"size": 3, "parts": [1]}
    with pytest.raises(UnsafePickle, match="asks for 'tests.storage.test_pickles.Setting'"):
        read_pickle(pickle.dumps(Setting()), "it", packages={"test"})


class Calls:
    """Asks the standard unpickler to call something."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


def attacks(place: Path) -> dict[str, bytes]:
    """Pickles that would make a file, or do worse, by the name of the trick."""
    touch = f"touch {place}"
    mark = f"open({str(place)!r}, 'w').close()"
    short = f"S{touch!r}\n".encode()
    return {
        "os.system": pickle.dumps(Calls(os.system, touch)),
        "eval": pickle.dumps(Calls(eval, mark)),
        "exec": pickle.dumps(Calls(exec, mark), protocol=2),
        "getattr": pickle.dumps(Calls(getattr, "x", "upper")),
        "subprocess": pickle.dumps(Calls(subprocess.Popen, ["touch", str(place)])),
        "numpy": pickle.dumps(np.arange(3)),
        "numpy of objects": pickle.dumps(np.array([Calls(os.system, touch)], dtype=object)),
        "first protocol": b"cos\nsystem\n(" + short + b"tR.",
        "instance": b"(" + short + b"ios\nsystem\n.",
        "object": b"(cos\nsystem\n" + short + b"o.",
        "in a key": pickle.dumps({"a": {1: Calls(os.system, touch)}}),
        "in a state": b"\x80\x02ctests.x\nA\n)\x81}X\x01\x00\x00\x00acos\nsystem\n" + short + b"\x85Rsb.",
        "a dotted name": b"\x80\x04\x8c\x05tests\x8c\x09os.system\x93" + short + b"\x85R\x8c\x02os\x8c\x06system\x93.",
        "an extension": b"\x80\x02\x82\x01.",
        "outside values": b"\x80\x02X\x01\x00\x00\x00aQ.",
        "by name": b"Pabc\n.",
        "a call of a value": b"\x80\x02X\x01\x00\x00\x00a)R.",
    }


@pytest.mark.parametrize("name", attacks(Path("x")))
def test_what_a_pickle_asks_for_is_refused_and_nothing_runs(name: str, tmp_path: Path) -> None:
    content = attacks(tmp_path / "ran")[name]
    with pytest.raises(ValueError, match="it "):
        read_pickle(content, "it", packages={"tests"})
    assert not (tmp_path / "ran").exists()


def test_the_tricks_are_real(tmp_path: Path) -> None:
    """The standard unpickler falls for them."""
    pickle.loads(attacks(tmp_path / "ran")["os.system"])
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle",
        pickle.dumps(list(range(100)))[:-20],
        pickle.dumps([1])[:-1],
        b"\x80\x02K\x01K\x02.",
        b"\x80\x04\x8e" + (2**60).to_bytes(8, "little") + b"x.",
        b"\x80\x02\x8b" + (2**31 - 1).to_bytes(4, "little") + b"x.",
        b"\x80\x02h\x05.",
        b"\x80\x02a.",
        b"\x80\x02(.",
        b"\x80\x02}(K\x01u.",
        b"\x80\x02]K\x01K\x02s.",
    ],
)
def test_what_is_no_pickle_is_a_value_error(content: bytes) -> None:
    with pytest.raises(ValueError, match="it is not a pickle that can be read"):
        read_pickle(content, "it")


@pytest.mark.slow
def test_depth_and_places_cost_nothing() -> None:
    """A key of nested tuples would overflow the stack, and a far place in the memo fill the memory."""
    deep = b"\x80\x02}" + b")" + b"\x85" * 200_000 + b"K\x01s."
    with pytest.raises(ValueError, match="a key is of type tuple"):
        read_pickle(deep, "it")
    far = b"\x80\x02]r" + (2**32 - 1).to_bytes(4, "little") + b"."
    assert read_pickle(far, "it") == []


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_pickles_are_values_or_value_errors(data: Any) -> None:
    whole = pickle.dumps(
        {"a": [1, 2.5, ("x", None)], "b": collections.OrderedDict(c=Setting())}, protocol=data.draw(st.integers(0, 5))
    )
    at = data.draw(st.integers(0, len(whole) - 1))
    broken = whole[:at] + data.draw(st.binary(max_size=3)) + whole[at + 1 :]
    try:
        read_pickle(broken, "it", calls={"collections.OrderedDict": lambda *_: {}}, packages={"tests"})
    except ValueError:
        pass


def test_a_large_pickle_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spatialwhisperer._storage.pickles.LARGEST_PICKLE", 10)
    with pytest.raises(ValueError, match="at most 10 are read"):
        read_pickle(pickle.dumps(list(range(100))), "it")


def test_nothing_is_imported() -> None:
    import sys

    before = set(sys.modules)
    buffer = io.BytesIO()
    pickle.dump(Setting(), buffer)
    content = buffer.getvalue().replace(b"tests.storage", b"tests.nothing")
    assert isinstance(read_pickle(content, "it", packages={"tests"}), StandIn)
    assert set(sys.modules) == before
