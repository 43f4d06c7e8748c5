"""The table and the picture of the ablation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spatialwhisperer.protocols.output import markdown
from spatialwhisperer.statistics.intervals.uncertainty import over_units

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure

MACRO = "macro AUROC, patient "


def summary(scored: pd.DataFrame) -> pd.DataFrame:
    """Macro AUROC of each row by patient, and how much it differs from the row that it is compared with.

    Parameters
    ----------
    scored
        Columns ``row``, ``part``, ``change``, ``against``, ``patient``, ``section``, ``class`` and ``auroc``.

    Returns
    -------
    One row for each ``row``: its macro AUROC by patient (mean over classes, then over sections), ``difference`` (mean over all sections of
    the difference of the macro AUROCs of the same section), and the 95 % interval ``low`` to ``high`` over the sections (Student's t).
    """
    macro = scored.groupby(["row", "patient", "section"], sort=False)["auroc"].mean()
    out = []
    for row, part in scored.groupby("row", sort=False):
        own, against = macro[row], part["against"].iloc[0]
        values = {f"{MACRO}{p}": v for p, v in own.groupby("patient").mean().items()}
        gain: dict[str, float] = dict.fromkeys(("difference", "low", "high"), np.nan)
        if isinstance(against, str):
            gaps = (own - macro[against]).to_numpy()
            mean = float(gaps.mean())
            low, high = over_units(gaps, np.arange(len(gaps))).interval(mean, within=(-1, 1))
            gain = {"difference": mean, "low": low, "high": high}
        known = {name: part[name].iloc[0] for name in ("part", "change", "against")}
        out.append({"row": row, **known, **values, **gain})
    return pd.DataFrame(out).set_index("row")


def report(table: pd.DataFrame, left_out: Mapping[str, str]) -> str:
    """The summary as a Markdown table, and a line for each row that could not be trained.

    Parameters
    ----------
    table
        As :func:`summary` returns it.
    left_out
        Row to the reason.
    """
    shown = pd.DataFrame({"change": table["change"].to_numpy()}, index=pd.Index(table["part"], name="part"))
    for name in table:
        if str(name).startswith(MACRO):
            shown[name] = table[name].map("{:.3f}".format).to_numpy()
    shown["difference"] = [_interval(*row) for row in table[["difference", "low", "high"]].to_numpy()]
    first = table.index[0]
    shown["against"] = ["" if not isinstance(a, str) else "the recipe" if a == first else a for a in table["against"]]
    lines = [f"Left out: {name}, because {why}." for name, why in left_out.items()]
    return "\n\n".join([markdown(shown), *lines]) + "\n"


def _interval(value: float, low: float, high: float) -> str:
    if not np.isfinite(value):
        return "–"
    return f"{value:+.3f}" + (f" [{low:+.3f}, {high:+.3f}]" if np.isfinite(low) else "")


def draw(table: pd.DataFrame) -> Figure:
    """Difference of each row from the row that it is compared with, with its interval."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = table[table["difference"].notna()]
    figure = Figure(figsize=(9, 1.2 + 0.3 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    place = np.arange(len(rows))[::-1]
    ax.axvline(0, color="0.6", lw=1)
    ax.hlines(place, rows["low"], rows["high"], color="#3b6fb6", lw=1.5)
    ax.plot(rows["difference"], place, "o", color="#3b6fb6", ms=5)
    of_recipe = rows["against"] == table.index[0]
    ax.set_yticks(place, [n if ok else f"{n} *" for n, ok in zip(rows.index, of_recipe, strict=True)], fontsize=8)
    ax.set_xlabel("difference in macro AUROC, 95 % interval over sections (* against another row)")
    ax.spines[["top", "right"]].set_visible(False)
    return figure
