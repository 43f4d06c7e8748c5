"""From scores to what is written: a label for each row, or the reason why it has none."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access.elements.colours import distinct
from spatialwhisperer._access.result import Result
from spatialwhisperer.tl._annotation import scoring
from spatialwhisperer.tl._annotation.range import guard
from spatialwhisperer.tl._annotation.rollup import roll_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialwhisperer.tl._annotation.decision import Decided
    from spatialwhisperer.tl._annotation.record import AnnotationRecord
    from spatialwhisperer.tl._annotation.rollup import Classes


@dataclass(frozen=True)
class Limits:
    """What keeps a label from a row.

    Attributes
    ----------
    min_confidence, min_margin
        Rows below get none.
    min_rows
        Labels of fewer rows are removed.
    """

    min_confidence: float
    min_margin: float
    min_rows: int


@dataclass(frozen=True)
class _Labels:
    """Labels of rows, ``None`` where there is none.

    Attributes
    ----------
    given, terms
        Label and ontology term of each row, object arrays of shape (n,).
    order, ids
        All labels and terms that a row could get, in order.
    confidence, margin
        Of each row, shape (n,).
    """

    given: np.ndarray
    terms: np.ndarray
    order: list[str]
    ids: list[str | None]
    confidence: np.ndarray
    margin: np.ndarray


def labelled(
    key: str,
    decided: Decided,
    limits: Limits,
    scores: np.ndarray,
    record: AnnotationRecord,
    found: guard.RowRange | None,
) -> Result:
    """Labels, confidence and scores, ready to be written.

    Parameters
    ----------
    key
        Column of the labels.
    decided
        What is scored, the probabilities, and the best class of each row.
    limits
        What keeps a label from a row.
    scores
        Of each row for each class, shape (n, number of classes).
    record
        What is stored beside the result.
    found
        Which rows are out of the training range, where that was asked.
    """
    classes = decided.classes
    best = scoring.best_labels(decided.probability, decided.code)
    labels = _choose(classes, limits, decided.probability, best, found)
    why = guard.reasons(best.code, pd.notna(labels.given), found, best.confidence < limits.min_confidence)
    rare = _rare(labels.given, limits.min_rows)
    labels.given[rare], labels.terms[rare], why[rare] = None, None, guard.RARE
    obs: dict[str, Any] = {
        key: _used(labels.given, labels.order),
        _keys.confidence(key): labels.confidence,
        _keys.margin(key): labels.margin,
        _keys.reason(key): _used(why, guard.REASONS),
    }
    if any(classes.ids):
        obs[_keys.ontology(key)] = _used(labels.terms, [i for i in labels.ids if i is not None])
    counts = {r: int((why == r).sum()) for r in guard.REASONS if (why == r).any()}
    own = {_keys.probability(key): decided.probability} if record.probabilities == "stored" else {}
    return Result(
        key,
        replace(record, without_label=counts, coarser=_coarser(classes)),
        obs=obs,
        obsm={_keys.scores(key): scores, **own},
        uns={key: {"classes": np.array(classes.classes, dtype=str)}},
        gone=_outdated(key, ids=any(classes.ids), probability=bool(own)),
        colours={key: dict(zip(labels.order, distinct(len(labels.order)), strict=True))},
    )


def _coarser(classes: Classes) -> dict[str, tuple[str, ...]]:
    """Classes in each coarser term; a class of the same name is meant by that name."""
    if classes.coarse is None:
        return {}
    terms = zip(classes.coarse_names, classes.coarse.member.T, strict=True)
    return {
        name: tuple(one for one, inside in zip(classes.classes, member, strict=True) if inside)
        for name, member in terms
        if name not in classes.classes
    }


def _outdated(key: str, *, ids: bool, probability: bool) -> tuple[str, ...]:
    """What earlier calls may have written of other labels, and this one does not write again."""
    genes = _keys.gene_label(key)
    written = {_keys.ontology(key): ids, _keys.probability(key): probability}
    return (*(n for n, again in written.items() if not again), _keys.agreement(key), genes, f"{genes}_colors")


def with_wording_sd(result: Result, sd: np.ndarray | None) -> Result:
    """The result with the standard deviations over wordings; where there are none, those of an earlier call are removed."""
    key = _keys.wording_sd(result.key)
    if sd is None:
        return replace(result, gone=(*result.gone, key))
    return replace(result, obsm={**result.obsm, key: sd})


def _choose(
    classes: Classes, limits: Limits, probability: np.ndarray, best: scoring.Best, found: guard.RowRange | None
) -> _Labels:
    """The best label of each row, or a coarser term where that is asked for and the row is not sure."""
    known = best.code >= 0 if found is None else (best.code >= 0) & ~found.outside
    sure = known & (best.confidence >= limits.min_confidence) & (best.margin >= limits.min_margin)
    given, terms = (np.full(len(sure), None, dtype=object) for _ in range(2))
    given[sure] = np.array([*classes.classes], object)[best.code[sure]]
    terms[sure] = np.array([*classes.ids], object)[best.code[sure]]
    order, ids, coarse = list(classes.classes), list(classes.ids), classes.coarse
    if coarse is not None:
        # a row whose tissue is not known gets no coarser label either
        at = {"min_confidence": limits.min_confidence, "min_margin": limits.min_margin}
        up, best = roll_up(probability, best._replace(code=np.where(known, best.code, -1)), coarse, **at)
        rolled = up >= 0
        given[rolled] = np.array(classes.coarse_names, object)[up[rolled]]
        terms[rolled] = np.array(coarse.ids, object)[up[rolled]]
        order += [name for name in classes.coarse_names if name not in order]
        ids += coarse.ids
    return _Labels(given, terms, order, ids, best.confidence, best.margin)


def _rare(given: np.ndarray, least: int) -> np.ndarray:
    """Rows whose label fewer rows have than asked for, Boolean, shape (n,)."""
    labels = pd.Series(given)
    return labels.map(labels.value_counts()).lt(least).to_numpy()


def _used(values: np.ndarray, order: Sequence[str]) -> pd.Categorical:
    """Categories that occur, in a given order: scanpy and squidpy fail on categories without rows."""
    there = set(values)
    return pd.Categorical(values, categories=[c for c in dict.fromkeys(order) if c in there])
