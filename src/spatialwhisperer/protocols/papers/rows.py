"""The rows of each paper's table: data set, held-out scheme, genes, metrics, and what was published; ``rows.tsv`` and ``published.tsv`` hold them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from io import StringIO
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

EACH_SECTION, EACH_PATIENT = "each section", "each patient"
DOMAIN_METRICS = ("ari:", "nmi:")

MARKERS = ("HAL", "CYP3A4", "VWF", "SOX9", "KRT7", "ANXA4", "ACTA2", "DCN")
"""Markers of the liver that BLEEP and HECLIP report."""


@dataclass(frozen=True)
class Row:
    """One row of the table of a paper.

    Attributes
    ----------
    paper, name
        Paper, and its row.
    dataset
        Data set, a name in :mod:`spatialwhisperer.protocols.papers.sources`.
    presets
        Presets that are run.
    task
        "expression", "classes" (of patches) or "labels" (zero-shot, of tiles).
    sections
        Sections that the paper uses.
    test
        "each section" and "each patient" leave out one after the other, else the section that is held out.
    patch_px
        Edge of a patch in pixels of the image.
    metrics
        Metric and gene list of each column, joined by a colon.
    domains
        Sections whose spatial domains are compared with the regions of a pathologist.
    note
        What differs from the paper, or is not known of it.
    """

    paper: str
    name: str
    dataset: str
    presets: tuple[str, ...]
    task: str
    sections: tuple[str, ...]
    test: str
    patch_px: int
    metrics: tuple[str, ...]
    domains: tuple[str, ...]
    note: str

    @property
    def columns(self) -> tuple[str, ...]:
        """Metrics of the table, those of domains included."""
        return self.metrics + (DOMAIN_METRICS if self.domains else ())

    def splits(self, patients: Mapping[str, str]) -> Iterator[tuple[str, tuple[str, ...], tuple[str, ...]]]:
        """Name, training sections and test sections of each fold, from the patient of each section that is there.

        Nothing where what would be held out, or everything else, is not there.
        """
        names = tuple(patients)
        if self.test == EACH_SECTION:
            held_out: Sequence[tuple[str, tuple[str, ...]]] = [(name, (name,)) for name in names]
        elif self.test == EACH_PATIENT:
            units = dict.fromkeys(patients.values())
            held_out = [(f"patient {p}", tuple(n for n in names if patients[n] == p)) for p in units]
        else:
            held_out = [(self.test, (self.test,))] if self.test in names else []
        for name, test in held_out:
            if train := tuple(n for n in names if n not in test):
                yield name, train, test


@lru_cache(maxsize=1)
def rows() -> tuple[Row, ...]:
    """All rows, in the order of the tables."""
    found = []
    for line in _table("rows.tsv").to_dict("records"):
        text = {str(key): str(value) for key, value in line.items()}
        found.append(
            Row(
                paper=text["paper"],
                name=text["row"],
                dataset=text["dataset"],
                presets=tuple(text["presets"].split()),
                task=text["task"],
                sections=tuple(text["sections"].split()),
                test=text["test"],
                patch_px=int(text["patch_px"]),
                metrics=tuple(text["metrics"].split()),
                domains=tuple(text["domains"].split()),
                note=text["note"],
            )
        )
    return tuple(found)


def papers() -> tuple[str, ...]:
    """Papers that have a command."""
    return tuple(dict.fromkeys(row.paper for row in rows()))


def rows_of(paper: str) -> list[Row]:
    """Rows of a paper.

    Raises
    ------
    ValueError
        If there is no such paper.
    """
    if paper not in papers():
        raise ValueError(f"There is no paper {paper!r}; choose one of {', '.join(papers())}.")
    return [row for row in rows() if row.paper == paper]


def published(row: Row, preset: str) -> pd.DataFrame:
    """What was published of a row: ``metric``, ``value`` and ``source``; empty where nothing is known here."""
    table = _table("published.tsv")
    own = table[(table["paper"] == row.paper) & (table["row"] == row.name) & (table["preset"] == preset)]
    return own[["metric", "source"]].assign(value=own["value"].astype(float))


def _table(name: str) -> pd.DataFrame:
    text = (files("spatialwhisperer.protocols.papers") / name).read_text(encoding="utf-8")
    return pd.read_csv(StringIO(text), sep="\t", dtype=str, keep_default_na=False)
