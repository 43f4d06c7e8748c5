"""The table of the comparison of presets, beside published figures."""

from __future__ import annotations

import numpy as np
import pandas as pd

from spatialwhisperer.protocols.her2st.floors import RIDGE, RIDGE_SIZES
from spatialwhisperer.protocols.her2st.frozen_features import BASELINES
from spatialwhisperer.protocols.output import markdown
from spatialwhisperer.statistics.intervals.uncertainty import FEWEST, over_units

COLUMNS = {
    ("pearson", "ACG"): "r ACG",
    ("pearson", "HEG50"): "r HEG50",
    ("pearson", "HVG50"): "r HVG50",
    ("mse", "ACG"): "MSE ACG",
    ("ari", ""): "ARI",
    ("nmi", ""): "NMI",
    ("macro_f1", ""): "macro-F1",
}
"""Metric and gene list of each column."""

PUBLISHED = {
    ("mclstexp", "section"): "r ACG .230, HEG .387, MSE .590",
    ("bleep", "section"): "r ACG .187, HEG .291, MSE .602",
    ("mclstexp", "patient"): "r ALL .163, HEG .114",
    ("bleep", "patient"): "r ALL .151, HEG .246",
}
"""HER2+, 32 sections: leave one section out as listed by CHRep (arXiv 2604.21573), leave one patient out as listed by DKAN (2511.17685)."""

NOT_COMPARABLE = "not comparable"
"""Five sections with images instead of 32, other genes, image features instead of trained networks."""

KEYS = ["protocol", "features", "split"]


def report(table: pd.DataFrame) -> str:
    """A Markdown table for each protocol, kind of image features and split, and below it which presets do not exceed a scalar baseline."""
    lines: list[str] = []
    for (protocol, features, split), part in table.groupby(KEYS, sort=False):
        lines += [f"### {split} split, protocol {protocol}, {features}", "", markdown(summary(part)), ""]
        lines += [*_below_the_scalar(part), ""]
    return "\n".join(lines)


def summary(part: pd.DataFrame) -> pd.DataFrame:
    """One row per preset or baseline: mean over folds, with the standard deviation over seeds where there are several.

    A seed's standard deviation is not how much another section or patient would differ: that is the interval beside the ridge.
    """
    rows = {}
    for (preset, predictor), own in part.groupby(["preset", "predictor"], sort=False):
        name = preset if predictor == "prediction" else predictor
        rows[name] = {label: cell(own, *key) for key, label in COLUMNS.items()}
        if preset != BASELINES:
            rows[name]["r HEG50 beyond the ridge"] = _beyond(own, part)
            rows[name]["s per fold"] = f"{own.groupby(['fold', 'seed'])['seconds'].first().mean():.0f}"
            rows[name]["published"] = _published(str(preset), str(own["split"].iloc[0]))
    frame = pd.DataFrame.from_dict(rows, orient="index").fillna("–")
    frame.index.name = "preset or baseline"
    return frame


def _beyond(own: pd.DataFrame, part: pd.DataFrame) -> str:
    """Difference from the plain ridge on the same features, paired by section.

    The interval is over folds where there are three or more; with two patients each fold is listed.
    """
    name = RIDGE_SIZES if own["preset"].iloc[0] == "whisperer" else RIDGE
    floor = part[(part["preset"] == BASELINES) & (part["predictor"] == name)]
    mine, its = (
        frame[(frame["metric"] == "pearson") & (frame["gene_list"] == "HEG50")]
        .groupby(["fold", "section"])["value"]
        .mean()
        for frame in (own, floor)
    )
    by_fold = (mine - its).groupby("fold").mean().dropna()
    if by_fold.empty:
        return "–"
    if len(by_fold) < FEWEST:
        return ", ".join(f"{fold}: {value:+.3f}" for fold, value in by_fold.items())
    low, high = over_units(by_fold.to_numpy(), np.arange(len(by_fold))).interval(by_fold.mean())
    return f"{by_fold.mean():+.3f} [{low:+.3f}, {high:+.3f}]"


def by_seed(own: pd.DataFrame, metric: str, gene_list: str) -> pd.Series:
    """Value of each seed: mean over the sections of a fold, then over folds."""
    chosen = own[(own["metric"] == metric) & (own["gene_list"] == gene_list)]
    return chosen.groupby(["seed", "fold"])["value"].mean().groupby("seed").mean()


def cell(own: pd.DataFrame, metric: str, gene_list: str) -> str:
    """Mean over seeds, with their standard deviation where there are several; a dash where nothing was measured."""
    values = by_seed(own, metric, gene_list)
    if values.empty or values.isna().all():
        return "–"
    return f"{values.mean():.3f}" + (f" ± {values.std():.3f}" if len(values) > 1 else "")


def _published(preset: str, split: str) -> str:
    known = PUBLISHED.get((preset, split))
    return "–" if known is None else f"{known} ({NOT_COMPARABLE})"


def _below_the_scalar(part: pd.DataFrame) -> list[str]:
    """Which presets do not exceed the baselines that know one scalar per spot."""
    out = []
    floors = part[part["preset"] == BASELINES]
    for scalar in ("darkness", "total UMI (oracle)"):
        floor = by_seed(floors[floors["predictor"] == scalar], "pearson", "HEG50").mean()
        if pd.isna(floor):
            continue
        own = part[part["preset"] != BASELINES]
        below = [str(p) for p, x in own.groupby("preset", sort=False) if by_seed(x, "pearson", "HEG50").mean() <= floor]
        out.append(f"- Not above one scalar per spot ({scalar}, r HEG50 {floor:.3f}): {', '.join(below) or 'none'}.")
    return out
