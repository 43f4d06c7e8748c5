"""Wrappers and names do not hide what an encoder computes."""

from __future__ import annotations

import functools
import sys
import types
from typing import Any, NewType, TypeVar

import numpy as np
import pytest
import torch

from spatialwhisperer.encoders._introspection import as_written, in_library
from spatialwhisperer.encoders.digests import object_digest, unread_part

CODE = """
class Encoder:
    def encode(self, tiles):
        return tiles.mean((2, 3)) * scaled(2) * self(2)

    __call__ = wrapped(lambda self, n: n * {inner})

@wrapped
def scaled(n):
    return n * {outer}
"""


def encoder(wrapped: Any, inner: int = 2, outer: int = 2) -> Any:
    """An encoder of a notebook, whose function and whose call are wrapped."""
    scope: dict[str, Any] = {"__name__": "__main__", "wrapped": wrapped}
    exec(CODE.format(inner=inner, outer=outer), scope)
    return scope["Encoder"]()


@pytest.mark.parametrize(
    "wrapped",
    [functools.cache, functools.lru_cache(maxsize=4), lambda f: functools.cache(functools.cache(f)), lambda f: f],
)
def test_a_function_that_keeps_its_results_counts_with_its_code(wrapped: Any) -> None:
    first = object_digest(encoder(wrapped))
    assert object_digest(encoder(wrapped)) == first
    assert len({first, object_digest(encoder(wrapped, inner=3)), object_digest(encoder(wrapped, outer=3))}) == 3


def test_static_functions_and_methods_that_keep_their_results_count() -> None:
    def of(kind: Any, k: int) -> str:
        return object_digest(type("Mean", (), {"factor": kind(functools.cache(lambda *_: k))})())

    for kind in (staticmethod, classmethod, property, functools.cached_property):
        assert of(kind, 1) == of(kind, 1)
        assert of(kind, 1) != of(kind, 2)


def test_all_wrappers_are_taken_off() -> None:
    def plain(x: int) -> int:
        return x

    wrapped: Any = staticmethod(functools.lru_cache(maxsize=2)(functools.cache(plain)))
    assert as_written(wrapped) is plain
    assert as_written(plain) is plain


def test_what_only_a_name_stands_for_is_not_recognised_where_it_is_the_callers_own() -> None:
    thing = types.SimpleNamespace(scale=np.frompyfunc(lambda x: x * 2, 1, 1))
    assert object_digest(thing) != object_digest(thing)
    assert "ufunc" in unread_part(object_digest(thing))


def test_what_a_library_holds_under_its_name_is_recognised() -> None:
    import scipy.special

    # types of the caller's own compute nothing
    kinds: list[Any] = [TypeVar("T"), NewType("Count", int)]
    compiled = type(np.random.default_rng().bit_generator.seed_seq).generate_state
    held: list[Any] = [np.multiply, scipy.special.expit, torch.float16, torch.channels_last, ..., compiled, *kinds]
    for one in held:
        digest = object_digest(types.SimpleNamespace(held=one))
        assert not unread_part(digest)
        assert object_digest(types.SimpleNamespace(held=one)) == digest
    assert object_digest([np.multiply]) != object_digest([np.maximum])


def test_a_name_in_a_library_stands_for_what_it_holds_there() -> None:
    assert in_library(np.multiply, "multiply")
    assert in_library(torch.channels_last, "torch.channels_last")
    assert not in_library(np.multiply, "add")
    assert not in_library(np.frompyfunc(len, 1, 1), "multiply")
    assert not in_library(CODE, "CODE")


def unread(**held: Any) -> str:
    return unread_part(object_digest(types.SimpleNamespace(**held)))


def test_what_could_not_be_read_is_named_in_words_that_last() -> None:
    class Lazy:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(f"{object()} is closed\nSee there.")

        __slots__ = ("rows",)

    def deep(n: int) -> Any:
        return types.SimpleNamespace(a=deep(n - 1) if n else (i for i in "abc"))

    assert unread(log=sys.stderr) == f"its attribute log (of type {type(sys.stderr).__qualname__})"
    assert unread(rows={"a": Lazy()}) == "its attribute rows.a (RuntimeError: <object object> is closed)"
    assert unread(a=deep(5)) == "its attribute a.a.a.a.a.a.… (of type generator)"
    assert unread(a=deep(4)) == "its attribute a.a.a.a.a.a (of type generator)"
    assert unread(a=deep(400)).endswith("(nested too deeply)")
    assert unread_part(object_digest(i for i in "abc")) == "it (of type generator)"
