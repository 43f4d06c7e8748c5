"""How well scores rank the rows in which a class is present."""

from __future__ import annotations

import numpy as np
import pandas as pd


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
