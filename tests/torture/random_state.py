"""A row of the table: no public function moves the generators that a whole process shares."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.torture.bad_data import every_call
from tests.torture.frame import Campaign, Trial
from tests.torture.judge import quiet
from tests.torture.objects import fresh

if TYPE_CHECKING:
    from collections.abc import Iterator


def states() -> tuple[Any, ...]:
    """The states of the generators of Python, NumPy and torch."""
    import torch

    _, keys, position, *_ = np.random.get_state()  # noqa: NPY002 - it is the one that must not move
    return hash(random.getstate()), keys.tobytes(), position, torch.get_rng_state().numpy().tobytes()


def trials(rng: np.random.Generator, n: int) -> Iterator[Trial]:
    """Every function once with right arguments, in a random order."""
    calls = every_call()
    names = list(calls)
    for at in range(n):
        name = names[rng.permutation(len(names))[0]] if at >= len(names) else names[at]
        call = calls[name]
        kind = call.kinds[rng.integers(len(call.kinds))]
        data, options = fresh(kind), call.arguments()
        before = states()
        with quiet():
            call.function(data, **options)
        moved = [
            which for which, a, b in zip(("random", "NumPy", "NumPy", "torch"), before, states(), strict=True) if a != b
        ]
        yield Trial("not moved", f"{name}({kind}) moves the generator of {moved[0]}" if moved else "")


GLOBAL_RANDOM_STATE = Campaign("global random state", trials, bounded=20, long=84)
