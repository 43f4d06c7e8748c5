"""Markdown tables of the comparison of methods."""

from __future__ import annotations

import pandas as pd

from spatialwhisperer.protocols.annotation.methods import METHODS, NULLS
from spatialwhisperer.protocols.output import markdown


def report(table: pd.DataFrame, n_seeds: int, n_nulls: int, seconds: float) -> str:
    """Two Markdown tables: macro AUROC by method and split, and AUROC by class."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    lines = [
        f"Macro AUROC of presence inside the test section ({n_seeds} seeds, mean ± sd; {n_nulls} shufflings; {seconds:.0f} s on {device}).",
        "",
        markdown(_macro(table)),
        "",
        "AUROC by class, mean over test sections and seeds.",
        "",
        markdown(_by_class(table)),
        "",
    ]
    return "\n".join(lines)


def _macro(table: pd.DataFrame) -> pd.DataFrame:
    """Mean over classes, then over the test sections of a split; the standard deviation is over seeds."""
    runs = table.groupby(["split", "test", "method", "seed"], sort=False, dropna=False)["auroc"].mean().reset_index()
    out: dict[str, dict[str, str]] = {label: {} for label in METHODS.values()}
    for names, part in runs.groupby(["split", "method"], sort=False):
        split, method = map(str, names)
        by_seed = part.groupby("seed", dropna=False)["auroc"].mean()
        text = f"{by_seed.mean():.3f}"
        if method not in NULLS and len(by_seed) > 1:
            text += f" ± {by_seed.std():.3f}"
        out[METHODS[method]][split] = text
        if method in NULLS:
            out[METHODS[NULLS[method]]][split] = f"{by_seed.quantile(0.95):.3f}"
    frame = pd.DataFrame.from_dict(out, orient="index").dropna(how="all")
    frame.index.name = "method"
    return frame[list(dict.fromkeys(table["split"]))]


def _by_class(table: pd.DataFrame) -> pd.DataFrame:
    methods = [m for m in METHODS if m in set(table["method"]) and m not in NULLS]
    kept = table[table["method"].isin(methods)]
    by_test = kept.groupby(["split", "class", "method", "test"], sort=False)["auroc"].mean()
    wide = by_test.groupby(["split", "class", "method"], sort=False).mean().unstack("method")[methods]
    wide = wide.map(lambda v: "–" if pd.isna(v) else f"{v:.2f}").reset_index(level="class")
    wide.index.name = "split"
    return wide
