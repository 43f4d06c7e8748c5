"""The table of the retrieval benchmark."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from spatialwhisperer.protocols.benchmarks.expression_table import counted, folds, page, with_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialwhisperer.datasets.folders.duplicates import Duplicate
    from spatialwhisperer.protocols.benchmarks.folder.folds import Split
    from spatialwhisperer.protocols.benchmarks.folder.sections import BenchmarkSection

KEYS = ["preset", "image", "gene"]
DIRECTIONS = ("image → gene", "gene → image")
K = (1, 5, 10)


def report(
    table: pd.DataFrame,
    *,
    split: Split,
    sections: Sequence[BenchmarkSection],
    duplicates: Sequence[Duplicate],
    rows: int | None,
) -> str:
    """The summary as Markdown, under a heading that names the split, with the duplicates below."""
    about = f"{counted(sections, rows)}; {folds(table)}. Candidates are the rows of the same section."
    return page(summary(table), split, about, duplicates)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Recall among the rows of a section: mean over sections and seeds, then over folds; Recall@5 with an interval over folds.

    There is an interval where there are three folds or more.
    """
    inside = table[table["candidates"] == "section"]
    out = {}
    for names, own in inside.groupby(KEYS, sort=False):
        name = ", ".join(str(n) for n in names if n)
        out[name] = {
            f"R@{k} {direction}": _cell(own[own["direction"] == direction], f"recall@{k}", interval=k == 5)
            for direction in DIRECTIONS
            for k in K
        }
    first = inside[(inside["direction"] == DIRECTIONS[0]) & (inside[KEYS] == inside[KEYS].iloc[0]).all(axis=1)]
    chance = {f"R@{k} {d}": _cell(first, f"chance@{k}", interval=False) for d in DIRECTIONS for k in K}
    frame = pd.DataFrame.from_dict({**out, "chance": chance}, orient="index")
    frame.index.name = "model"
    return frame


def _cell(rows: pd.DataFrame, column: str, *, interval: bool) -> str:
    values = rows.groupby("fold")[column].mean()
    return with_interval(values) if interval else f"{values.mean():.3f}"
