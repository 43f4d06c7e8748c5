"""Measures of whether images and text are aligned through expression, on plain arrays.

Image–gene and gene–text pairs can align images with text where the expression of both kinds of pairs overlaps. This is the idea of
Schaefer et al. (ICML 2026), who state a sufficient condition with a bound of order √δ. The inequality used here is our own
reconstruction, not the text of their theorem. For unit vectors ``|a - b|² = 2 (1 - cos)``, so that by Minkowski's inequality, for
pairs (I, G), (G, G') and (G', T) that have G and G' in common,

    E[1 - cos(I, T)] <= (√ε₁ + √δ + √ε₂)²

with ε₁ = E[1 - cos(I, G)], δ = E[1 - cos(G, G')] and ε₂ = E[1 - cos(G', T)].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spatialwhisperer.statistics.bootstrap import auroc

FEWEST = 5
"""A class needs this many rows with it, and this many without it, for an AUROC of its own."""

TOGETHER = 0.95
"""Two prompts whose scores over the rows correlate more than this cannot be distinguished on these rows."""


# ------------------------------------------------------------------------------------------------- links


def link_errors(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """1 - cosine of each pair of unit rows; a and b have shape (n, u), the result (n,)."""
    return 1 - (a * b).sum(axis=1)


def bound(first: np.ndarray | float, bridge: np.ndarray | float, second: np.ndarray | float) -> np.ndarray:
    """Upper bound ``(√ε₁ + √δ + √ε₂)²`` of the mean 1 - cosine between image and text, given the three mean errors."""
    roots = [np.sqrt(np.clip(e, 0, None)) for e in (first, bridge, second)]
    return (roots[0] + roots[1] + roots[2]) ** 2


def as_distance(error: np.ndarray | float) -> np.ndarray:
    """Root mean square distance between unit vectors with this mean 1 - cosine."""
    return np.sqrt(2 * np.clip(error, 0, None))


@dataclass(frozen=True)
class Retrieval:
    """How well each row retrieves its partner among the rows of its section.

    Attributes
    ----------
    above
        Fraction of the other rows that are less similar than the partner, ties counting half; 0.5 for random pairs. Shape (n,).
    found
        Whether the partner is among the k most similar, shape (n,).
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
        similar = a[rows] @ b[rows].T
        own = np.diag(similar)[:, None]
        higher, ties = (similar > own).sum(axis=1), (similar == own).sum(axis=1) - 1
        above[rows] = 1 - (higher + ties / 2) / (len(rows) - 1)
        hit[rows] = higher + ties / 2 < k
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
    similar = gene @ caption.T
    own = similar[np.arange(len(gene)), index][:, None]
    higher, ties = (similar > own).sum(axis=1), (similar == own).sum(axis=1) - 1
    return 1 - (higher + ties / 2) / (len(caption) - 1)


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


def kappa(a: np.ndarray, b: np.ndarray, n_classes: int, weights: np.ndarray | None = None) -> np.ndarray:
    """Cohen's kappa of two labellings.

    Parameters
    ----------
    a, b
        Codes of the labels, shape (n,).
    n_classes
        Number of labels.
    weights
        Weights of the rows, shape (b, n); ``None`` gives every row the weight 1.

    Returns
    -------
    Shape (b,), or a number without weights. 1 is full agreement, 0 the agreement that the frequencies of the labels give by chance;
    NaN where both labellings give the same single label to all rows.
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
    """AUROC of the scores of each label, with labels from another source (silver labels) as ground truth.

    Parameters
    ----------
    scores
        Shape (n, c).
    silver
        Code of the silver label of each row, shape (n,).
    weights
        Weights of the rows, shape (b, n); ``None`` gives every row the weight 1.
    least
        Rows that a label needs with it, and without it; otherwise its AUROC is NaN.

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
    """Mean over the last axis without NaN; NaN where all values are."""
    known = np.isfinite(values)
    n = known.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(n > 0, np.where(known, values, 0).sum(axis=-1) / n, np.nan)
