"""Which measure of doubt tells the wrong regions of a held-out section from the correct ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer.protocols.default_model.decisions import judge
from spatialwhisperer.statistics.intervals.spatial import SpatialErrors
from spatialwhisperer.statistics.labels.agreement import error_detection

if TYPE_CHECKING:
    from spatialwhisperer.protocols.default_model.decisions import Decision
    from spatialwhisperer.protocols.default_model.unseen_patients import HeldOut


def doubt_columns(part: HeldOut, decision: Decision) -> dict[str, float]:
    """AUROC of error detection by the confidence, by the agreement of image and genes, and by the wording, with intervals.

    Parameters
    ----------
    part
        The section.
    decision
        Fitted on other patients.
    """
    rows = judge(part, decision)
    best = decision.found.scaling.probabilities(part.scores).argmax(axis=1)
    doubt = {
        "confidence": 1 - rows.confidence,
        "agreement": 1 - part.row_agreement,
        "wording sd": part.wording_sd[np.arange(len(best)), best],
    }
    errors = SpatialErrors(part.positions, np.zeros(len(best)))
    found = error_detection({k: v.astype(np.float64) for k, v in doubt.items()}, ~rows.correct, errors)
    ends = {"auroc": "", "low": ", lower", "high": ", upper"}
    return {f"errors by {m}{end}": float(found[c][m]) for m in doubt for c, end in ends.items()}
