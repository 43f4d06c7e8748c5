"""The recipe of the embedded model on patients that it has not seen: ranks, agreement with expression, calibration, abstention.

Each patient with an image is left out in turn, with images and texts, and its sections are annotated by a model of the others.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialwhisperer.protocols.default_model.decisions import decision_of_others, judge
from spatialwhisperer.protocols.default_model.doubt import doubt_columns
from spatialwhisperer.protocols.default_model.hard_labels import hard_labels
from spatialwhisperer.protocols.default_model.held_out_figure import draw
from spatialwhisperer.protocols.default_model.recipe import TrainingRecipe, load
from spatialwhisperer.protocols.default_model.unseen_patients import N_EXAMPLES, HeldOut, leave_patient_out
from spatialwhisperer.protocols.output import markdown, write_text

if TYPE_CHECKING:
    from pathlib import Path

    from spatialwhisperer.protocols.default_model.decisions import ByPatient, Decision

COVERAGES = (1.0, 0.5, 0.25, 0.1)
"""Fractions of the rows, the most confident ones, whose accuracy is measured."""


def run(data: Path, out: Path, *, gene_encoder: str = "scvi", seed: int = 0, smoke: bool = False) -> pd.DataFrame:
    """Measure every section and write ``held_out.csv``, ``held_out.md`` and ``held_out.png``.

    Parameters
    ----------
    data
        Folder of the data.
    out
        Folder of the results.
    gene_encoder
        "scvi" or "pca".
    seed
        Of everything random.
    smoke
        Use few sections, to show that everything runs.
    """
    materials = load(data, smoke=smoke)
    recipe = replace(TrainingRecipe(), gene_encoder=gene_encoder)
    return report({p: leave_patient_out(p, materials, recipe, seed) for p in materials.patients}, out)


def report(held_out: ByPatient, out: Path) -> pd.DataFrame:
    """Write the tables and the picture of sections that were left out."""
    decisions = {p: decision_of_others(held_out, p) for p in held_out}
    rows = [_row(part, decisions[p]) for p, parts in held_out.items() for part in parts]
    table = pd.DataFrame(rows).set_index("section")
    write_text(out / "held_out.csv", table.to_csv())
    text = markdown(table.map(lambda v: f"{v:.3f}")) + "\n"
    write_text(out / "held_out.md", text)
    draw(held_out, decisions, out / "held_out.png")
    print(text)
    return table


def _row(part: HeldOut, decision: Decision) -> dict[str, Any]:
    rows = judge(part, decision)
    order = np.argsort(-rows.confidence, kind="stable")
    kept = {f"correct, {c:.0%} kept": rows.correct[order][: max(1, round(c * len(order)))].mean() for c in COVERAGES}
    return {
        "section": part.section,
        "macro AUROC": part.auroc["auroc"].mean(),
        "AUROC against expression": part.agreement["auroc"],
        "kappa with expression": part.agreement["kappa"],
        **hard_labels(part, decision),
        **doubt_columns(part, decision),
        **kept,
        "regions, words": part.few_shot["words"],
        f"regions, {N_EXAMPLES} examples each": part.few_shot["examples"],
        "balanced accuracy, words": part.few_shot["words, balanced"],
        f"balanced accuracy, {N_EXAMPLES} examples each": part.few_shot["examples, balanced"],
    }
