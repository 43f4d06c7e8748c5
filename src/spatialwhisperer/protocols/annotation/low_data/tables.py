"""Tables and curves of the low-data experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from spatialwhisperer.protocols import captions
from spatialwhisperer.protocols.output import markdown

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAIRS = {"image–gene": "image–gene pairs", "gene–text": "gene–text pairs", "image–text": "image–text pairs"}
ALONE, BRIDGED, OTHERS = "this pair only", "with the other pairs", "the other pairs only"


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Macro AUROC over classes by split, pair, condition, measure, fraction and seed.

    The measures are ``labels`` (all classes), and ``regions`` and ``cell types``, which are parts of them.
    """
    keys = ["split", "test", "pair", "condition", "input", "fraction", "seed", "n_pairs"]
    cells = table["class"].isin(captions.CELLS)
    parts = {"labels": cells | ~cells, "regions": ~cells, "cell types": cells}
    frames = [
        table[rows].groupby(keys, sort=False)["auroc"].mean().reset_index().assign(measure=m)
        for m, rows in parts.items()
    ]
    return pd.concat(frames, ignore_index=True)


def report(table: pd.DataFrame, n_seeds: int) -> str:
    """Markdown: macro AUROC by fraction, mean and standard deviation over seeds."""
    runs = summary(table)
    by_seed = runs.groupby(["pair", "split", "measure", "condition", "input", "fraction", "seed"], sort=False)[
        "auroc"
    ].mean()
    stats = by_seed.groupby(level=[0, 1, 2, 3, 4, 5], sort=False).agg(["mean", "std"])
    cells = stats.apply(lambda r: f"{r['mean']:.3f}" + ("" if pd.isna(r["std"]) else f" ± {r['std']:.3f}"), axis=1)
    wide = cells.unstack("fraction")
    wide = wide[sorted(wide.columns, reverse=True)].rename(columns=fraction_name)
    lines = [
        f"Macro AUROC of presence inside the test section by fraction of one kind of pair; {n_seeds} seeds (training and subset), mean ± sd.",
        "",
    ]
    for pair, part in wide.groupby(level="pair", sort=False):
        frame = part.droplevel("pair").dropna(axis=1, how="all").reset_index()
        frame.index = pd.Index(frame.pop("split"), name="split")
        counts = runs[runs["pair"] == pair].groupby(["split", "fraction"])["n_pairs"].median().astype(int)
        n = "; ".join(
            f"{split}: {_counts(own.droplevel(0)[::-1])}" for split, own in counts.groupby(level=0, sort=False)
        )
        lines += [f"### Fraction of the {PAIRS[str(pair)]}", "", markdown(frame), "", f"Pairs: {n}.", ""]
    return "\n".join(lines)


def _counts(by_fraction: pd.Series) -> str:
    names = [fraction_name(value) for value in by_fraction.index.to_numpy(dtype=float)]
    return ", ".join(f"{name} = {n}" for name, n in zip(names, by_fraction, strict=True))


def fraction_name(value: float) -> str:
    """A fraction as it stands in tables: 0, 1, or 1/n."""
    return str(int(value)) if value in (0, 1) else f"1/{round(1 / value)}"


def draw(table: pd.DataFrame) -> Figure:
    """Macro AUROC against the fraction, one panel per pair and split; bands are the range over seeds."""
    import matplotlib.pyplot as plt

    runs = summary(table)
    splits = list(dict.fromkeys(runs["split"]))
    figure, axes = plt.subplots(len(splits), 3, figsize=(10, 2.7 * len(splits) + 0.7), sharey=True, squeeze=False)
    drawn: dict[str, Artist] = {}
    for row, split in zip(axes, splits, strict=True):
        for axis, (pair, title) in zip(row, PAIRS.items(), strict=True):
            part = runs[(runs["split"] == split) & (runs["pair"] == pair)]
            drawn |= _curves(axis, part)
            if pair == "image–text":
                drawn |= _levels(axis, runs[runs["split"] == split])
            axis.axhline(0.5, color="0.6", lw=0.8)
            axis.set_xscale("log", base=2)
            fractions = sorted(part.loc[part["fraction"] > 0, "fraction"].unique())
            axis.set_xticks(fractions, [fraction_name(s) for s in fractions])
            axis.minorticks_off()
            axis.spines[["top", "right"]].set_visible(False)
            axis.set_title(f"{split}: {part['test'].iloc[0]}" if axis is row[0] else "", loc="left", fontsize=9)
            axis.set_xlabel(f"fraction of the {title}", fontsize=9)
        row[0].set_ylabel("AUROC", fontsize=9)
    figure.legend(drawn.values(), drawn.keys(), loc="lower center", ncols=3, frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0.09 if len(splits) == 1 else 0.06, 1, 1))
    return figure


_LINES = {
    (BRIDGED, "image"): ("labels of the image, with the other pairs", "#1f5fa8", "-"),
    (ALONE, "image"): ("labels of the image, this pair only", "#d1701f", "-"),
    (ALONE, "expression"): ("labels of the expression, this pair only", "#d1701f", "--"),
}
"""Name, colour and style of the line of each condition and input."""


def _curves(axis: Axes, runs: pd.DataFrame) -> dict[str, Artist]:
    """Mean over seeds against the fraction, with the range over seeds."""
    out: dict[str, Artist] = {}
    labels = runs[(runs["measure"] == "labels") & (runs["fraction"] > 0)]
    for (condition, source), (name, colour, style) in _LINES.items():
        own = labels[(labels["condition"] == condition) & (labels["input"] == source)]
        if own.empty:
            continue
        by = own.groupby("fraction")["auroc"].agg(["mean", "min", "max"])
        (out[name],) = axis.plot(by.index, by["mean"], style, color=colour, marker="o", ms=3.5, lw=1.6)
        axis.fill_between(by.index, by["min"], by["max"], color=colour, alpha=0.15, lw=0)
    return out


def _levels(axis: Axes, runs: pd.DataFrame) -> dict[str, Artist]:
    """What the two other kinds of pairs give without any image–text pair, as horizontal lines."""
    labels = runs[(runs["measure"] == "labels") & (runs["input"] == "image")]
    joint = labels[labels["condition"] == OTHERS]
    closed = labels[(labels["pair"] == "image–gene") & (labels["condition"] == BRIDGED) & (labels["fraction"] == 1)]
    out: dict[str, Artist] = {}
    for rows, recipe, style in ((joint, "the same recipe", "--"), (closed, "the default, in closed form", "-.")):
        if len(rows):
            name = f"the other pairs only, {recipe}"
            out[name] = axis.axhline(rows["auroc"].mean(), color="0.35", lw=1.2, ls=style)
    return out
