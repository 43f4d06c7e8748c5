"""Damaged and hostile folders end in an error of this package or in a model, whatever was changed in them."""

from __future__ import annotations

import shutil
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import spatialwhisperer
from spatialwhisperer.models import Whisperer
from tests.torture.frame import Campaign, Trial
from tests.torture.guard import alone, at_the_end
from tests.torture.mutations import MUTATIONS, choose, seal
from tests.torture.small_models import shared_folders

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

    import numpy as np

HOME = str(Path(spatialwhisperer.__file__).parent)
ENDS = ("opens", "own error")


def outcome(folder: Path, *, seconds: int = 60) -> tuple[str, str]:
    """What opening a folder ends in, and the message; anything but `ENDS` must not be."""
    try:
        with alone(folder, seconds=seconds):
            repr(Whisperer.load(folder))
    except (FileNotFoundError, ValueError, KeyError) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        own = last.filename.startswith(HOME)
        return ("own error" if own else f"{type(error).__name__} of {last.filename}"), str(error)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is an outcome
        return type(error).__name__, str(error)
    return "opens", ""


def trials(rng: np.random.Generator, n: int) -> Iterator[Trial]:
    """One change of one of three models each; half of them with checksums that fit again."""
    return at_the_end(_changes(rng, n), n, _neither_all_nor_none)


def _changes(rng: np.random.Generator, n: int) -> Iterator[Trial]:
    folders = list(shared_folders().values())
    for folder in folders:
        # what a first use imports is no part of the trial
        Whisperer.load(folder)
    for i in range(n):
        with tempfile.TemporaryDirectory() as place:
            yield _changed(folders[i % len(folders)], Path(place), rng, i)


def _changed(source: Path, place: Path, rng: np.random.Generator, i: int) -> Trial:
    folder = place / "m"
    shutil.copytree(source, folder)
    change, sealed = choose(rng, MUTATIONS)
    what = change(folder, rng)
    if sealed:
        try:
            seal(folder)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            what += ", not sealed"
    ended, said = outcome(folder)
    if (place / "ran").exists():
        return Trial(ended, f"{i}: {what}: its code ran")
    return Trial(ended, "" if ended in ENDS else f"{i}: {what}: {ended}: {said[:200]}")


def _neither_all_nor_none(outcomes: Counter[str]) -> str:
    """Where nothing opens, or nearly everything, the changes try nothing."""
    n = sum(outcomes.values())
    return "" if n < 30 or 0 < outcomes["opens"] < n / 2 else f"{outcomes['opens']} of {n} folders open"


CAMPAIGN = Campaign("mutated model folders", trials, bounded=45, long=600, posix=True)
