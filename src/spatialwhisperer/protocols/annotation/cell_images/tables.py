"""AUROC of cell types in tiles, by the published convention, and its tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer import _keys
from spatialwhisperer.protocols.output import markdown

if TYPE_CHECKING:
    from spatialwhisperer.protocols.annotation.label_sets import LabelSet

KEY = "cells"


def evaluate(scores: pd.DataFrame, counts: pd.DataFrame, images: pd.Series, labels: LabelSet) -> pd.DataFrame:
    """AUROC by image and reported class.

    Parameters
    ----------
    scores
        Tiles by prompted class.
    counts
        Nuclei in the tiles, by class of the data.
    images
        Image of each tile.
    labels
        What is grouped, dropped and reported.

    Returns
    -------
    DataFrame with ``image``, ``class``, ``auroc`` (NaN where undefined), ``n_present`` and ``n``.
    """
    import anndata as ad

    counts = counts[[c for c in counts if c not in labels.ignored]].reset_index(drop=True)
    dominant = np.array(counts.columns)[counts.to_numpy().argmax(axis=1)]
    kept = ~np.isin(dominant, labels.dropped)
    grouped = {name: scores[list(members)].sum(axis=1).to_numpy()[kept] for name, members in labels.groups.items()}
    present = {name: counts[list(members)].sum(axis=1).to_numpy()[kept] > 0 for name, members in labels.groups.items()}
    values = np.column_stack(list(grouped.values()))
    table = ad.AnnData(
        np.zeros((int(kept.sum()), 0), np.float32),
        obs=pd.DataFrame({"image": images.to_numpy()[kept]}).set_index(np.arange(kept.sum()).astype(str)),
    )
    table.obs[KEY] = pd.Categorical.from_codes(values.argmax(axis=1), categories=pd.Index(grouped))
    table.obsm[_keys.scores(KEY)] = values
    table.uns[KEY] = {"classes": np.array(list(grouped), dtype=str)}
    tidy = sw.tl.evaluate_annotation(table, pd.DataFrame(present), key=KEY, group_key="image", per_group=True)
    return tidy.rename(columns={"group": "image"})


def macro(table: pd.DataFrame) -> float:
    """Mean over images within a class, then over classes."""
    return float(table.groupby("class")["auroc"].mean().mean())


def report(table: pd.DataFrame, labels: LabelSet, about: str) -> str:
    """Markdown: macro AUROC beside the published ones, and AUROC by class."""
    names = list(dict.fromkeys(table["prompts"]))
    ours = {f"this model ({name})": macro(table[table["prompts"] == name]) for name in names}
    rows = pd.DataFrame(
        {"macro AUROC": [f"{v:.3f}" for v in [*ours.values(), *labels.published.values()]]},
        index=pd.Index([*ours, *labels.published], name=labels.title),
    )
    by_class = pd.DataFrame(
        {f"this model ({n})": table[table["prompts"] == n].groupby("class")["auroc"].mean() for n in names}
        | {k: pd.Series(v) for k, v in labels.published_by_class.items()}
    ).loc[list(labels.groups)]
    by_class["images"] = table[table["prompts"] == names[0]].groupby("class")["auroc"].count()
    formatted = by_class.map(lambda v: "–" if pd.isna(v) else f"{v:.3f}").assign(images=by_class["images"].astype(str))
    formatted.index.name = "class"
    notes = [f"{n}: {labels.prompts[n].source}. {labels.prompts[n].note}".strip() for n in names]
    return "\n\n".join(
        [
            "AUROC of presence of a class in a tile, within each image, undefined ones skipped; mean over images within a class, then over "
            f"classes. {about} Other rows: as published.",
            markdown(rows),
            "By class; `images` counts those in which it is defined.",
            markdown(formatted),
            "Prompts. " + " ".join(notes) + "\n",
        ]
    )
