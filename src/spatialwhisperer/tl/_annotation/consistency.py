"""Whether the labels of an annotation are those that its scores say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access.tables import obs_of
from spatialwhisperer._messages import warn
from spatialwhisperer._provenance import recorded_as
from spatialwhisperer.statistics.calibration import probabilities
from spatialwhisperer.tl._annotation.record import AnnotationRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

_ROWS = 20_000
"""Rows that are compared at most."""

_SAME, _EDITED = 0.01, 0.05
"""Probabilities that differ less are the same; so many labels may have been changed by hand."""


def check_labels(table: AnnData, key: str, scores: np.ndarray, classes: Sequence[str]) -> None:
    """Compare the confidence of rows with the probability that their scores give to their label.

    :func:`anndata.concat` may keep the classes and the record of one object for the rows of all, whose labels may have had another
    order or another temperature.

    Raises
    ------
    ValueError
        If they differ in more than a twentieth of the rows.
    """
    confidence = _keys.confidence(key)
    record = recorded_as(table, key, AnnotationRecord)
    if record is None or confidence not in table.obs or record.rollup:
        return
    obs = obs_of(table)
    code = _codes(obs[key], classes, record.regions)
    rows = np.flatnonzero((code >= 0) & np.isfinite(scores).all(axis=1))
    if not len(rows):
        return
    rows = rows[:: -(-len(rows) // _ROWS)]
    stated = obs[confidence].to_numpy(dtype=np.float64)[rows]
    probability = _probabilities(table, key, scores, record, rows)[np.arange(len(rows)), code[rows]]
    wrong = np.abs(stated - probability) > _SAME
    if not wrong.any():
        return
    text = (
        f"{100 * wrong.mean():.2g} % of the labels in .obs[{key!r}] are not what the scores say (first in row "
        f"{table.obs_names[rows[wrong][0]]!r})"
    )
    if wrong.mean() > _EDITED:
        raise ValueError(
            f"{text}: .uns holds labels and record of another annotation, as after anndata.concat with uns_merge='first'. Annotate "
            "all rows again: sw.tl.zero_shot_annotate(data, labels, model=model)."
        )
    warn(
        f"{text}. Where they were changed by hand, ignore this; where tables were joined, annotate all rows again: "
        "sw.tl.zero_shot_annotate(data, labels, model=model)."
    )


def _codes(labels: pd.Series, classes: Sequence[str], regions: Sequence[str]) -> np.ndarray:
    """Class of each row, -1 where its label is none or, as that of a region, has a confidence of its own."""
    place = {name: number for number, name in enumerate(classes) if name not in regions}
    given = pd.Categorical(labels)
    return np.array([*(place.get(str(name), -1) for name in given.categories), -1])[given.codes]


def _probabilities(
    table: AnnData, key: str, scores: np.ndarray, record: AnnotationRecord, rows: np.ndarray
) -> np.ndarray:
    """Probabilities of some rows, shape (len(rows), classes)."""
    if record.scores == "probability":
        return scores[rows]
    if record.probabilities == "stored":
        return np.asarray(table.obsm[_keys.probability(key)])[rows]
    return probabilities(scores[rows], record.temperature)
