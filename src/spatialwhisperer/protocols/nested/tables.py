"""Markdown tables of recipes that are chosen on inner folds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from spatialwhisperer.protocols.annotation.zero_shot.tables import ALPHA
from spatialwhisperer.protocols.nested.folds import NEW_PATIENTS
from spatialwhisperer.protocols.output import markdown

if TYPE_CHECKING:
    from collections.abc import Sequence

METHODS = {
    "product": "whisperer, its recipe chosen on the training sections",
    "darkness": "darkness (mean optical density) of the tile alone; whether a class is darker or lighter is learnt from training",
    "ridge": "plain ridge on the same features: image → expression → label",
    "probe": "supervised probe on the same features, labels of the training sections",
    "own probe": "the same probe on the section's own labels, blocks left out (ceiling of the features)",
    "expression": "whisperer, the section's own expression as input",
    "null": "null: shuffled image–gene pairs, mean",
    "null q95": "null: shuffled image–gene pairs, 95 % quantile",
    "embedded": "optimistic: whisperer, the recipe of the embedded model, chosen with all sections in view",
    "hindsight": "optimistic: the candidate that is best on the reported sections themselves",
}
"""Name in tables."""

MEAN = "mean of the new patients"


def report(
    table: pd.DataFrame,
    choices: pd.DataFrame,
    differences: pd.DataFrame,
    nulls: pd.DataFrame,
    n_nulls: int,
    seconds: float,
) -> str:
    """Markdown tables: macro AUROC, differences from the product, choices, and AUROC by class with p-values.

    Parameters
    ----------
    table
        Columns ``split``, ``test``, ``class``, ``method``, ``seed`` and ``auroc``.
    choices
        Candidates of each outer fold with their means on the inner folds, and which one was chosen.
    differences
        Of each method from the product, as :func:`spatialwhisperer.protocols.annotation.paired.over_sections` returns them.
    nulls
        p-values by split and class.
    n_nulls, seconds
        Shufflings, and the time of the run.
    """
    above = nulls.assign(above=nulls["p"] <= ALPHA).groupby("split", sort=False)["above"].agg(["sum", "size"])
    counted = "; ".join(f"{split}: {row['sum']} of {row['size']}" for split, row in above.iterrows())
    lines = [
        f"Macro AUROC of presence in sections that no choice has seen ({n_nulls} shufflings, {seconds:.0f} s).",
        "",
        markdown(macro(table)),
        "",
        "Difference from the first row on the same spots and classes, with a 95 % interval: over sections where a split has three or more,",
        "otherwise over spots. The last columns are effective ranks of the score maps.",
        "",
        markdown(from_product(differences)),
        "",
        "What was chosen, and which sections the choice saw.",
        "",
        markdown(chosen(choices)),
        "",
        f"Classes above shuffled pairs (p ≤ {ALPHA}): {counted}.",
        "",
        markdown(by_class(table, nulls)),
        "",
    ]
    return "\n".join(lines)


def macro(table: pd.DataFrame) -> pd.DataFrame:
    """Mean over the classes that all methods score in a section, then over the sections of a split."""
    place = ["split", "test"]
    known = table.dropna(subset="auroc")
    n = known.groupby([*place, "class"])["method"].transform("nunique")
    common = known[n == known["method"].nunique()]
    sections = common.groupby([*place, "method", "seed"], sort=False)["auroc"].mean()
    runs = sections.groupby(["split", "method", "seed"], sort=False).mean()
    wide = runs.groupby(["method", "split"], sort=False).mean().unstack("split")
    if "null" in wide.index:
        wide.loc["null q95"] = runs.xs("null", level="method").groupby("split", sort=False).quantile(0.95)
    splits: list[str] = list(dict.fromkeys(table["split"]))
    wide = wide.reindex(index=[m for m in METHODS if m in wide.index], columns=splits)
    if set(NEW_PATIENTS) <= set(splits):
        wide.insert(0, MEAN, wide[list(NEW_PATIENTS)].mean(axis=1))
    wide.index = pd.Index([METHODS[m] for m in wide.index], name="method")
    return wide.map("{:.3f}".format)


def from_product(differences: pd.DataFrame) -> pd.DataFrame:
    """One row per method: its difference from the product in each split, and the effective rank of its score maps."""
    cells: dict[str, dict[str, str]] = {METHODS[m]: {} for m in METHODS if m in set(differences["method"])}
    for row in differences.to_dict("records"):
        own = cells[METHODS[row["method"]]]
        if row["method"] != row["against"]:
            text = f"{row['difference']:+.3f}"
            if pd.notna(row["low"]):
                text += f" [{row['low']:+.3f}, {row['high']:+.3f}]"
            own[f"{row['split']} ({row['over']})"] = text
    for row in differences.to_dict("records"):
        cells[METHODS[row["method"]]][f"effective rank, {row['split']}"] = f"{row['effective_rank']:.1f}"
    frame = pd.DataFrame.from_dict(cells, orient="index")
    frame = frame[sorted(frame.columns, key=lambda c: str(c).startswith("effective rank"))]
    frame.index.name = "method"
    return frame


def chosen(choices: pd.DataFrame) -> pd.DataFrame:
    """One row per outer fold: sections, what the choice saw, the candidate, and the range of all candidates on the inner folds."""
    rows: dict[str, dict[str, str]] = {}
    for reported, part in choices.groupby("reported", sort=False):
        (best,) = part[part["chosen"]].to_dict("records")
        low, high = part["inner"].min(), part["inner"].max()
        rows[str(reported)] = {
            "the choice saw": best["chosen_on"],
            "left out in turn": best["left_out"],
            "chosen": best["candidate"],
            "macro AUROC on the inner folds": f"{best['inner']:.3f}",
            "all candidates there": f"{len(part)}: {low:.3f} to {high:.3f}",
        }
    frame = pd.DataFrame.from_dict(rows, orient="index")
    frame.index.name = "reported on"
    return frame


def by_class(table: pd.DataFrame, nulls: pd.DataFrame) -> pd.DataFrame:
    """AUROC of each class, mean over the sections of a split, with the 95 % quantile of the null and the p-value of the product."""
    shown: Sequence[str] = [m for m in METHODS if m in set(table["method"]) and m != "null"]
    kept = table[table["method"].isin(shown)]
    wide = kept.groupby(["split", "class", "method"], sort=False)["auroc"].mean().unstack("method")[shown]
    wide = wide.map(lambda v: "–" if pd.isna(v) else f"{v:.2f}")
    own = nulls.set_index(["split", "class"])
    wide["null q95"] = own["null_q95"].map("{:.2f}".format)
    wide["p (product)"] = own["p"].map("{:.2f}".format)
    wide = wide.reset_index(level="class")
    wide.index.name = "split"
    return wide
