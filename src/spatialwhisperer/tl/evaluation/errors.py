"""Whether the rows whose label is wrong are those that the confidence, the genes or other words cast doubt on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer import _keys
from spatialwhisperer._access.columns import as_list
from spatialwhisperer._access.contract import number_column, number_matrix
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._docs import shared
from spatialwhisperer.statistics.intervals.spatial import SpatialErrors
from spatialwhisperer.statistics.labels.agreement import error_detection
from spatialwhisperer.tl.evaluation.calibration import judged_rows, places, stored_codes, stored_probabilities

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from anndata import AnnData
    from spatialdata import SpatialData

CONFIDENCE, AGREEMENT, WORDING = "1 − confidence", "1 − agreement", "wording sd"
"""Measures of doubt."""


@shared
@checked
def evaluate_errors(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    truth: str | pd.DataFrame | Sequence[str | pd.DataFrame],
    *,
    key: str = _keys.LABEL,
    mapping: Mapping[Any, str | Sequence[str]] | None = None,
    table_key: str | None = None,
) -> pd.DataFrame:
    """Report how well each measure of doubt tells the rows with a wrong label from those with a correct one.

    The label of a row is the one that :func:`zero_shot_annotate` chose, also where the row abstains. All
    rows with scores and a known truth count.

    Parameters
    ----------
    data
        One object or several, annotated by :func:`zero_shot_annotate` with the same labels.
    truth, key
        As in :func:`evaluate_calibration`.
    mapping
        From true class to label, or to several that it covers.
    %(table_key)s

    Returns
    -------
    DataFrame with one row for each measure that all objects have:

    ``1 − confidence``
        One minus the probability of the label, together with those of labels that the truth cannot tell apart from it.
    ``1 − agreement``
        One minus ``.obs['sw_label_agreement']`` (:func:`agreement`): what the image says against what the genes say.
    ``wording sd``
        ``.obsm['sw_label_wording_sd']`` of the label: how much its score depends on the sentence.

    ``auroc`` is the area under the ROC curve of error detection: the probability that a row with a wrong label is in more doubt than one
    with a correct label, 0.5 for a measure that says nothing. ``low`` and ``high`` are its 95 % interval, which accounts for the
    dependence of neighbouring rows; NaN where there are too few independent patches. ``difference`` is the AUROC minus that of the
    confidence on the same rows, ``difference_low`` and ``difference_high`` its paired interval. ``n`` rows have the measure, ``n_wrong``
    of them a wrong label.

    Raises
    ------
    KeyError
        If the annotation or the truth is not there.
    ValueError
        If no true class has a label, or no row has both scores and a known truth.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> section = sw.datasets.simulate_sections(1, 60, n_genes=100, n_reference_cells=50, random_state=0).sections["P1"]
    >>> sw.tl.zero_shot_annotate(section, ["T cell", "fibroblast", "adipocyte"], unknown="label")
    >>> sw.tl.evaluate_errors(section, "cell_type").index.tolist()
    ['1 − confidence', 'wording sd']
    """
    slides = [Slide.open(d, table_key=table_key) for d in as_list(data)]
    rows, taken = judged_rows(slides, truth, key, mapping)
    tables = [slide.table for slide in slides]
    doubt = {CONFIDENCE: 1 - rows.summed.astype(np.float64)}
    named = _keys.agreement(key)
    if all(named in t.obs for t in tables):
        doubt[AGREEMENT] = 1 - np.concatenate([number_column(t.obs[named], f".obs[{named!r}]") for t in tables])[taken]
    wording = [sd for t in tables if (sd := best_wording_sd(t, key)) is not None]
    if len(wording) == len(tables):
        doubt[WORDING] = np.concatenate(wording)[taken]
    sections, positions = places(slides, taken)
    return error_detection(doubt, ~rows.correct, SpatialErrors(positions, sections))


def best_wording_sd(table: AnnData, key: str) -> np.ndarray | None:
    """Standard deviation over the sentences of the label of each row, shape (n,); NaN where it has one sentence.

    ``None`` where no label has several sentences, or rows were given terms of an ontology instead of the labels.
    """
    named, probability = _keys.wording_sd(key), stored_probabilities(table, key)
    if named not in table.obsm:
        return None
    sd = number_matrix(table.obsm[named], f".obsm[{named!r}]")
    if sd.shape != probability.shape:
        return None
    code = stored_codes(table, key, probability)
    return np.where(code >= 0, sd[np.arange(len(sd)), code], np.nan)
