"""Rows of the table: every function with every kind of bad data ends in a message of the package or in a right or harmless result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.torture.alike import alike
from tests.torture.calls import CALLS, WITH_TRAINED, Call
from tests.torture.damage import images, places, records, tables
from tests.torture.frame import Campaign, Trial
from tests.torture.judge import judged, quiet
from tests.torture.objects import fresh

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from tests.torture.damage.kinds import Damage

DAMAGES: list[Damage] = [*tables.DAMAGES, *records.DAMAGES, *places.DAMAGES, *images.DAMAGES]


def every_call() -> dict[str, Call]:
    """The functions of both rows."""
    return CALLS | WITH_TRAINED


def fast(rng: np.random.Generator, n: int) -> Iterator[Trial]:
    yield from _drawn(CALLS, rng, n)


def slow(rng: np.random.Generator, n: int) -> Iterator[Trial]:
    yield from _drawn(WITH_TRAINED, rng, n)


def _drawn(calls: dict[str, Call], rng: np.random.Generator, n: int) -> Iterator[Trial]:
    """Trials in which every kind of damage and every function comes equally often, as far as they go together."""
    names: list[str] = []
    damages: list[Damage] = []
    for _ in range(n):
        damages = damages or [DAMAGES[i] for i in rng.permutation(len(DAMAGES))]
        damage = damages.pop()
        names = names or [list(calls)[i] for i in rng.permutation(len(calls))]
        name = next((name for name in names if set(calls[name].kinds) & set(damage.kinds)), None)
        if name is None:
            name = next(name for name, call in calls.items() if set(call.kinds) & set(damage.kinds))
        else:
            names.remove(name)
        kinds = sorted(set(calls[name].kinds) & set(damage.kinds))
        yield trial(name, calls[name], damage, kinds[rng.integers(len(kinds))])


def trial(name: str, call: Call, damage: Damage, kind: str) -> Trial:
    """One function with one damaged object."""
    data, options = fresh(kind), call.arguments()
    with quiet():
        changed = damage.apply(data)
    data = data if changed is None else changed
    judgement, out = judged(f"{name}({kind}), {damage.name}", call.function, data, options, writes=call.writes)
    if judgement.failure or not damage.harmless:
        return judgement
    if judgement.outcome == "own error":
        return Trial("refused", f"{name}({kind}), {damage.name}: what is harmless was refused")
    return _compared(name, call, kind, damage, data, out)


def _compared(name: str, call: Call, kind: str, damage: Damage, data: Any, out: Any) -> Trial:
    other = fresh(kind)
    with quiet():
        right = call.function(other, **call.arguments())
    different = alike(out, right) or alike(written(data, call), written(other, call))
    return Trial("right result", f"{name}({kind}), {damage.name}: {different}" if different else "")


def written(data: Any, call: Call) -> dict[str, Any]:
    """What lies at the places that a call may write, in the table."""
    from tests.torture.objects import table_of

    table = table_of(data)
    found = {f"obs[{key}": table.obs[key] for key in table.obs} | {f"obsm[{key}": table.obsm[key] for key in table.obsm}
    return {where: value for where, value in found.items() if where.startswith(call.writes or ("-",))}


BAD_DATA = Campaign("bad data × functions", fast, bounded=35, long=1400)
BAD_DATA_TRAINED = Campaign("bad data × functions of trained models", slow, bounded=30, long=300)
