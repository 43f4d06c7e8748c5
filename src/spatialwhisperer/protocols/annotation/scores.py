"""How well scores rank the rows in which a class is present."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spatialwhisperer.protocols import captions

if TYPE_CHECKING:
    from anndata import AnnData


NEAR_UM = 50.0
"""Labels of regions that were transferred from a neighbouring section over at least this distance may belong to other tissue."""

TRANSFER = "pathologist_transfer_um"


def near_truth(truth: pd.DataFrame, test: AnnData) -> pd.DataFrame:
    """The ground truth of regions whose labels are the section's own, or come from less than `NEAR_UM` away.

    Parameters
    ----------
    truth
        As :func:`spatialwhisperer.protocols.captions.targets` returns it.
    test
        The section.

    Returns
    -------
    The columns of regions, ``<NA>`` in the other spots. A region is left out where too few spots are left with it or without it.
    """
    far = ~(np.asarray(test.obs[TRANSFER], np.float64) < NEAR_UM)
    out = {}
    for name in dict.fromkeys(captions.REGION_TARGETS.values()):
        if name in truth:
            column = truth[name].copy()
            column[far] = pd.NA
            present = column.dropna().astype(bool)
            if min(present.sum(), (~present).sum()) >= captions.MIN_ROWS:
                out[name] = column
    return pd.DataFrame(out, index=truth.index)


def aurocs(scores: pd.DataFrame | None, truth: pd.DataFrame) -> pd.DataFrame:
    """AUROC of the presence of every class that is scored.

    Parameters
    ----------
    scores
        Rows by classes; rows with NaN do not count.
    truth
        Nullable Boolean columns; ``<NA>`` does not count. Every class is present in some rows and absent from others.

    Returns
    -------
    DataFrame with ``class`` and ``auroc``.

    Raises
    ------
    TypeError
        If there are no scores.
    """
    from sklearn.metrics import roc_auc_score

    if scores is None:
        raise TypeError("There are no scores: annotate with inplace=False, which returns them.")
    rows = []
    for name in truth:
        if name not in scores:
            continue
        usable = np.asarray(truth[name].notna()) & np.isfinite(scores[name].to_numpy())
        present = truth[name][usable].astype(bool)
        rows.append((name, roc_auc_score(present, scores[name].to_numpy()[usable])))
    return pd.DataFrame(rows, columns=["class", "auroc"])
