"""The table and the picture of the measurements in the olfactory bulb."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spatialwhisperer.protocols.output import markdown
from spatialwhisperer.statistics.intervals.uncertainty import over_units

if TYPE_CHECKING:
    from pathlib import Path

COLOURS = {
    "stain_texture": "#0072b2",
    "mean colour": "#e69f00",
    "ridge on stain_texture": "#0072b2",
    "darkness": "#999999",
    "total UMI (oracle)": "#cc79a7",
    "majority": "#999999",
}
OTHER = "#009e73"


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean over sections with a 95 % interval.

    The interval is over sections, or over animals where an animal was left out: sections of one animal are not independent
    (cluster-robust, Student's t). There is no interval where there are fewer than five of them.
    """
    out = []
    for (task, predictor, metric), part in rows.groupby(["task", "predictor", "metric"], sort=False):
        unit = "section" if "section left out" in str(task) or str(task).startswith("domains") else "animal"
        values = part["value"].to_numpy(float)
        low, high = np.nan, np.nan
        if part[unit].nunique() >= 5 and np.isfinite(values).all() and np.ptp(values) > 0:
            low, high = over_units(values, part[unit].to_numpy()).interval(float(np.mean(values)))
        out.append(
            {
                "task": task,
                "predictor": predictor,
                "metric": metric,
                "mean": np.mean(values),
                "low": low,
                "high": high,
                "sections": part["section"].nunique(),
                "over": unit,
            }
        )
    return pd.DataFrame(out)


def report(table: pd.DataFrame) -> str:
    """The summary as a Markdown table."""
    cells = [
        "–"
        if np.isnan(r["mean"])
        else f"{r['mean']:.3f}" + ("" if np.isnan(r["low"]) else f" ({r['low']:.3f} to {r['high']:.3f})")
        for _, r in table.iterrows()
    ]
    wide = table.assign(cell=cells).pivot(index=["task", "predictor"], columns="metric", values="cell")
    order = list(dict.fromkeys(zip(table["task"], table["predictor"], strict=True)))
    wide = wide.loc[order, list(dict.fromkeys(table["metric"]))].reset_index("predictor")
    return markdown(wide) + "\n"


def draw(rows: pd.DataFrame, path: Path) -> None:
    """Each section as a dot and their mean as a line, one panel per metric."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metrics = [m for m in ("macro AUROC", "ARI", "r HVG50") if (rows["metric"] == m).any()]
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    for ax, metric in zip(np.atleast_1d(figure.subplots(1, len(metrics))), metrics, strict=True):
        part = rows[(rows["metric"] == metric) & rows["value"].notna()]
        lines = list(dict.fromkeys(zip(part["task"], part["predictor"], strict=True)))
        for line, (task, predictor) in enumerate(lines):
            values = part.loc[(part["task"] == task) & (part["predictor"] == predictor), "value"]
            colour = COLOURS.get(str(predictor), OTHER)
            ax.scatter(values, [line] * len(values), s=16, color=colour, alpha=0.55, lw=0)
            ax.plot([values.mean()] * 2, [line - 0.32, line + 0.32], color=colour, lw=2.5)
        ax.set_yticks(
            range(len(lines)),
            [f"{task.replace('expression, animal left out', 'expression')}\n{name}" for task, name in lines],
            fontsize=7,
        )
        ax.invert_yaxis()
        ax.set_xlabel(metric)
        ax.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
