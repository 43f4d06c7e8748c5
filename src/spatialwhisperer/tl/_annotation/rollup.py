"""From labels to coarser terms of an ontology: for all rows, or for rows whose best label is too uncertain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from spatialwhisperer._checks.checked import checked_options
from spatialwhisperer._messages import inform, listing
from spatialwhisperer.tl._annotation.labels import find_terms, label_ids, open_ontology
from spatialwhisperer.tl._annotation.scoring import Best

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from spatialwhisperer.models.ontology import Ontology
    from spatialwhisperer.models.whisperer import Whisperer


GENERAL = frozenset({"CL:0000000", "CL:0000003", "CL:0000226", "CL:0000255", "CL:0000548", "CL:0002242", "CL:0002371"})
"""Cell, native cell, single nucleate cell, eukaryotic cell, animal cell, nucleate cell, somatic cell: nearly every cell of a tissue
is one of them, so that no row is rolled up to them; it abstains."""


class Level(NamedTuple):
    """Labels after they were rolled up.

    Attributes
    ----------
    classes, ids
        Names and ids.
    member
        Which old label belongs to which new one, Boolean of shape (old, new).
    """

    classes: list[str]
    ids: list[str | None]
    member: np.ndarray


def to_level(classes: Sequence[str], ids: Sequence[str | None], terms: Sequence[str], ontology: Ontology) -> Level:
    """Replace every label by the nearest of some terms above it; labels under none of them stay as they are.

    Raises
    ------
    ValueError
        If no label falls under any term, or fewer than two classes are left.
    """
    under = [_nearest(i, set(terms), ontology) for i in ids]
    if not any(under):
        raise ValueError(
            f"None of the labels ({listing(classes)}) falls under {listing(ontology.name(t) for t in terms)} in the ontology. "
            "Labels are found there by name: pass ids in their place, or level=… with other terms."
        )
    if alone := [c for c, term in zip(classes, under, strict=True) if term is None]:
        inform(f"{listing(alone)} fall under none of the terms of level and stay as they are")
    used = [t for t in terms if t in under]
    names = [ontology.name(t) for t in used]
    # a label that stays may have the name of a term, and is the same class then
    coarse = [*names, *(c for c in alone if c not in names)]
    if len(coarse) < 2:
        raise ValueError(f"At this level all labels are {listing(coarse)}; two classes are needed to choose from.")
    member = np.zeros((len(classes), len(coarse)), bool)
    for row, (name, term) in enumerate(zip(classes, under, strict=True)):
        member[row, coarse.index(name if term is None else ontology.name(term))] = True
    own = dict(zip(classes, ids, strict=True))
    return Level(coarse, [*used, *(own[c] for c in coarse[len(used) :])], member)


def _nearest(term: str | None, wanted: set[str], ontology: Ontology) -> str | None:
    if term is None:
        return None
    return next((t for t in (term, *ontology.ancestors(term)) if t in wanted), None)


class Coarse(NamedTuple):
    """Terms that stand for several labels, the most specific first.

    Attributes
    ----------
    ids
        Their ids; ``None`` where a term has none.
    member
        Which label belongs to which term, Boolean of shape (labels, terms).
    """

    ids: list[str | None]
    member: np.ndarray


def coarse_terms(ids: Sequence[str | None], ontology: Ontology) -> Coarse:
    """Common ancestors of the labels: for each set of labels the most specific term above all of them.

    Terms above a single label are left out, and so are those that say nothing about a row: terms above all labels, and the most
    general ones of the Cell Ontology. A term with fewer labels is more specific; of terms with the same labels the one with most
    ancestors is taken.
    """
    above = [set() if i is None else {i, *ontology.ancestors(i)} for i in ids]
    best: dict[tuple[int, ...], tuple[int, str]] = {}
    for term in sorted(set().union(*above) - GENERAL):
        labels = tuple(n for n, terms in enumerate(above) if term in terms)
        if 1 < len(labels) < len(ids):
            depth = len(ontology.ancestors(term))
            if labels not in best or depth > best[labels][0]:
                best[labels] = (depth, term)
    order = sorted(best, key=lambda labels: (len(labels), -best[labels][0], best[labels][1]))
    member = np.zeros((len(ids), len(order)), bool)
    for column, labels in enumerate(order):
        member[list(labels), column] = True
    return Coarse([best[labels][1] for labels in order], member)


def roll_up(
    probability: np.ndarray, best: Best, coarse: Coarse, *, min_confidence: float, min_margin: float
) -> tuple[np.ndarray, Best]:
    """Give rows without a sure label the most specific coarse term that is sure.

    Parameters
    ----------
    probability
        Of the labels, shape (n, c).
    best
        The best label of each row.
    coarse
        The terms.
    min_confidence
        Summed probability that a term must reach.
    min_margin
        By how much the summed probability must exceed that of the best label outside the term.

    Returns
    -------
    Column of ``coarse`` that each row gets, -1 where it gets none; and ``best`` with confidence and margin of that term.
    """
    unsure = (best.code >= 0) & ((best.confidence < min_confidence) | (best.margin < min_margin))
    rows = np.flatnonzero(unsure)
    given = np.full(len(probability), -1)
    if not len(rows) or not coarse.ids:
        return given, best
    confidence, margin = best.confidence.copy(), best.margin.copy()
    sums = probability[rows] @ coarse.member.astype(probability.dtype)
    outside = np.stack([probability[rows][:, ~labels].max(axis=1) for labels in coarse.member.T], axis=1)
    sure = (sums >= min_confidence) & (sums - outside >= min_margin)
    # among terms of as many labels the one with the largest probability
    size = coarse.member.sum(axis=0)
    rank = np.where(sure, size[None] - sums.clip(0, 1) / 2, np.inf)
    chosen = rank.argmin(axis=1)
    some = sure.any(axis=1)
    rows, chosen, line = rows[some], chosen[some], np.flatnonzero(some)
    given[rows] = chosen
    confidence[rows] = sums[line, chosen]
    margin[rows] = (sums - outside)[line, chosen]
    return given, Best(best.code, confidence, margin)


class Classes(NamedTuple):
    """The classes that are scored, and their terms in the ontology.

    Attributes
    ----------
    classes, ids
        Names, and ids where the ontology has them.
    member
        Which label belongs to which class, Boolean of shape (labels, classes); ``None`` where labels are the classes.
    coarse, coarse_names
        Terms above several classes, for rows that are rolled up, and their names; ``None`` and empty without.
    """

    classes: list[str]
    ids: list[str | None]
    member: np.ndarray | None
    coarse: Coarse | None
    coarse_names: list[str]


@checked_options
@dataclass(frozen=True)
class Hierarchy:
    """How labels are replaced by coarser terms of an ontology.

    Attributes
    ----------
    level
        Terms (names or ids). Every label is replaced by the nearest of them, and the probabilities of the terms are stored in the
        place of scores. Labels under none of them stay as they are. Each term starts with the same prior probability, however many
        labels it has: it is as probable as the mean of its labels, and not as their sum. Where the model holds a calibrated decision
        for the labels (:func:`calibrate`), their probabilities are summed.
    rollup
        Give a row that would abstain the most specific term above several labels (but not above all) whose probability reaches
        ``min_confidence``. Terms are compared with their siblings, each with the same prior probability; the probability of a label
        is the product along the path to it, and the best label is the one at the end of the path of the most probable terms.
    ontology
        An ontology or its file; ``None`` takes that of the model's vocabulary.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> section = sw.datasets.simulate_sections(1, 40, n_genes=100, n_reference_cells=50, random_state=0).sections["P1"]
    >>> immune = sw.tl.Hierarchy(level=["leukocyte"])
    >>> scores = sw.tl.zero_shot_annotate(section, ["T cell", "B cell", "fat cell"], hierarchy=immune, inplace=False)
    >>> scores.columns.tolist()
    ['leukocyte', 'fat cell']
    """

    level: Sequence[str] | None = None
    rollup: bool = False
    ontology: Ontology | str | Path | None = None


def place_classes(model: Whisperer, classes: list[str], labels: Any, hierarchy: Hierarchy) -> Classes:
    """Find the labels in the ontology, replace them by the terms of a level, and find the terms above them.

    Raises
    ------
    ValueError
        If there is no ontology, a term is unknown, or no term is above several labels and not above all.
    """
    terms = open_ontology(hierarchy.ontology, model)
    if terms is None:
        if hierarchy.rollup or hierarchy.level is not None:
            raise ValueError(
                f"{'rollup' if hierarchy.rollup else 'level'} needs an ontology, and this model has no vocabulary. Pass "
                "hierarchy=sw.tl.Hierarchy(…, ontology=…) with an Ontology or a file such as cl.obo."
            )
        return Classes(classes, [None] * len(classes), None, None, [])
    ids, member = label_ids(classes, labels, model, terms), None
    if hierarchy.level is not None:
        classes, ids, member = to_level(classes, ids, find_terms(terms, hierarchy.level), terms)
    if not hierarchy.rollup:
        return Classes(classes, ids, member, None, [])
    coarse = coarse_terms(ids, terms)
    if not coarse.ids:
        raise ValueError(
            f"rollup finds no term above several of the labels ({listing(classes)}) and not above all. Labels are found in the "
            "ontology by name: pass ids in their place, or leave rollup out."
        )
    own = {i: c for i, c in zip(ids, classes, strict=True) if i is not None}
    return Classes(classes, ids, member, coarse, [own.get(i) or terms.name(i) for i in coarse.ids if i is not None])
