"""What every campaign of the torture test is made of: seeded trials, each held or failed, and a table of the counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

SEED = 0


class Trial(NamedTuple):
    """One trial: how it ended (``own error``, ``right result``, …), and what was wrong with that, where something was."""

    outcome: str
    failure: str = ""


@dataclass(frozen=True)
class Campaign:
    """
    A row of the table.

    ``trials(rng, n)`` makes ``n`` trials one after another, and all that it draws comes from ``rng``. ``bounded`` trials run with the
    tests, ``long`` ones with ``make torture``. ``posix`` ones need signals and other things that Windows does not have.
    """

    name: str
    trials: Callable[[np.random.Generator, int], Iterable[Trial]]
    bounded: int
    long: int
    posix: bool = False

    def run(self, n: int, *, seed: int = SEED) -> Counts:
        counts = Counts(self.name)
        try:
            for trial in self._seeded(n, seed):
                counts.outcomes[trial.outcome] += not trial.failure
                counts.tried += 1
                counts.failures += [trial.failure] if trial.failure else []
        except Exception as error:  # noqa: BLE001 - the other campaigns go on
            counts.failures.append(f"the campaign ended after {counts.tried} trials: {error!r}")
        return counts

    def _seeded(self, n: int, seed: int) -> Iterator[Trial]:
        yield from self.trials(np.random.default_rng(seed), n)


@dataclass
class Counts:
    """Counts of a campaign."""

    name: str
    tried: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def row(self) -> str:
        """The row of a Markdown table: campaign, tried, held (and how), failed."""
        held = ", ".join(f"{n} {outcome}" for outcome, n in self.outcomes.most_common() if n)
        return f"| {self.name} | {self.tried:,} | {held or '–'} | {len(self.failures)} |"


HEAD = "| campaign | tried | held | failed |\n|---|---|---|---|"


def table(all_counts: Iterable[Counts]) -> str:
    """The Markdown table of several campaigns."""
    return "\n".join([HEAD, *(counts.row() for counts in all_counts)])
