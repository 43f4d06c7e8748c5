"""How often the intervals that the package reports hold the true value, on simulated sections whose truth is known.

Spots lie on a square grid. Independent normal values, or values smoothed by a Gaussian of one, two or three spots, make the scores, the
expression and the confidences. Nothing of the package's data is used.
"""

from __future__ import annotations

import time
from functools import cache, partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from spatialwhisperer.protocols.output import markdown, write_text
from spatialwhisperer.statistics.calibration import N_BINS, calibration_error
from spatialwhisperer.statistics.evidence import association, darkness_basis
from spatialwhisperer.statistics.intervals import auroc as roc
from spatialwhisperer.statistics.intervals.spatial import SpatialErrors
from spatialwhisperer.statistics.intervals.uncertainty import jackknife, over_units
from spatialwhisperer.statistics.transitivity import class_aurocs, kappa

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EDGE = 18
"""Spots along the edge of a section: 324 spots, between the 180 to 346 of the sections of the other protocols."""

SIGMAS = (0.0, 1.0, 2.0, 3.0)
"""Standard deviation of the smoothing, in spots; 0 is independent spots."""

LARGE_EDGE = 40
"""The same of a section of 1600 spots, of which covariances are fitted on a sample only."""

CLASSES = 4
AGREEMENT = 0.5
"""Correlation of a score with what it is compared with."""

PATIENTS = 5
EQUAL, UNEQUAL = (4, 4, 4, 4, 4), (20, 3, 3, 3, 3)
"""Sections of each of the patients."""

_MANY = 400_000

Ends = tuple[float, float]


class Section:
    """One kind of simulated section: maps of it are drawn."""

    def __init__(self, sigma: float, rng: np.random.Generator, edge: int = EDGE) -> None:
        self.sigma, self.rng, self.edge = sigma, rng, edge
        self.n = edge * edge
        self.errors = SpatialErrors(np.argwhere(np.ones((edge, edge))), np.zeros(self.n))

    def map(self, *shape: int) -> np.ndarray:
        """Standard normal values, smooth within the section; shape (*shape, spots)."""
        from scipy.ndimage import gaussian_filter

        if not self.sigma:
            return self.rng.normal(size=(*shape, self.n))
        margin = int(4 * self.sigma) + 1
        size = self.edge + 2 * margin
        noise = self.rng.normal(size=(*shape, size, size))
        smooth = gaussian_filter(noise, [0] * len(shape) + [self.sigma] * 2)[..., margin:-margin, margin:-margin]
        # the sum of the squared weights of a two-dimensional Gaussian
        return smooth.reshape(*shape, self.n) * 2 * np.sqrt(np.pi) * self.sigma


class Independent(Section):
    """A section without neighbours, of any number of spots, from which true values are computed."""

    def __init__(self, n: int, seed: int = 0) -> None:
        self.sigma, self.n, self.rng = 0.0, n, np.random.default_rng(seed)


class Estimate(NamedTuple):
    """A value with its interval."""

    value: float
    ends: Ends = (np.nan, np.nan)


def _alike(known: np.ndarray, other: np.ndarray) -> np.ndarray:
    return AGREEMENT * known + np.sqrt(1 - AGREEMENT**2) * other


# ---------------------------------------------------------------------------------------------- what is estimated


def mean(section: Section, interval: bool) -> Estimate:
    """A mean, such as an error of a link."""
    x = section.map()
    return Estimate(x.mean(), section.errors.mean(x).interval(x.mean()) if interval else (np.nan, np.nan))


def fraction(section: Section, interval: bool) -> Estimate:
    """A fraction of the spots, such as coverage; 30 % of them."""
    inside = section.map() > 0.5244
    value = inside.mean()
    return Estimate(
        value, section.errors.fraction(inside).interval(value, bounded=True) if interval else (np.nan, np.nan)
    )


def class_auroc(section: Section, interval: bool) -> Estimate:
    """AUROC of one class, which a quarter of the spots has."""
    known, other = section.map(2)
    present, scores = known > 0.6745, _alike(known, other)
    value = roc.auroc(scores, present)
    return Estimate(
        value, section.errors.auroc(scores, present).interval(value, bounded=True) if interval else (np.nan, np.nan)
    )


def auroc_difference(section: Section, interval: bool) -> Estimate:
    """Difference of the AUROCs of two scores on the same spots."""
    known, one, other = section.map(3)
    present, first = known > 0.6745, _alike(known, one)
    if not 0 < present.sum() < section.n:
        return Estimate(np.nan)
    value = roc.auroc(first, present) - roc.auroc(other, present)
    if not interval:
        return Estimate(value)
    return Estimate(value, section.errors.auroc(first, present, other).interval(value))


def _labels(section: Section) -> tuple[np.ndarray, np.ndarray]:
    """Scores by image, and the best label by expression."""
    by_gene, other = section.map(2, CLASSES)
    return _alike(by_gene, other).T, by_gene.argmax(axis=0)


def macro_auroc(section: Section, interval: bool) -> Estimate:
    """Mean AUROC over labels, such as the transitive consistency."""
    scores, best = _labels(section)
    each = class_aurocs(scores, best)
    if not np.isfinite(each).any():
        return Estimate(np.nan)
    value = float(np.nanmean(each))
    if not interval:
        return Estimate(value)
    found = section.errors.macro_auroc(scores, best, np.flatnonzero(np.isfinite(each)))
    return Estimate(value, found.interval(value, bounded=True))


def agreement(section: Section, interval: bool) -> Estimate:
    """Cohen's kappa of the best labels."""
    scores, best = _labels(section)
    value, moved = kappa(scores.argmax(axis=1), best, CLASSES)
    return Estimate(value, section.errors.labels(moved, best).interval(value) if interval else (np.nan, np.nan))


def overconfidence(section: Section, interval: bool) -> Estimate:
    """Expected calibration error of confidences that are .1 too high."""
    return _calibration(section, 0.1, interval)


def calibrated(section: Section, interval: bool) -> Estimate:
    """Expected calibration error of confidences that are right: 0."""
    return _calibration(section, 0.0, interval)


def _calibration(section: Section, too_high: float, interval: bool) -> Estimate:
    from scipy.stats import norm

    known, other = section.map(2)
    confidence = 0.4 + 0.6 * norm.cdf(known)
    correct = (norm.cdf(other) < confidence - too_high).astype(float)
    found = calibration_error(confidence, correct, section.errors.mean(correct - confidence), n_bins=N_BINS)
    return Estimate(found.value, (found.low, found.high) if interval else (np.nan, np.nan))


def patients(section: Section, interval: bool, sizes: tuple[int, ...] = EQUAL) -> Estimate:
    """A mean over a few patients that differ, with several sections each."""
    units = np.repeat(np.arange(PATIENTS), sizes) if interval else np.arange(_MANY)
    values = section.rng.normal(size=units.max() + 1)[units] + section.rng.normal(size=len(units))
    return Estimate(values.mean(), over_units(values, units).interval(values.mean()) if interval else (np.nan, np.nan))


def patients_jackknife(section: Section, interval: bool, sizes: tuple[int, ...] = EQUAL) -> Estimate:
    """A ratio of sums over a few patients, such as an F1 of pooled predictions."""
    n = PATIENTS if interval else _MANY
    rows = np.array(sizes) * 15.0 if interval else np.full(n, 60.0)
    hits, all_rows = (np.exp(0.3 * section.rng.normal(size=n)) * scale for scale in (rows / 2, rows))
    value = hits.sum() / all_rows.sum()
    if not interval:
        return Estimate(value)
    without = np.array([np.delete(hits, i).sum() / np.delete(all_rows, i).sum() for i in range(n)])
    return Estimate(value, jackknife(without, all_rows).interval(value))


INTERVALS: dict[str, Callable[[Section, bool], Estimate]] = {
    "mean": mean,
    "fraction": fraction,
    "AUROC of one class": class_auroc,
    "difference of two AUROCs": auroc_difference,
    "macro AUROC": macro_auroc,
    "kappa": agreement,
    "calibration error, calibrated": calibrated,
    "calibration error, .1 too confident": overconfidence,
}
"""Intervals over spots, by their name in the table."""

OVER_PATIENTS: dict[str, Callable[[Section, bool], Estimate]] = {
    f"mean over {PATIENTS} patients": patients,
    f"mean over {PATIENTS} patients, one with most rows": partial(patients, sizes=UNEQUAL),
    f"ratio over {PATIENTS} patients, jackknife": patients_jackknife,
    f"ratio over {PATIENTS} patients, jackknife, one with most rows": partial(patients_jackknife, sizes=UNEQUAL),
}
"""Intervals over patients, to which the smoothness of a section does not matter."""

TESTS = {
    "test of two unrelated maps": (EDGE, False),
    "test beyond darkness": (EDGE, True),
    f"test of two unrelated maps, {LARGE_EDGE**2} spots": (LARGE_EDGE, False),
    f"test beyond darkness, {LARGE_EDGE**2} spots": (LARGE_EDGE, True),
}
"""Tests, by their name in the table: spots along the edge of a section, and whether darkness is taken out."""


def rejections(section: Section, repeats: int, *, beyond_darkness: bool) -> float:
    """How often two unrelated maps are said to go together, at 5 %; with darkness taken out, which both maps follow."""
    found = []
    sections = np.zeros(section.n, int)
    for _ in range(repeats):
        scores, expression, darkness = section.map(3)
        basis = darkness_basis(np.zeros(section.n), sections)
        if beyond_darkness:
            basis = darkness_basis(darkness, sections)
            scores, expression = scores + darkness, expression + darkness
        present = (expression > np.quantile(expression, 0.75)).astype(float)
        found.append(association(section.errors, _ranks(scores), present, basis).p_value < 0.05)
    return float(np.mean(found))


def _ranks(values: np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata

    return rankdata(values)


# ---------------------------------------------------------------------------------------------- the command


def run(out: Path, *, repeats: int = 1000, smoke: bool = False) -> pd.DataFrame:
    """Simulate, and write ``coverage.csv`` and ``coverage.md``.

    Parameters
    ----------
    out
        Folder of the results.
    repeats
        Simulated sections for each interval and smoothness.
    smoke
        Thirty sections, to show that everything runs.
    """
    start = time.perf_counter()
    table = measure(30 if smoke else repeats)
    write_text(out / "coverage.csv", table.to_csv(index=False))
    text = report(table, time.perf_counter() - start)
    write_text(out / "coverage.md", text)
    print(text)
    return table


def measure(repeats: int, names: tuple[str, ...] = (), sigmas: tuple[float, ...] = SIGMAS) -> pd.DataFrame:
    """One row per interval (or test) and smoothness.

    Parameters
    ----------
    repeats
        Simulated sections of each.
    names
        Which; empty for all.
    sigmas
        Smoothness.

    Returns
    -------
    Columns ``what``, ``sigma``, ``coverage`` (of the intervals that were given; for a test, 1 minus the frequency of false alarms),
    ``given`` (fraction of the sections for which there was an interval) and ``width`` (median).
    """
    rows = []
    for sigma in sigmas:
        for name, estimate in (INTERVALS | OVER_PATIENTS).items():
            if (names and name not in names) or (name in OVER_PATIENTS and sigma):
                continue
            truth = _truth(name, estimate)
            section = Section(sigma, np.random.default_rng(int(sigma) + 1))
            drawn = [estimate(section, True).ends for _ in range(repeats)]
            low, high = np.array(drawn).T
            known = np.isfinite(low)
            inside = (low <= truth) & (truth <= high)
            coverage = inside[known].mean() if known.any() else np.nan
            rows.append((name, sigma, coverage, known.mean(), np.nanmedian(high - low) if known.any() else np.nan))
        for name, (edge, beyond) in TESTS.items():
            if not names or name in names:
                section = Section(sigma, np.random.default_rng(int(sigma) + 1), edge)
                rows.append((name, sigma, 1 - rejections(section, repeats, beyond_darkness=beyond), 1.0, np.nan))
    return pd.DataFrame(rows, columns=["what", "sigma", "coverage", "given", "width"])


@cache
def _truth(name: str, estimate: Callable[[Section, bool], Estimate]) -> float:
    """The value that infinitely many independent spots would give."""
    if name == "calibration error, calibrated":
        return 0.0
    if name == "mean" or name.startswith("mean over"):
        return 0.0
    if name.startswith("ratio over"):
        return 0.5
    large = Independent(_MANY)
    large.errors = SpatialErrors(None, np.zeros(_MANY, int))
    return estimate(large, False).value


def report(table: pd.DataFrame, seconds: float) -> str:
    """Markdown table: coverage by smoothness, with the fraction of sections that got an interval where it is below 1."""
    cells = [
        "–" if np.isnan(c) else f"{c:.3f}" + (f" ({g:.0%})" if g < 0.995 else "")
        for c, g in zip(table["coverage"], table["given"], strict=True)
    ]
    wide = table.assign(cell=cells).pivot(index="what", columns="sigma", values="cell")
    wide = wide.loc[list(dict.fromkeys(table["what"]))].fillna("")
    wide.columns = [f"σ = {s:g}" if s else "independent" for s in wide.columns]
    return f"{markdown(wide)}\n\n{EDGE} × {EDGE} spots; {seconds:.0f} s.\n"
