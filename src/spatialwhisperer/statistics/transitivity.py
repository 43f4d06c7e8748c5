"""Measures of whether images and text are aligned through expression, on plain arrays.

Image–gene and gene–text pairs can align images with text where the expression of both kinds of pairs overlaps. This is the idea of
Schaefer et al. (ICML 2026), who state a sufficient condition with a bound of order √δ. No bound is computed here: the one that follows
from the triangle inequality, ``√2 (√ε₁ + √δ + √ε₂)``, exceeds the largest distance of unit vectors on real sections.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spatialwhisperer._compute.ties import ranks
from spatialwhisperer.statistics.intervals import auroc as roc

FEWEST = 10
"""A class needs this many rows with it, and this many without it, for an AUROC of its own."""

TOGETHER = 0.95
"""Two prompts whose scores over the rows correlate more than this cannot be distinguished on these rows."""


# ------------------------------------------------------------------------------------------------- links


def link_errors(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """1 - cosine of each pair of unit rows; a and b have shape (n, u), the result (n,)."""
    return 1 - (a * b).sum(axis=1)


@dataclass(frozen=True)
class Retrieval:
    """How well each row retrieves its partner among the rows of its section.

    Attributes
    ----------
    above
        Fraction of the other rows that are less similar than the partner, ties counting half; 0.5 for random pairs. Shape (n,).
    found
        Probability that the partner is among the k most similar where ties are broken at random, shape (n,): 0 or 1 without ties.
    chance
        Probability that random pairs are among the k most similar, shape (n,).
    """

    above: np.ndarray
    found: np.ndarray
    chance: np.ndarray


def retrieval(a: np.ndarray, b: np.ndarray, sections: np.ndarray, k: int = 10) -> Retrieval:
    """Rank the partner of each row of ``a`` among the rows of ``b`` in the same section.

    Parameters
    ----------
    a, b
        Paired unit rows, shape (n, u).
    sections
        Section of each row, shape (n,). The only row of a section gets NaN.
    k
        Ranks that count as found.
    """
    n = len(a)
    above, hit, chance = np.full(n, np.nan), np.full(n, np.nan), np.full(n, np.nan)
    for name in np.unique(sections.astype(str)):
        rows = np.flatnonzero(sections.astype(str) == name)
        if len(rows) < 2:
            continue
        found = ranks(a[rows] @ b[rows].T, np.arange(len(rows)))
        above[rows] = 1 - (found.mean - 1) / (len(rows) - 1)
        hit[rows] = found.within(k)
        chance[rows] = min(1.0, k / len(rows))
    return Retrieval(above, hit, chance)


def caption_ranks(gene: np.ndarray, caption: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Fraction of the other captions that are further from each row than its own caption, ties counting half.

    Parameters
    ----------
    gene
        Unit rows, shape (n, u).
    caption
        Unit embeddings of the captions, shape (c, u).
    index
        Caption of each row, shape (n,).

    Returns
    -------
    Shape (n,); NaN where there is only one caption.
    """
    if len(caption) < 2:
        return np.full(len(gene), np.nan)
    return 1 - (ranks(gene @ caption.T, index).mean - 1) / (len(caption) - 1)


# ------------------------------------------------------------------------------------------------- prompts


@dataclass(frozen=True)
class Prompts:
    """Distances between labels, and how the rows are distributed over the labels.

    Attributes
    ----------
    distance
        Distances between the embeddings of the labels, shape (c, c).
    margin
        Distance of each label to the nearest other label, shape (c,).
    sink
        Mean score of each label over the rows, minus the mean over all labels, shape (c,). It is high for a hub: a label that is close
        to all rows.
    fraction
        Fraction of the rows whose best label it is, shape (c,).
    correlation
        Correlation between the scores of the labels over the rows, shape (c, c).
    """

    distance: np.ndarray
    margin: np.ndarray
    sink: np.ndarray
    fraction: np.ndarray
    correlation: np.ndarray

    def together(self) -> list[tuple[int, int]]:
        """Pairs of labels whose scores correlate by more than `TOGETHER`."""
        pairs = np.argwhere(np.triu(self.correlation > TOGETHER, k=1))
        return [(int(i), int(j)) for i, j in pairs]


def prompts(text: np.ndarray, rows: np.ndarray) -> Prompts:
    """Describe labels by their unit embeddings (c, u) and the unit embeddings of rows (n, u)."""
    from spatialwhisperer.statistics.bridge import distances

    distance = distances(text, text)
    np.fill_diagonal(distance, 0)
    scores = rows @ text.T
    mean = scores.mean(axis=0)
    deviations = scores - mean
    sd = np.sqrt((deviations**2).mean(axis=0)).clip(min=1e-12)
    correlation = (deviations.T @ deviations) / len(scores) / np.outer(sd, sd)
    return Prompts(
        distance,
        (distance + np.diag(np.full(len(text), np.inf))).min(axis=1),
        mean - mean.mean(),
        np.bincount(scores.argmax(axis=1), minlength=len(text)) / len(scores),
        correlation,
    )


# ------------------------------------------------------------------------------------------------- agreement


def centred_scores(rows: np.ndarray, text: np.ndarray, sections: np.ndarray) -> np.ndarray:
    """Cosines of rows (n, u) and labels (c, u), minus the mean of each label within the section; shape (n, c)."""
    scores = rows @ text.T
    for name in np.unique(sections.astype(str)):
        inside = sections.astype(str) == name
        scores[inside] -= scores[inside].mean(axis=0)
    return scores


def kappa(a: np.ndarray, b: np.ndarray, n_classes: int) -> tuple[float, np.ndarray]:
    """Cohen's kappa of two labellings, and how much each row moves it.

    Parameters
    ----------
    a, b
        Codes of the labels, shape (n,).
    n_classes
        Number of labels.

    Returns
    -------
    The value: 1 is full agreement, 0 the agreement that the frequencies of the labels give by chance, NaN where both labellings give
    the same single label to all rows. And influence values with mean 0, shape (n,).
    """
    a, b = np.asarray(a), np.asarray(b)
    agree = (a == b).astype(float)
    one, other = (np.bincount(x, minlength=n_classes) / len(x) for x in (a, b))
    same, expected = agree.mean(), float(one @ other)
    if expected >= 1 - 1e-12:
        return np.nan, np.full(len(a), np.nan)
    by_chance = other[a] + one[b] - 2 * expected
    moved = ((agree - same) * (1 - expected) - (1 - same) * by_chance) / (1 - expected) ** 2
    return float((same - expected) / (1 - expected)), moved


def judged_classes(silver: np.ndarray, n_classes: int, least: int = FEWEST) -> np.ndarray:
    """Labels with at least so many rows with them and without them, Boolean of shape (c,).

    Parameters
    ----------
    silver
        Code of the silver label of each row, shape (n,).
    n_classes
        Number of labels.
    least
        Fewest rows.
    """
    n = np.bincount(silver, minlength=n_classes)
    return np.minimum(n, len(silver) - n) >= least


def class_aurocs(scores: np.ndarray, silver: np.ndarray, least: int = FEWEST) -> np.ndarray:
    """AUROC of the scores of each label, with labels from another source (silver labels) as ground truth.

    Parameters
    ----------
    scores
        Shape (n, c).
    silver
        Code of the silver label of each row, shape (n,).
    least
        Rows that a label needs with it, and without it; otherwise its AUROC is NaN.

    Returns
    -------
    Shape (c,).
    """
    enough = judged_classes(silver, scores.shape[1], least)
    return np.where(enough, roc.aurocs(scores, silver), np.nan)
