"""The quantities behind the question whether text reaches images through expression, on plain arrays.

That image–gene and gene–text pairs can align images with text when the expression of the two overlaps is the idea of Schaefer et
al. (ICML 2026), who state a sufficient condition with a bound of order √δ. The inequality used here is our own reconstruction, not
the text of their theorem: for unit vectors ``|a - b|² = 2 (1 - cos)``, so that by Minkowski's inequality, for pairs (I, G), (G, G')
and (G', T) that are glued at G and G',

    E[1 - cos(I, T)] <= (√ε₁ + √δ + √ε₂)²

with ε₁ = E[1 - cos(I, G)], δ = E[1 - cos(G, G')] and ε₂ = E[1 - cos(G', T)].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spatialwhisperer.statistics.bootstrap import auroc

FEWEST = 5
"""Rows that a class needs with and without it for a per-class number."""

TOGETHER = 0.95
"""Two prompts whose scores correlate above this over the rows cannot be told apart there."""


# ------------------------------------------------------------------------------------------------- links


def link_errors(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """1 - cosine of each pair of unit rows, shape (n,)."""
    return 1 - (a * b).sum(axis=1)


def bound(first: np.ndarray, bridge: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Largest mean 1 - cosine between image and text that three mean errors allow, ``(√ε₁ + √δ + √ε₂)²``."""
    roots = [np.sqrt(np.clip(e, 0, None)) for e in (first, bridge, second)]
    return (roots[0] + roots[1] + roots[2]) ** 2


def as_distance(error: np.ndarray) -> np.ndarray:
    """Root mean square distance between unit vectors with this mean 1 - cosine."""
    return np.sqrt(2 * np.clip(error, 0, None))


@dataclass(frozen=True)
class Retrieval:
    """How well each row finds its partner among the rows of its section.

    Attributes
    ----------
    above
        Share of the other rows that are less similar than the partner, ties counting half: .5 for random pairs; shape (n,).
    found
        Whether the partner is among the k most similar, shape (n,).
    chance
        What random pairs would find, shape (n,).
    """

    above: np.ndarray
    found: np.ndarray
    chance: np.ndarray


def retrieval(a: np.ndarray, b: np.ndarray, sections: np.ndarray, k: int = 10) -> Retrieval:
    """Rank the partner of each row of ``a`` among the rows of ``b`` in the same section; NaN where it is alone."""
    n = len(a)
    above, hit, chance = np.full(n, np.nan), np.full(n, np.nan), np.full(n, np.nan)
    for name in np.unique(sections.astype(str)):
        rows = np.flatnonzero(sections.astype(str) == name)
        if len(rows) < 2:
            continue
        similar = a[rows] @ b[rows].T
        own = np.diag(similar)[:, None]
        higher, ties = (similar > own).sum(axis=1), (similar == own).sum(axis=1) - 1
        above[rows] = 1 - (higher + ties / 2) / (len(rows) - 1)
        hit[rows] = higher + ties / 2 < k
        chance[rows] = min(1.0, k / len(rows))
    return Retrieval(above, hit, chance)


def caption_ranks(gene: np.ndarray, caption: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Share of the other captions that are further from each row than its own, ties counting half; shape (n,)."""
    if len(caption) < 2:
        return np.full(len(gene), np.nan)
    similar = gene @ caption.T
    own = similar[np.arange(len(gene)), index][:, None]
    higher, ties = (similar > own).sum(axis=1), (similar == own).sum(axis=1) - 1
    return 1 - (higher + ties / 2) / (len(caption) - 1)


# ------------------------------------------------------------------------------------------------- prompts


@dataclass(frozen=True)
class Prompts:
    """How far the labels lie from each other, and how the rows fall on them.

    Attributes
    ----------
    distance
        Between the labels, shape (c, c).
    margin
        Distance of each label to the nearest other one, shape (c,).
    sink
        Mean score of each label over the rows, less the mean over labels: high for a hub that attracts everything.
    fraction
        Share of the rows whose best label it is, shape (c,).
    correlation
        Between the scores of the labels over the rows, shape (c, c).
    """

    distance: np.ndarray
    margin: np.ndarray
    sink: np.ndarray
    fraction: np.ndarray
    correlation: np.ndarray

    def together(self) -> list[tuple[int, int]]:
        """Pairs of labels whose scores run together on the rows."""
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
    """Cosines of rows and labels after the mean of each label within the section is taken away, shape (n, c)."""
    scores = rows @ text.T
    for name in np.unique(sections.astype(str)):
        inside = sections.astype(str) == name
        scores[inside] -= scores[inside].mean(axis=0)
    return scores


def kappa(a: np.ndarray, b: np.ndarray, n_classes: int, weights: np.ndarray | None = None) -> np.ndarray:
    """Cohen's kappa of two labellings (codes), for each row of weights (b, n), or a number without weights.

    1 is full agreement, 0 what the frequencies of the labels give by chance; NaN where both give one and the same label to all.
    """
    w = np.ones((1, len(a))) if weights is None else weights
    n = w.sum(axis=1)
    same = w @ (a == b) / n
    one, other = (
        np.stack([w @ (x == c) for c in range(n_classes)], axis=1) / n[:, None] for x in (np.asarray(a), np.asarray(b))
    )
    expected = (one * other).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        out = np.where(expected < 1 - 1e-12, (same - expected) / (1 - expected), np.nan)
    return out[0] if weights is None else out


def class_aurocs(
    scores: np.ndarray, silver: np.ndarray, weights: np.ndarray | None = None, least: int = FEWEST
) -> np.ndarray:
    """AUROC of each label's scores against who has it as silver truth.

    Parameters
    ----------
    scores
        Shape (n, c).
    silver
        Code of the label that stands for the truth, shape (n,).
    weights
        Shape (b, n).
    least
        Rows that a label needs with and without it; NaN otherwise.

    Returns
    -------
    Shape (c,), or (b, c) with weights.
    """
    out = []
    for c in range(scores.shape[1]):
        present = silver == c
        enough = min(present.sum(), (~present).sum()) >= least
        shape = () if weights is None else (len(weights),)
        out.append(auroc(scores[:, c], present, weights) if enough else np.full(shape, np.nan))
    return np.stack(out, axis=-1)


def macro(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is defined; NaN where nothing is."""
    known = np.isfinite(values)
    n = known.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(n > 0, np.where(known, values, 0).sum(axis=-1) / n, np.nan)
