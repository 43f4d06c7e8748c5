"""The table of a paper: what was measured, beside one number per spot and what was published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from spatialwhisperer.protocols.annotation.label_sets import LABEL_SETS
from spatialwhisperer.protocols.her2st.comparison_table import COLUMNS, cell
from spatialwhisperer.protocols.output import markdown
from spatialwhisperer.protocols.papers.rows import published

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from spatialwhisperer.protocols.papers.rows import Row

LABELS = {f"{metric}:{genes}": label for (metric, genes), label in COLUMNS.items()} | {
    "mae:ACG": "MAE ACG",
    "ssim:ACG": "SSIM",
    "rmse_z:ACG": "RMSE of z-scores",
    "hit@1:ACG": "hit@1",
    "hit@5:ACG": "hit@5",
    "pearson:markers": "r markers",
    "balanced_accuracy:": "balanced accuracy",
    "auroc:macro": "macro AUROC",
}
"""Heading of each column."""

MEASURED, PUBLISHED, DARKNESS = "measured", "published", "darkness"

ABOUT = {
    DARKNESS: '"darkness" predicts from one number per spot, how dark the tissue is.',
    PUBLISHED: "Published numbers are of trained image networks and whole data sets, and not comparable where the notes below differ from that.",
}
"""What the kinds of figures are."""


@dataclass(frozen=True)
class Done:
    """A row that was run.

    Attributes
    ----------
    row
        The row.
    rows
        Its tidy results.
    about
        How it was run.
    """

    row: Row
    rows: pd.DataFrame
    about: str


def report(paper: str, done: Sequence[Done], left_out: Mapping[str, str]) -> str:
    """Markdown: the table, how each row was run, and which rows were left out.

    Parameters
    ----------
    paper
        Name of the paper.
    done
        Rows that were run.
    left_out
        Why each other row was not.
    """
    notes = [
        f"- {one.row.name}: {one.about}." + (f" {_sentence(one.row.note)}" if one.row.note else "") for one in done
    ]
    table = summary(done)
    figures = " ".join(
        ["Mean over sections and folds.", *(text for kind, text in ABOUT.items() if kind in set(table["figures"]))]
    )
    lines = [
        f"### {paper}",
        "",
        markdown(table),
        "",
        figures,
        "",
        *notes,
        *(f"- Published numbers: {source}." for source in _sources(done)),
        *(f"- Left out: {name}: {why}." for name, why in left_out.items()),
    ]
    return "\n".join(lines) + "\n"


def summary(done: Sequence[Done]) -> pd.DataFrame:
    """One line per row, preset and kind of figures; the columns are the metrics of the rows, a dash where one has no such metric."""
    keys = list(dict.fromkeys(key for one in done for key in one.row.columns))
    lines = [line for one in done for line in _lines(one)]
    frame = pd.DataFrame(lines)
    kept = [key for key in keys if key in frame and (frame[key].fillna("–") != "–").any()]
    frame = frame[["data set", "method", "figures", *kept]].rename(columns=LABELS)
    return frame.fillna("–").set_index("data set")


def _lines(one: Done) -> Iterator[dict[str, str]]:
    for preset, own in one.rows.groupby("preset", sort=False):
        name = str(preset)
        for figures, predictor in ((MEASURED, "prediction"), (DARKNESS, "darkness")):
            part = own[own["predictor"] == predictor]
            if len(part):
                cells = {key: cell(part, *key.split(":")) for key in one.row.columns}
                yield {"data set": one.row.name, "method": name, "figures": figures, **cells}
        known = published(one.row, name)
        if len(known):
            cells = {str(k): f"{v:.3f}" for k, v in zip(known["metric"], known["value"], strict=True)}
            yield {"data set": one.row.name, "method": name, "figures": PUBLISHED, **cells}
    if one.row.task == "labels":
        for method, value in LABEL_SETS[one.row.dataset].published.items():
            yield {"data set": one.row.name, "method": method, "figures": PUBLISHED, "auroc:macro": f"{value:.3f}"}


def _sources(done: Sequence[Done]) -> list[str]:
    found = [published(one.row, str(p)) for one in done for p in one.rows["preset"].unique()]
    return list(dict.fromkeys(source for table in found for source in table["source"]))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."
