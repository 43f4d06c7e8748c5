"""The table of the expression benchmark."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spatialwhisperer.protocols.benchmarks.expression import CEILING, NO_ENCODER, PUBLISHED
from spatialwhisperer.protocols.benchmarks.regressions import FIXED, OURS
from spatialwhisperer.protocols.output import markdown
from spatialwhisperer.statistics.intervals.uncertainty import over_units

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialwhisperer.datasets.folders.duplicates import Duplicate
    from spatialwhisperer.protocols.benchmarks.folder.folds import Split
    from spatialwhisperer.protocols.benchmarks.folder.sections import BenchmarkSection

STRUCTURE = {
    "moran_truth": "Moran's I measured",
    "moran_predicted": "Moran's I predicted",
    "moran_r": "r of Moran's I",
    "gene_gene_r": "r gene–gene",
    "pathway_r": "r pathways",
}
"""Metric and its column."""

ORDER = (OURS, FIXED, PUBLISHED)

ALL = "all"
"""Section of the correlation over all rows of a fold at once."""

HEADINGS = {
    "patient": "Patients left out",
    "section": "Sections left out: their patients also train, and the figures say nothing about a new patient",
}


def report(
    table: pd.DataFrame,
    *,
    split: Split,
    sections: Sequence[BenchmarkSection],
    duplicates: Sequence[Duplicate],
    rows: int | None,
) -> str:
    """The summary as Markdown, under a heading that names the split, with the duplicates below."""
    about = f"{counted(sections, rows)}; {folds(table)}, {_genes(table)} genes."
    return page(summary(table), split, about, duplicates)


def page(frame: pd.DataFrame, split: Split, about: str, duplicates: Sequence[Duplicate]) -> str:
    """A table as Markdown, under a heading that names the split and a sentence about the data, with the duplicates below."""
    lines = [f"### {HEADINGS[split]}", "", about, "", markdown(frame), ""]
    lines += [f"- {d.one} and {d.other} are near-identical; they were on one side of every split." for d in duplicates]
    return "\n".join(lines).rstrip() + "\n"


def counted(sections: Sequence[BenchmarkSection], rows: int | None) -> str:
    """How many sections, patients and rows there are, in words."""
    patients = len({s.patient for s in sections})
    some = "" if rows is None else f", at most {rows} of each section"
    return (
        f"{len(sections)} sections of {patients} patient{'s' if patients > 1 else ''}, "
        f"{sum(s.table.n_obs for s in sections)} rows{some}"
    )


def folds(table: pd.DataFrame) -> str:
    """How many folds there are, in words."""
    n = table["fold"].nunique()
    return f"{n} fold{'s' if n > 1 else ''}"


def _genes(table: pd.DataFrame) -> str:
    low, high = int(table["n_genes"].min()), int(table["n_genes"].max())
    return str(low) if low == high else f"{low} to {high}"


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row per encoder and predictor.

    A figure is the mean over sections, then over folds. The interval of the correlation is over folds, where there are three or more.
    """
    out = {}
    for encoder, predictor in _order(table):
        own = table[(table["encoder"] == encoder) & (table["predictor"] == predictor)]
        each, pooled = own[own["section"] != ALL], own[own["section"] == ALL]
        row = {"r": with_interval(by_fold(each, "pearson")), "r, all rows": _cell(by_fold(pooled, "pearson"))}
        row |= {label: _cell(by_fold(each, metric)) for metric, label in STRUCTURE.items()}
        out[f"{predictor}, {encoder}" if encoder else predictor] = row
    frame = pd.DataFrame.from_dict(out, orient="index")
    frame.index.name = "predictor"
    # gene sets were not asked for, or no set has enough genes
    return frame.loc[:, [c for c in frame if (frame[c] != "–").any()]]


def by_fold(rows: pd.DataFrame, metric: str) -> pd.Series:
    """Mean over the sections of each fold; a fold without a value is left out."""
    chosen = rows[(rows["metric"] == metric) & rows["value"].notna()]
    return chosen.groupby("fold")["value"].mean()


def _order(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Regressions of each encoder, then what needs none, the ceiling last."""
    found = list(dict.fromkeys(zip(table["encoder"], table["predictor"], strict=True)))
    of_encoders = [pair for name in ORDER for pair in found if pair[0] != NO_ENCODER and pair[1] == name]
    floors = [pair for pair in found if pair[0] == NO_ENCODER and pair[1] != CEILING]
    return [*of_encoders, *floors, *(pair for pair in found if pair[1] == CEILING)]


def _cell(values: pd.Series) -> str:
    return f"{values.mean():.3f}" if len(values) else "–"


def with_interval(values: pd.Series) -> str:
    """Mean over folds, with its 95 % interval where there are three or more."""
    low, high = over_units(values.to_numpy(float), np.arange(len(values))).interval(float(values.mean()))
    return _cell(values) + (f" [{low:.3f}, {high:.3f}]" if np.isfinite([low, high]).all() else "")
