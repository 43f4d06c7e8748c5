"""Rows of the table: every argument of every public function with values that it is not meant to have."""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from spatialwhisperer._access.slide_options import SlideOptions
from tests.torture import others
from tests.torture.calls import CALLS, WITH_TRAINED, Call
from tests.torture.frame import Campaign, Trial
from tests.torture.judge import judged
from tests.torture.objects import fresh
from tests.torture.odd import ODD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np

SLIDE = tuple(SlideOptions.__annotations__)


def parameters(function: Callable[..., Any], options: dict[str, Any]) -> list[str]:
    """Names of all arguments."""
    kinds = inspect.signature(function).parameters.values()
    names = [p.name for p in kinds if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    names += SLIDE if "slide" in [p.name for p in kinds] else ()
    return list(dict.fromkeys([*names, *options]))


def _of_objects(calls: dict[str, Call]) -> list[tuple[str, str]]:
    return [(name, p) for name, call in calls.items() for p in parameters(call.function, dict(call.options))]


@lru_cache
def _others(which: str) -> dict[str, others.Other]:
    return others.fast() if which == "fast" else others.slow()


def _of_others(which: str) -> list[tuple[str, str]]:
    return [(name, p) for name, (made, options) in _others(which).items() for p in parameters(made(), options)]


def fast(rng: np.random.Generator, n: int) -> Iterator[Trial]:
    yield from _drawn(rng, n, CALLS, "fast")


def slow(rng: np.random.Generator, n: int) -> Iterator[Trial]:
    yield from _drawn(rng, n, WITH_TRAINED, "slow")


def _drawn(rng: np.random.Generator, n: int, calls: dict[str, Call], which: str) -> Iterator[Trial]:
    """Trials in which every argument and every odd value comes equally often."""
    places = [*_of_objects(calls), *_of_others(which)]
    left: list[tuple[str, str]] = []
    values: list[str] = []
    for _ in range(n):
        left = left or [places[i] for i in rng.permutation(len(places))]
        values = values or [list(ODD)[i] for i in rng.permutation(len(ODD))]
        name, parameter = left.pop()
        yield trial(name, parameter, values.pop(), calls, which, rng)


def trial(name: str, parameter: str, value: str, calls: dict[str, Call], which: str, rng: np.random.Generator) -> Trial:
    """One argument of one function with one odd value."""
    title = f"{name}, {parameter}={value}"
    if name not in calls:
        made, right = _others(which)[name]
        function = made()
        return judged(title, lambda _, **given: function(**given), None, {**right, parameter: ODD[value]()})[0]
    call = calls[name]
    kind = call.kinds[rng.integers(len(call.kinds))]
    data, options = fresh(kind), call.arguments()
    if parameter == next(iter(inspect.signature(call.function).parameters)):
        data = ODD[value]()
    else:
        options[parameter] = ODD[value]()
    # what is written depends on the argument, such as key_added
    return judged(f"{title} ({kind})", call.function, data, options, writes=("",))[0]


BAD_ARGUMENTS = Campaign("bad arguments × functions", fast, bounded=60, long=1400)
BAD_ARGUMENTS_TRAINED = Campaign("bad arguments × functions of trained models", slow, bounded=40, long=300)
