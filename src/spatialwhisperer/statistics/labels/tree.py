"""Labels inside classes: every class of a level starts with the same probability, however many labels it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator


def equal_classes(probability: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Probabilities of labels where all classes of a level have the same prior probability.

    In a softmax over all labels a class of four labels starts with four times the probability of a class of one. Here the prior
    probability of a class is divided among the labels or classes in it. A class is then as probable as the mean, and not the sum,
    of what is in it, against its siblings; the probability of a label is the product along the path to it.

    Parameters
    ----------
    probability
        Of each label in each row, as a softmax over all labels gives it; shape (n, labels).
    member
        Which label belongs to which class, Boolean of shape (labels, classes). Classes may contain others. A class that overlaps with
        a smaller one is left out.

    Returns
    -------
    Array of the same shape and dtype, rows adding up to 1.

    Examples
    --------
    >>> import numpy as np
    >>> from spatialwhisperer.statistics.labels.tree import equal_classes
    >>> alike = np.full((1, 4), 0.25)
    >>> three_of_four = np.array([[True], [True], [True], [False]])
    >>> equal_classes(alike, three_of_four).round(3).tolist()
    [[0.167, 0.167, 0.167, 0.5]]
    """
    weights = np.zeros(len(member))
    _divide(np.arange(len(member)), nested(member), 1.0, weights)
    out = probability * weights.astype(probability.dtype)
    return out / out.sum(axis=1, keepdims=True)


def class_probabilities(probability: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Summed probability of each class, shape (n, classes)."""
    return probability @ member.astype(probability.dtype)


def best_on_path(probability: np.ndarray, member: np.ndarray) -> np.ndarray:
    """The label that one reaches by taking the most probable class at each level, shape (n,); -1 in rows without probabilities.

    Parameters
    ----------
    probability
        Of each label, shape (n, labels).
    member
        As in :func:`equal_classes`.
    """
    whole = np.isfinite(probability).all(axis=1)
    out = np.full(len(probability), -1)
    _descend(np.flatnonzero(whole), np.arange(len(member)), nested(member), probability, out)
    return out


def nested(member: np.ndarray) -> list[frozenset[int]]:
    """Classes of two or more labels but not all, of which each two are nested or disjoint, the largest first."""
    kept: list[frozenset[int]] = []
    for labels in sorted((frozenset(np.flatnonzero(column).tolist()) for column in member.T), key=len):
        if 1 < len(labels) < len(member) and all(one <= labels or not one & labels for one in kept):
            kept.append(labels)
    return sorted(dict.fromkeys(kept), key=len, reverse=True)


def _children(labels: np.ndarray, classes: list[frozenset[int]]) -> Iterator[tuple[np.ndarray, list[frozenset[int]]]]:
    """Parts of a class: classes in it and single labels, each with the classes inside."""
    rest = set(labels.tolist())
    for one in classes:
        if one <= rest:
            rest -= one
            yield np.array(sorted(one)), [other for other in classes if other < one]
    for label in sorted(rest):
        yield np.array([label]), []


def _divide(labels: np.ndarray, classes: list[frozenset[int]], prior: float, out: np.ndarray) -> None:
    parts = list(_children(labels, classes))
    for inside, below in parts:
        if len(inside) == 1:
            out[inside] = prior / len(parts)
        else:
            _divide(inside, below, prior / len(parts), out)


def _descend(
    rows: np.ndarray, labels: np.ndarray, classes: list[frozenset[int]], probability: np.ndarray, out: np.ndarray
) -> None:
    if not len(rows):
        return
    parts = list(_children(labels, classes))
    sums = np.stack([probability[np.ix_(rows, inside)].sum(axis=1) for inside, _ in parts], axis=1)
    best = sums.argmax(axis=1)
    for number, (inside, below) in enumerate(parts):
        own = rows[best == number]
        if len(inside) == 1:
            out[own] = inside[0]
        else:
            _descend(own, inside, below, probability, out)
