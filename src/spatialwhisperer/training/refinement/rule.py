"""The rule: a refinement is kept only where left-out patients gain from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

LEAST_GAIN = 0.002
"""A mean gain in caption agreement below this is none."""


@dataclass(frozen=True)
class Choice:
    """What the rule decides.

    Attributes
    ----------
    best
        Position of the candidate with the highest mean; 0 where none is above the warm start.
    kept
        Whether that candidate replaces the warm start.
    mean, standard_error
        Mean gain of that candidate over the warm start, and its standard error over units.
    gains
        Its gain in each unit, shape (units,).
    """

    best: int
    kept: bool
    mean: float
    standard_error: float
    gains: np.ndarray


def choose(agreement: np.ndarray) -> Choice:
    """Choose among candidates by the agreement of left-out units.

    The warm start is always a candidate, and it stays unless the mean gain of the best one is above one standard error and above
    `LEAST_GAIN`. What is chosen is therefore never below the warm start.

    Parameters
    ----------
    agreement
        Shape (units, candidates), at least two units; the warm start is the first candidate.

    Raises
    ------
    ValueError
        If there are fewer than two units.
    """
    if len(agreement) < 2:
        raise ValueError(f"The rule needs at least two left-out units; there are {len(agreement)}.")
    gains = agreement - agreement[:, :1]
    # of equal means the one with fewest steps
    best = int(np.argmax(gains.mean(axis=0)))
    own = gains[:, best]
    mean, error = float(own.mean()), float(own.std(ddof=1) / np.sqrt(len(own)))
    return Choice(best, best > 0 and mean > max(error, LEAST_GAIN), mean, error, own)


def in_words(choice: Choice, candidates: Sequence[int], units: str) -> str:
    """One line about what was decided and why."""
    if choice.best == 0:
        return f"no number of steps agrees better with captions than the closed form on left-out {units}, which stays"
    what = f"caption agreement {choice.mean:+.4f} ± {choice.standard_error:.4f} on {len(choice.gains)} left-out {units}"
    verdict = "kept" if choice.kept else "not enough, the closed form stays"
    return f"{candidates[choice.best]} steps, {what}: {verdict}"
