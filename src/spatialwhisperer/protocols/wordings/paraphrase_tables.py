"""Markdown tables of the wordings: how much of the AUROC of a class its names reach."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spatialwhisperer.protocols.output import markdown

if TYPE_CHECKING:
    from collections.abc import Mapping

LEAST = 0.75
"""Fraction of the span of its class that a name should reach."""


def report(table: pd.DataFrame) -> str:
    """Two tables: all settings, and the classes.

    Parameters
    ----------
    table
        What :func:`~spatialwhisperer.protocols.wordings.paraphrases.run` returns.
    """
    means = by_text(table)
    return f"{markdown(overview(means))}\n\n{markdown(by_class(means))}\n"


def by_text(table: pd.DataFrame) -> pd.DataFrame:
    """AUROC of each text, mean over the sections of a patient and then over patients, and the fraction of the span that it is.

    The span of a class is the AUROC of its best name minus 0.5, when all names are in training.
    """
    keys = ["setting", "kind", "class", "text"]
    by_patient = table.groupby([*keys, "patient"], sort=False)["auroc"].mean()
    means = by_patient.groupby(keys, sort=False).mean().reset_index()
    seen = means[(means["setting"] == "all seen") & (means["kind"] == "name")]
    span = seen.groupby("class")["auroc"].max() - 0.5
    return means.assign(fraction=(means["auroc"] - 0.5) / means["class"].map(span))


def overview(means: pd.DataFrame) -> pd.DataFrame:
    """For each setting: macro AUROC of the names, names below `LEAST` of the span, names below 0.5, and negated and compound texts."""
    out: dict[str, Mapping[str, str]] = {}
    for setting, part in means.groupby("setting", sort=False):
        names, no, both = (part[part["kind"] == kind] for kind in ("name", "negation", "compound"))
        out[str(setting)] = {
            "macro AUROC of the names": _macro(names),
            f"names below {LEAST} of the span": f"{(names['fraction'] < LEAST).sum()} of {len(names)}",
            "names below 0.5": str(int((names["auroc"] < 0.5).sum())),
            "macro AUROC, negated": _macro(no),
            "negated at 0.5 or above": f"{(no['auroc'] >= 0.5).sum()} of {len(no)}" if len(no) else "–",
            "macro AUROC, compound": _macro(both),
        }
    frame = pd.DataFrame.from_dict(out, orient="index")
    frame.index.name = "texts of training"
    return frame


def by_class(means: pd.DataFrame) -> pd.DataFrame:
    """For each class: its best name, the mean of its names in each setting, and the name that does worst when it is left out."""
    names = means[means["kind"] == "name"]
    out: dict[str, Mapping[str, str]] = {}
    for name in dict.fromkeys(names["class"]):
        part = names[names["class"] == name]
        seen, unseen = (part[part["setting"] == s] for s in ("all seen", "name left out"))
        best, worst = seen.loc[seen["auroc"].idxmax()], unseen.loc[unseen["fraction"].idxmin()]
        out[str(name)] = {
            "best name": f"{best['text']}, {best['auroc']:.2f}",
            **{str(s): f"{p['auroc'].mean():.2f}" for s, p in part.groupby("setting", sort=False)},
            "worst name, left out": f"{worst['text']}, {worst['auroc']:.2f}",
            "fraction of the span": f"{worst['fraction']:.2f}",
        }
    frame = pd.DataFrame.from_dict(out, orient="index")
    frame.index.name = "class"
    return frame


def _macro(part: pd.DataFrame) -> str:
    return f"{np.mean(part.groupby('class')['auroc'].mean()):.3f}" if len(part) else "–"
