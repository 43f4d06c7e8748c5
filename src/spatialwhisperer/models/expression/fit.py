"""Builds the bank of a predictor of expression, and fits its regression."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from spatialwhisperer.models.expression.predictor import ExpressionPredictor
from spatialwhisperer.statistics.left_out import left_out_units
from spatialwhisperer.statistics.reduced_rank import reduced_rank_ridge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialwhisperer.models.expression.config import ExpressionConfig


def fit_predictor(
    *,
    config: ExpressionConfig,
    image: np.ndarray,
    gene: np.ndarray | None,
    regress_on: np.ndarray | None,
    values: Any,
    sections: Sequence[Any] | np.ndarray,
    groups: Sequence[Any] | np.ndarray,
    positions: np.ndarray | None = None,
    unpaired: Sequence[Any] = (),
    rows: np.ndarray | None = None,
) -> ExpressionPredictor:
    """Build the bank of observations with image and counts, and fit the regression.

    Parameters
    ----------
    config
        Which genes are predicted, and how; the names of sections and groups are filled in.
    image, gene
        Embeddings of the observations before they are scaled to unit length, shape (m, u); ``gene`` may be ``None`` where retrieval
        compares with images.
    regress_on
        Input of the regression, shape (m, d); ``None`` fits none.
    values
        Expression of the observations, CSR (m, g).
    sections, groups
        Section and patient (group) of each observation, shape (m,).
    positions
        Position of each observation, shape (m, 2). It is used where there is one section, blocks of which are left out to choose the
        penalty of the regression.
    unpaired
        Expression of sections without an image, each CSR (k, g). It helps to find the components of expression.
    rows
        Hash of the name and position of each observation, uint64, shape (m,), by which it is recognised when it is predicted.
    """
    section_names, section_codes = np.unique(np.asarray(sections, dtype=str), return_inverse=True)
    group_names, group_codes = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    arrays = {"section": section_codes.astype(np.int32), "group": group_codes.astype(np.int32)}
    if rows is not None:
        arrays["row"] = rows
    if config.retrieval.key == "image":
        arrays["image"] = image
    elif gene is None:
        raise ValueError("This retrieval compares with gene embeddings, and there are none.")
    else:
        arrays["gene"] = gene
    if regress_on is not None:
        arrays |= reduced_rank_ridge(
            regress_on,
            values,
            section_codes,
            rank=config.regression_rank,
            units=left_out_units(group_codes, section_codes, positions),
            unpaired=list(unpaired),
        )
    config = replace(config, sections=tuple(section_names.tolist()), groups=tuple(group_names.tolist()))
    return ExpressionPredictor(config, sp.csr_matrix(values, dtype=np.float32), arrays)
