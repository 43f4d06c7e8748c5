"""Closed form and refinement in simulated worlds, by the number of image–gene pairs."""

from __future__ import annotations

import time
from copy import deepcopy
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from spatialwhisperer._messages import inform
from spatialwhisperer.protocols.refinement.worlds import CAPTIONS, empty_space, make_world, training_items
from spatialwhisperer.training.closed_form import fit_closed_form
from spatialwhisperer.training.refinement.refine import refine

if TYPE_CHECKING:
    from pathlib import Path

    from spatialwhisperer.models.joint_space import JointSpace
    from spatialwhisperer.protocols.refinement.worlds import Rows

PATIENTS = 8
"""Patients with image–gene pairs."""


def run_worlds(sizes: list[int], worlds: list[str], seeds: list[int], parts: Path) -> pd.DataFrame:
    """One row for each world, number of pairs and seed; a finished one is read from its file and not repeated.

    Parameters
    ----------
    sizes
        Numbers of image–gene pairs.
    worlds
        "non-linear" or "linear".
    seeds
        Seeds of the worlds.
    parts
        Folder with one file for each.
    """
    parts.mkdir(parents=True, exist_ok=True)
    rows = []
    for n in sizes:
        for world in worlds:
            for seed in seeds:
                path = parts / f"{world}, {n} pairs, seed {seed}.csv"
                if not path.is_file():
                    pd.DataFrame([one_world(world, n, seed)]).to_csv(path, index=False)
                rows.append(pd.read_csv(path))
    return pd.concat(rows, ignore_index=True)


def one_world(world: str, n: int, seed: int) -> dict[str, object]:
    """Solve, refine, and score both on patients that neither has seen."""
    items, test = training_items(make_world(seed, linear=world == "linear"), n, PATIENTS, seed)
    closed = empty_space()
    fit_closed_form(closed, items, bridge="gene")
    refined = deepcopy(closed)
    start = time.perf_counter()
    decision = refine(refined, items, bridge="gene", neighbour_weight=0.0, random_state=seed).refinement
    seconds = time.perf_counter() - start
    if decision is None:
        raise TypeError("A refinement returns its decision.")
    before, after = (score(model, test) for model in (closed, refined))
    inform(f"{world}, {n} pairs, seed {seed}: {before:.3f} -> {after:.3f}, {decision.reason}, {seconds:.0f} s")
    return {
        "world": world,
        "pairs": n,
        "seed": seed,
        "head": decision.head,
        "kept": decision.kept,
        "steps": decision.steps,
        "closed_form": before,
        "refined": after,
        "inner_first": decision.agreement[0],
        "inner_chosen": decision.agreement[decision.candidates.index(decision.steps)],
        "seconds": seconds,
    }


def score(model: JointSpace, test: Rows) -> float:
    """AUROC of the image scores against the captions that are true, averaged over captions and patients."""
    from sklearn.metrics import roc_auc_score

    with torch.inference_mode():
        image = model("image", torch.from_numpy(test.image))
        scores = (image @ model("text", torch.eye(CAPTIONS)).T).numpy()
    inside = [np.flatnonzero(test.patient == p) for p in np.unique(test.patient)]
    return float(np.mean([roc_auc_score(test.holds[at, c], scores[at, c]) for at in inside for c in range(CAPTIONS)]))
