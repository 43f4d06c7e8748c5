"""Every preset on the same real sections under the same protocol: expression, spatial domains and patch classes.

Each finished run is kept in a file of its own and is not repeated. Results go to ``her2st.csv`` (tidy) and ``her2st.md``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer.protocols.finished import finished, stamp
from spatialwhisperer.protocols.her2st.comparison_table import report
from spatialwhisperer.protocols.her2st.folds import FOLDS, Materials
from spatialwhisperer.protocols.her2st.frozen_features import BASELINES, Task, run_task
from spatialwhisperer.protocols.her2st.trained_networks import TRAINED, NetworkOptions, run_trained
from spatialwhisperer.protocols.output import write_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SMOKE = (BASELINES, "whisperer", "mclstexp", "bleep")


def run(
    data: Path,
    out: Path,
    *,
    presets: Sequence[str] = (),
    splits: Sequence[str] = ("section", "patient"),
    protocols: Sequence[str] = ("strict",),
    features: Sequence[str] = ("stain_texture",),
    n_seeds: int = 3,
    networks: NetworkOptions | None = None,
    smoke: bool = False,
) -> pd.DataFrame:
    """Run what has not been run yet and write the table.

    Parameters
    ----------
    data
        Folder of the data.
    out
        Folder of the results, of finished runs and of features that are kept.
    presets
        Names; none takes all.
    splits
        "section" leaves out a section of patient C, "patient" a patient.
    protocols
        "strict" or "peer"; see :func:`spatialwhisperer.models.get_preset`.
    features
        Image features; see `Materials.features`.
    n_seeds
        Training runs of each preset and fold.
    networks
        How image networks are trained, for features "trained:…".
    smoke
        Use one fold, one seed and few spots, to show that everything runs.

    Raises
    ------
    ValueError
        If a preset or protocol is unknown.
    FileNotFoundError
        If the sections are not there.
    """
    networks = networks or NetworkOptions()
    names = [BASELINES, *(presets or sw.models.presets().index)]
    for name in names[1:]:
        for protocol in protocols:
            sw.models.get_preset(name, protocol)
    folds = [f for f in FOLDS if f.split in splits]
    if smoke:
        one = next((f for f in folds if f.split == "section"), folds[-1])
        names, folds, n_seeds = list(SMOKE), [replace(one, train=one.train[:2], test=one.test[:1])], 1
    materials = Materials(data, out / "cache", smoke=smoke)
    tasks = [
        Task(name, protocol, fold, feature, seed)
        for protocol in protocols
        for feature in features
        for fold in folds
        for name in names
        for seed in range(1 if name == BASELINES else n_seeds)
        if name != BASELINES or not feature.startswith(TRAINED)
    ]
    where = out / "folds"
    frames = [_run_once(task, materials, networks, where, f"{i + 1} of {len(tasks)}") for i, task in enumerate(tasks)]
    table = pd.concat(frames, ignore_index=True)
    write_text(out / "her2st.csv", table.to_csv(index=False))
    text = report(table)
    write_text(out / "her2st.md", text)
    print(text)
    return table


def _run_once(task: Task, materials: Materials, networks: NetworkOptions, folder: Path, count: str) -> pd.DataFrame:
    def measure() -> pd.DataFrame:
        trained = task.features.startswith(TRAINED)
        rows = run_trained(task, materials, networks) if trained else run_task(task, materials)
        return rows.assign(
            preset=task.preset,
            protocol=task.protocol,
            split=task.fold.split,
            fold=task.fold.name,
            features=task.features,
            seed=task.seed,
        )

    depends = task.fold, materials.smoke, networks if task.features.startswith(TRAINED) else None
    return finished(folder / f"{task.key}-{stamp(*depends)}.csv", f"{count}: {task.key}", measure)
