"""Measure layers, few labels, domains and expression in the mouse olfactory bulb.

Each finished part is kept in a file of its own and is not repeated. Results go to ``olfactory_bulb.csv`` (one row per section),
``olfactory_bulb.md`` (means and intervals) and ``olfactory_bulb.png``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

import pandas as pd

from spatialwhisperer._messages import inform
from spatialwhisperer.datasets.olfactory_bulb import WITH_GENES, WITH_LAYERS
from spatialwhisperer.protocols.olfactory_bulb.expression import expression_rows
from spatialwhisperer.protocols.olfactory_bulb.layers import domain_rows, few_rows, probe_rows
from spatialwhisperer.protocols.olfactory_bulb.materials import Materials
from spatialwhisperer.protocols.olfactory_bulb.report import draw, report, summary
from spatialwhisperer.protocols.output import write_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anndata import AnnData


def run(data: Path, out: Path, *, n_seeds: int = 3, smoke: bool = False) -> pd.DataFrame:
    """Run what has not been run yet and write table and picture.

    Parameters
    ----------
    data
        Folder of the data; see :func:`spatialwhisperer.datasets.olfactory_bulb`.
    out
        Folder of the results, of finished parts and of features that are kept.
    n_seeds
        Draws of the examples, and training runs of the preset.
    smoke
        Use few sections and spots and one seed, to show that everything runs.

    Raises
    ------
    FileNotFoundError
        If the sections are not there.
    """
    materials = Materials(data, out / "cache", smoke=smoke)
    n_seeds = 1 if smoke else n_seeds
    names = ("08", "09", "10") if smoke else WITH_LAYERS
    genes = ("MOB1", "MOB3") if smoke else WITH_GENES

    def layers() -> list[AnnData]:
        return [materials.table(name) for name in names]

    parts: dict[str, Callable[[], pd.DataFrame]] = {
        "probe-section": lambda: probe_rows(layers(), "section"),
        "probe-animal": lambda: probe_rows(layers(), "patient"),
        "examples": lambda: few_rows(layers(), n_seeds=n_seeds, smoke=smoke),
        "domains": lambda: domain_rows(layers(), n_seeds=2 if smoke else 20),
    }

    def expression(animal: str, seed: int) -> pd.DataFrame:
        return expression_rows([materials.table(name) for name in genes], animal, seed=seed, smoke=smoke)

    for animal in ("MOB-1", "MOB-2"):
        for seed in range(n_seeds):
            parts[f"expression-{animal}-{seed}"] = partial(expression, animal, seed)
    frames = [_once(out / "parts" / f"{name}.csv", part) for name, part in parts.items()]
    rows = _mean_over_seeds(pd.concat(frames, ignore_index=True))
    write_text(out / "olfactory_bulb.csv", rows.to_csv(index=False))
    table = summary(rows)
    text = report(table)
    write_text(out / "olfactory_bulb.md", text)
    draw(rows, out / "olfactory_bulb.png")
    print(text)
    return rows


def _once(path: Path, measure: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    if not path.is_file():
        inform(path.stem)
        write_text(path, measure().to_csv(index=False))
    return pd.read_csv(path, dtype={"section": str})


def _mean_over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    keys = ["section", "animal", "task", "predictor", "metric"]
    return cast("pd.DataFrame", rows.groupby(keys, as_index=False, sort=False)["value"].mean())
