"""The picture of the held-out patients: how reliable confidence is, and what abstaining gains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer.protocols.default_model.decisions import judge
from spatialwhisperer.statistics.calibration import reliability_bins

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from spatialwhisperer.protocols.default_model.decisions import ByPatient, Decision

COLOURS = ("#0072b2", "#d55e00", "#009e73")


def draw(held_out: ByPatient, decisions: Mapping[str, Decision], path: Path) -> None:
    """Reliability, and accuracy against the fraction of rows that keep a label; one colour per patient."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for colour, (patient, parts) in zip(COLOURS, held_out.items(), strict=False):
        judged = [judge(part, decisions[patient]) for part in parts]
        confidence, correct = (
            np.concatenate([getattr(rows, name) for rows in judged]) for name in ("confidence", "correct")
        )
        name = f"patient {patient} ({', '.join(p.section for p in parts)})"
        bins = reliability_bins(confidence, correct, n_bins=10)
        left.scatter(bins.confidence, bins.accuracy, s=10 + 2 * np.sqrt(bins.n) * 3, color=colour, label=name)
        left.plot(bins.confidence[bins.n > 0], bins.accuracy[bins.n > 0], color=colour, lw=1)
        order = np.argsort(-confidence, kind="stable")
        n = np.arange(1, len(order) + 1)
        right.plot(n[9:] / len(n), correct[order].cumsum()[9:] / n[9:], color=colour, label=name)
        right.axhline(np.concatenate([p.correct for p in parts]).mean(axis=0).max(), color=colour, ls=":", lw=1)
    left.plot([0, 1], [0, 1], color="0.6", ls="--", lw=1)
    left.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02), title="calibration")
    right.set(
        xlabel="fraction of rows that keep a label",
        ylabel="accuracy",
        ylim=(0, 1.02),
        title="abstention (dotted: commonest class)",
    )
    left.legend(frameon=False, fontsize=8)
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
