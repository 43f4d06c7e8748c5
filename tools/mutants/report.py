"""What became of the faults: figures per room, survivors with their lines, faults without effect."""

from __future__ import annotations

import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tools.mutants.sample import room

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tools.mutants.trial import Trial

REVIEWED = Path(__file__).with_name("equivalent.toml")
HEAD = (
    "| room | faults | noticed | survived | without effect | noticed of those with effect |\n|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Equivalent:
    """Faults that no test can notice, or that change nothing a result depends on: reviewed, each with a reason."""

    entries: tuple[dict[str, str], ...]

    @classmethod
    def read(cls, path: Path = REVIEWED) -> Equivalent:
        """Read the reviewed list."""
        return cls(tuple(tomllib.loads(path.read_text(encoding="utf-8")).get("equivalent", ())))

    def reason(self, trial: Trial) -> str | None:
        """Why a fault has no effect, where it is on the list: the same file, and the same line before and after."""
        for entry in self.entries:
            if (entry["file"], entry["before"], entry["after"]) == (trial.file, trial.before, trial.after):
                return entry["reason"]
        return None


@dataclass(frozen=True)
class Figures:
    """How many faults of a sample were noticed."""

    noticed: dict[str, int]
    survived: dict[str, int]
    equivalent: dict[str, int]

    @classmethod
    def of(cls, trials: Iterable[Trial], equivalent: Equivalent) -> Figures:
        """Count trials by room; a fault that is noticed has an effect, whatever the list says."""
        noticed: Counter[str] = Counter()
        survived: Counter[str] = Counter()
        without: Counter[str] = Counter()
        for trial in trials:
            where = noticed if trial.noticed else without if equivalent.reason(trial) else survived
            where[room(trial.file)] += 1
        return cls(noticed, survived, without)

    def proportion(self) -> float:
        """Of the faults with an effect, the proportion that was noticed."""
        return _proportion(sum(self.noticed.values()), sum(self.survived.values()))

    def table(self) -> str:
        """A row for each room, and one for all."""
        rooms = sorted({*self.noticed, *self.survived, *self.equivalent})
        rows = [self._row(f"`{name}`", *(kind.get(name, 0) for kind in self._kinds())) for name in rooms]
        rows.append(self._row("**all**", *(sum(kind.values()) for kind in self._kinds())))
        return "\n".join([HEAD, *rows])

    def _kinds(self) -> tuple[dict[str, int], ...]:
        return self.noticed, self.survived, self.equivalent

    @staticmethod
    def _row(name: str, noticed: int, survived: int, equivalent: int) -> str:
        total = noticed + survived + equivalent
        percent = f"{_proportion(noticed, survived):.0%}"
        return f"| {name} | {total} | {noticed} | {survived} | {equivalent} | {percent} |"


def _proportion(noticed: int, survived: int) -> float:
    return noticed / (noticed + survived) if noticed + survived else 1.0


def described(trial: Trial) -> str:
    """A fault and what became of it, on a few lines."""
    head = f"{trial.outcome}: {trial.file}:{trial.line} ({trial.kind}), {trial.tests} tests, {trial.seconds:.0f} s"
    if trial.left_out:
        head += f", {trial.left_out} more tests reach it"
    if trial.noticed:
        return f"{head}, by {trial.by}" if trial.by else head
    return f"{head}\n    - {trial.before}\n    + {trial.after}"
