"""Closed form and refinement on the splits of the annotation protocol."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer._messages import inform
from spatialwhisperer.protocols import captions
from spatialwhisperer.protocols.annotation.methods import TRAINED
from spatialwhisperer.protocols.annotation.scores import aurocs
from spatialwhisperer.protocols.annotation.splits import COARSE, SEVERAL_UM, SPLITS, WITH_IMAGE, Split, image_key, load

if TYPE_CHECKING:
    from pathlib import Path

TWO_PATIENTS = tuple(
    Split("leave one section of C out, A1 in training", tuple(s for s in WITH_IMAGE if s != test), test, COARSE)
    for test in WITH_IMAGE[:4]
)
"""The only splits with two patients in training, so that whole patients are left out to choose the number of steps."""

CLOSED = TRAINED["whisperer"]
REFINED = replace(CLOSED, preset=CLOSED.preset.replace(refine="auto"))


def run_sections(data: Path, *, smoke: bool = False) -> pd.DataFrame:
    """One row for each split: macro AUROC of both, and the decision.

    Parameters
    ----------
    data
        Folder that holds ``her2st/`` and ``singlecell/``.
    smoke
        Take one split and few sections with captions.
    """
    splits = SPLITS[2:3] if smoke else (*SPLITS, *TWO_PATIENTS)
    materials = load(data, splits, smoke=smoke)
    rows = []
    for split in splits:
        train, test = [materials.images[s] for s in split.train], materials.images[split.test]
        texts, encoder = materials.texts[split.patient], materials.encoders[split.patient]
        truth, scores, decision = captions.targets(test), {}, None
        start = time.perf_counter()
        for name, method in (("closed_form", CLOSED), ("refined", REFINED)):
            model = method.train([*train, *texts], encoder, image_key(split.tile_px, SEVERAL_UM), random_state=0)
            found = sw.tl.zero_shot_annotate(test, captions.TARGETS, model=model, modality="image", inplace=False)
            scores[name] = float(aurocs(found, truth)["auroc"].mean())
            decision = None if model.config.training is None else model.config.training.refinement
        if decision is None:
            raise TypeError("The refined model has no decision.")
        inform(f"{split.name}: {split.test}, {decision.reason}, {time.perf_counter() - start:.0f} s")
        rows.append(
            {"split": split.name, "test": split.test, **scores, "kept": decision.kept, "steps": decision.steps}
            | _inner(decision.candidates, decision.agreement, decision.steps)
        )
    return pd.DataFrame(rows)


def _inner(candidates: tuple[int, ...], agreement: tuple[float, ...], steps: int) -> dict[str, float | None]:
    """Caption agreement on left-out units of the closed form and of what was chosen; ``None`` where nothing was left out."""
    if not candidates:
        return {"inner_first": None, "inner_chosen": None}
    return {"inner_first": agreement[0], "inner_chosen": agreement[candidates.index(steps)]}
