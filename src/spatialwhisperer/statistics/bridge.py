"""How much two sets of embeddings overlap: expression of the user's tissue and expression that a model was trained on with text.

Distances are Euclidean, between unit vectors. Every function takes plain arrays and works in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NEIGHBOURS = 5
"""The distance to this many-th nearest neighbour is the radius of a reference row."""

WIDEST = 0.95
"""Radii are clipped at this quantile of them: an isolated reference row would otherwise cover half of the space."""


@dataclass(frozen=True)
class Overlap:
    """How rows lie relative to reference rows.

    Attributes
    ----------
    nearest
        Position of the reference row nearest to each row, shape (n,).
    error
        1 - cosine to that reference row, shape (n,).
    covered
        Whether the row lies within the radius of at least one reference row, shape (n,).
    """

    nearest: np.ndarray
    error: np.ndarray
    covered: np.ndarray


def unit(z: np.ndarray) -> np.ndarray:
    """Rows scaled to unit length, float64."""
    z = np.asarray(z, dtype=np.float64)
    return z / np.linalg.norm(z, axis=1, keepdims=True).clip(min=1e-12)


def centred(z: np.ndarray, mean: np.ndarray | None = None) -> np.ndarray:
    """Subtract a mean (by default that of the rows) and scale the rows to unit length; float64."""
    z = np.asarray(z, dtype=np.float64)
    return unit(z - (z.mean(axis=0) if mean is None else mean))


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Euclidean distances of rows, shape (len(a), len(b))."""
    squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    return np.sqrt(squared.clip(min=0))


def radii(reference: np.ndarray, k: int = NEIGHBOURS) -> np.ndarray:
    """Distance of each reference row to its k-th nearest other row, clipped at the `WIDEST` quantile; shape (m,)."""
    between = distances(reference, reference)
    np.fill_diagonal(between, np.inf)
    return _capped(between, k)


def _capped(between: np.ndarray, k: int) -> np.ndarray:
    k = min(k, len(between) - 1)
    radius = np.partition(between, k - 1, axis=1)[:, k - 1]
    return np.minimum(radius, np.quantile(radius, WIDEST))


def overlap(rows: np.ndarray, reference: np.ndarray, k: int = NEIGHBOURS) -> Overlap:
    """Find the nearest reference row of each row, and whether the reference covers the row.

    A row is covered when it lies within the radius of at least one reference row. The radius of a reference row is its distance
    to its k-th nearest neighbour in the reference (the precision of Kynkäänniemi et al., NeurIPS 2019, with the widest radii
    clipped).

    Parameters
    ----------
    rows, reference
        Shapes (n, u) and (m, u). Distances are between the rows as given; for distances between directions pass unit rows.
    k
        Neighbour that defines a radius.

    Raises
    ------
    ValueError
        If the reference has fewer than two rows.
    """
    if len(reference) < 2:
        raise ValueError(f"A reference needs at least two rows; found {len(reference)}.")
    between = distances(rows, reference)
    nearest = between.argmin(axis=1)
    error = 1 - (unit(rows) * unit(reference)[nearest]).sum(axis=1)
    covered = (between <= radii(reference, k) + 1e-12).any(axis=1)
    return Overlap(nearest, error, covered)


def to_other_groups(reference: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Distance of each reference row to the nearest reference row of another group, shape (m,).

    This is the distance to expect of tissue of a new patient. Where there is only one group, it is the distance to the nearest
    other row.
    """
    between = distances(reference, reference)
    alike = groups[:, None] == groups[None]
    if alike.all():
        alike = np.eye(len(reference), dtype=bool)
    between[alike] = np.inf
    return between.min(axis=1)


# ------------------------------------------------------------------------------------------------- two samples


def balanced(n: int, m: int, most: int, random_state: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the same number of rows from two samples of n and m rows, at most ``most``; positions, ascending."""
    rng = np.random.default_rng(random_state)
    size = min(n, m, most)
    return tuple(np.sort(rng.choice(total, size, replace=False)) for total in (n, m))  # type: ignore[return-value]


def separability(
    x: np.ndarray, own: np.ndarray, blocks: np.ndarray, method: str, *, random_state: int = 0
) -> np.ndarray:
    """Classifier two-sample test: held-out score of each row for belonging to the first sample.

    The AUROC of these scores is 0.5 where the samples have the same distribution, and 1 where the classifier distinguishes them completely.

    Parameters
    ----------
    x
        Rows of both samples, shape (n, u).
    own
        Whether a row belongs to the first sample, shape (n,).
    blocks
        Block of each row, shape (n,); the rows of a block are held out together, in five folds.
    method
        Classifier: "logistic" (linear) or "knn" (15 nearest rows).
    random_state
        Seed of the folds.

    Returns
    -------
    Shape (n,).

    Raises
    ------
    ValueError
        If a sample has fewer than two blocks or the method is unknown.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.neighbors import KNeighborsClassifier

    if method not in ("logistic", "knn"):
        raise ValueError(f"method must be 'logistic' or 'knn', not {method!r}.")
    n_folds = min(5, len(np.unique(blocks[own])), len(np.unique(blocks[~own])))
    if n_folds < 2:
        raise ValueError("Each sample needs at least two blocks of rows to hold one out.")
    out = np.full(len(x), np.nan)
    folds = StratifiedGroupKFold(n_folds, shuffle=True, random_state=random_state)
    for fit, test in folds.split(x, own, blocks):
        y = x
        if method == "knn":
            model = KNeighborsClassifier(min(15, len(fit) - 1)).fit(y[fit], own[fit])
        else:
            sd = y[fit].std(axis=0)
            y = y / np.where(sd > 0, sd, 1)
            # strong regularisation, because there are many dimensions
            model = LogisticRegression(C=0.1, max_iter=500).fit(y[fit], own[fit])
        out[test] = model.predict_proba(y[test])[:, 1]
    return out


def mixing(x: np.ndarray, own: np.ndarray, k: int = 15) -> np.ndarray:
    """How well two samples mix: neighbours from the second sample, over the number expected by chance.

    Parameters
    ----------
    x
        Rows of both samples, shape (n, u).
    own
        Whether a row belongs to the first sample, shape (n,).
    k
        Number of neighbours.

    Returns
    -------
    One number for each row of the first sample; 1 on average where the samples mix completely, 0 where they are apart.
    """
    between = distances(x[own], x)
    between[np.arange(own.sum()), np.flatnonzero(own)] = np.inf
    near = np.argpartition(between, min(k, len(x) - 2), axis=1)[:, :k]
    return (~own)[near].mean(axis=1) / ((~own).sum() / (len(x) - 1))


def mmd(x: np.ndarray, own: np.ndarray, n_permutations: int = 200, random_state: int = 0) -> tuple[float, float]:
    """Squared maximum mean discrepancy of two samples, and the p-value of a permutation test.

    Unbiased estimate with a Gaussian kernel whose width is the median distance (Gretton et al., JMLR 2012). The test exchanges
    single rows, as if they were independent. Neighbouring spots are not, so that the p-value is then too small.
    """
    between = distances(x, x)
    off = ~np.eye(len(x), dtype=bool)
    kernel = np.exp(-(between**2) / (2 * max(np.median(between[off]), 1e-12) ** 2))
    np.fill_diagonal(kernel, 0)
    rng = np.random.default_rng(random_state)
    signs = np.where(own, 1.0, -1.0)
    all_signs = np.stack([signs, *(rng.permutation(signs) for _ in range(n_permutations))], axis=1)
    first = (all_signs + 1) / 2
    second = 1 - first
    m, n = first.sum(axis=0), second.sum(axis=0)
    a, b = kernel @ first, kernel @ second
    statistic = (
        (first * a).sum(axis=0) / (m * (m - 1))
        + (second * b).sum(axis=0) / (n * (n - 1))
        - 2 * (first * b).sum(axis=0) / (m * n)
    )
    return float(statistic[0]), float((statistic >= statistic[0]).mean())
