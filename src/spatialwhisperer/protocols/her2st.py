"""Every preset on the same real sections under the same protocol: expression, spatial domains and patch classes.

A finished run is kept in a file of its own and is not done again. Results go to ``her2st.csv`` (tidy) and ``her2st.md``.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING

import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer._messages import inform
from spatialwhisperer.protocols.her2st_data import FOLDS, Materials
from spatialwhisperer.protocols.her2st_fold import BASELINES, Task, run_task
from spatialwhisperer.protocols.her2st_report import report
from spatialwhisperer.protocols.her2st_towers import TRAINED, TowerOptions, run_trained

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SMOKE = (BASELINES, "whisperer", "mclstexp", "bleep")
PACKAGES = ("spatialwhisperer", "anndata", "scanpy", "torch", "scvi-tools", "scikit-learn", "numpy")


def run(
    data: Path,
    out: Path,
    *,
    presets: Sequence[str] = (),
    splits: Sequence[str] = ("section", "patient"),
    protocols: Sequence[str] = ("strict",),
    features: Sequence[str] = ("stain_texture",),
    n_seeds: int = 3,
    towers: TowerOptions | None = None,
    smoke: bool = False,
) -> pd.DataFrame:
    """Run what is not there yet and write the table.

    Raises
    ------
    ValueError
        If a preset or protocol is unknown.
    FileNotFoundError
        If the sections are not there.
    """
    towers = towers or TowerOptions()
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
    frames = [_run_once(task, materials, towers, where, f"{i + 1} of {len(tasks)}") for i, task in enumerate(tasks)]
    table = pd.concat(frames, ignore_index=True)
    _write(out / "her2st.csv", table.to_csv(index=False))
    text = report(table)
    _write(out / "her2st.md", text)
    print(text)
    return table


def _run_once(task: Task, materials: Materials, towers: TowerOptions, folder: Path, count: str) -> pd.DataFrame:
    path = folder / f"{task.key}.csv"
    if not path.is_file():
        inform(f"{count}: {task.key}")
        start = time.perf_counter()
        trained = task.features.startswith(TRAINED)
        rows = run_trained(task, materials, towers) if trained else run_task(task, materials)
        rows["seconds"] = time.perf_counter() - start
        # of the whole process so far, in MiB; macOS counts bytes
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        rows["peak_memory_mib"] = peak / (2**20 if sys.platform == "darwin" else 2**10)
        for column, value in {
            "preset": task.preset,
            "protocol": task.protocol,
            "split": task.fold.split,
            "fold": task.fold.name,
            "features": task.features,
            "seed": task.seed,
            "versions": "; ".join(f"{p} {version(p)}" for p in PACKAGES),
        }.items():
            rows[column] = value
        _write(path, rows.to_csv(index=False))
    # a value that was never there is empty; a gene list may not be
    return pd.read_csv(path, keep_default_na=False, na_values={"value": [""]})


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
