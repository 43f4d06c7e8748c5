"""Markdown tables of the comparison of methods."""

from __future__ import annotations

import pandas as pd

from spatialwhisperer.protocols.annotation.methods import METHODS, NULLS
from spatialwhisperer.protocols.output import markdown

ALPHA = 0.05


def report(
    table: pd.DataFrame,
    differences: pd.DataFrame,
    nulls: pd.DataFrame,
    n_seeds: int,
    n_nulls: int,
    seconds: float,
) -> str:
    """Markdown tables: macro AUROC, differences with intervals, classes above their null, near truth, and AUROC by class."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    every = table[table["truth"] == "all"]
    lines = [
        f"Macro AUROC of presence inside the test section ({n_seeds} seeds, mean ± sd; {n_nulls} shufflings; {seconds:.0f} s on {device}).",
        "The standard deviation is over seeds; it is not how much another section or patient would differ.",
        "",
        markdown(_macro(every)),
        "",
        "Difference from darkness alone and from the probe on the same spots, with a 95 % interval (over sections where a split has three or",
        "more, otherwise over the spots of its section), and effective rank of the score maps (exponential of the entropy of the",
        "eigenvalues of their correlation).",
        "",
        markdown(_differences(differences)),
        "",
        f"Classes above their own null of shuffled image–gene pairs (p ≤ {ALPHA}), of all that were scored in the sections of the split.",
        "",
        markdown(_above_null(nulls)),
        "",
        "Regions whose labels are the section's own or were transferred over less than 50 µm: mean AUROC over them.",
        "",
        markdown(_macro(table[table["truth"] == "near"])),
        "",
        "AUROC by class, mean over test sections and seeds; p of whisperer against its null, the largest over the sections.",
        "",
        markdown(_by_class(every, nulls)),
        "",
    ]
    return "\n".join(lines)


def _differences(differences: pd.DataFrame) -> pd.DataFrame:
    """One row per method: for each split the differences, and what the interval is over."""
    cells: dict[str, dict[str, str]] = {}
    for row in differences.to_dict("records"):
        if row["method"] == row["against"]:
            continue
        text = f"{row['difference']:+.3f}"
        if pd.notna(row["low"]):
            text += f" [{row['low']:+.3f}, {row['high']:+.3f}]"
        own = cells.setdefault(METHODS[row["method"]], {})
        own[f"{row['split']}, from {row['against']} ({row['over']})"] = text
        own[f"{row['split']}, effective rank"] = f"{row['effective_rank']:.1f}"
    frame = pd.DataFrame.from_dict(cells, orient="index")
    frame.index.name = "method"
    return frame


def _above_null(nulls: pd.DataFrame) -> pd.DataFrame:
    cells: dict[str, dict[str, str]] = {}
    for (method, split), part in nulls.groupby(["method", "split"], sort=False):
        cells.setdefault(METHODS[str(method)], {})[str(split)] = f"{int((part['p'] <= ALPHA).sum())} of {len(part)}"
    frame = pd.DataFrame.from_dict(cells, orient="index")
    frame.index.name = "method"
    return frame


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


def _by_class(table: pd.DataFrame, nulls: pd.DataFrame) -> pd.DataFrame:
    methods = [m for m in METHODS if m in set(table["method"]) and m not in NULLS]
    kept = table[table["method"].isin(methods)]
    by_test = kept.groupby(["split", "class", "method", "test"], sort=False)["auroc"].mean()
    wide = by_test.groupby(["split", "class", "method"], sort=False).mean().unstack("method")[methods]
    wide = wide.map(lambda v: "–" if pd.isna(v) else f"{v:.2f}")
    p = nulls[nulls["method"] == "whisperer"].groupby(["split", "class"], sort=False)["p"].max()
    wide["p (whisperer)"] = p.map("{:.2f}".format)
    wide = wide.fillna("–").reset_index(level="class")
    wide.index.name = "split"
    return wide
