"""Captions, prompts and ground truth for the labels of the HER2-positive breast sections and of the breast reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from anndata import AnnData

REGIONS = {
    "invasive cancer": "invasive breast carcinoma",
    "cancer in situ": "ductal carcinoma in situ of the breast",
    "connective tissue": "fibrous connective tissue stroma",
    "adipose tissue": "adipose tissue with fat cells",
    "immune infiltrate": "dense lymphocytic immune infiltrate",
    "breast glands": "normal breast glands and ducts",
}
"""Caption of each of the pathologist's regions; "undetermined" has none."""

CELLS = {
    "B-cells": "B lymphocytes",
    "CAFs": "cancer-associated fibroblasts in the tumour stroma",
    "Endothelial": "endothelial cells of blood and lymphatic vessels",
    "Epithelial": "epithelial cells, mostly breast carcinoma cells",
    "Myeloid": "myeloid cells: macrophages, monocytes and dendritic cells",
    "PVL": "perivascular cells: pericytes and vascular smooth muscle",
    "Plasma Cells": "plasma cells that secrete antibodies",
    "T-cells": "T lymphocytes",
}
"""Caption of each cell type of the deconvolution."""

REFERENCE = {
    "B-cells": CELLS["B-cells"],
    "CAFs": CELLS["CAFs"],
    "Cancer Epithelial": "malignant breast epithelial cells",
    "Endothelial": CELLS["Endothelial"],
    "Myeloid": CELLS["Myeloid"],
    "Normal Epithelial": "normal mammary epithelial cells",
    "PVL": CELLS["PVL"],
    "Plasmablasts": CELLS["Plasma Cells"],
    "T-cells": CELLS["T-cells"],
}
"""Caption of each cell type of the single-cell reference."""

_CLUSTER_WORDS = {
    "apc": "antigen-presenting cells",
    "b-cell": "B lymphocytes",
    "t-cell": "T lymphocytes",
    "b/plasma cells": "B cells and plasma cells",
    "plasma cells": "plasma cells",
    "macrophage": "macrophages",
    "macrophages": "macrophages",
    "myeloid": "myeloid cells",
    "endothelium": "endothelium",
    "innate": "innate immune cells",
    "immune rich": "many immune cells",
    "connective tissue": "connective tissue",
}

TARGETS = {
    "tumour": [REGIONS["invasive cancer"], REGIONS["cancer in situ"]],
    "connective": [REGIONS["connective tissue"]],
    "adipose": [REGIONS["adipose tissue"]],
    "immune": [REGIONS["immune infiltrate"]],
    "glands": [REGIONS["breast glands"]],
    **{name: [text] for name, text in CELLS.items()},
}
"""Classes that are scored, each with the descriptions that prompt it."""

REGION_TARGETS = {
    "invasive cancer": "tumour",
    "cancer in situ": "tumour",
    "connective tissue": "connective",
    "adipose tissue": "adipose",
    "immune infiltrate": "immune",
    "breast glands": "glands",
}
"""Class of each of the pathologist's regions."""

MIN_ROWS = 5
"""A region is scored in a section that has at least so many spots of it, and so many labelled spots of other regions."""

PRESENT = 0.75
"""A cell type counts as present in the spots whose proportion of it lies above this quantile of the section."""

CAPTION_COLUMNS = ("caption_region", "caption_cluster", "caption_cells")
"""One caption per spot from each source; of the deconvolution it is that of the cell type with the largest proportion."""

_TYPE_COLUMNS = tuple(f"caption_type_{number}" for number in range(len(CELLS)))
SEVERAL_COLUMNS = ("caption_region", "caption_reference", *_TYPE_COLUMNS)
"""The region, and a caption for every cell type that is present."""


def caption_cluster(annotation: object) -> str | None:
    """Caption of the annotation of an expression cluster; ``None`` for an unknown one."""
    if not isinstance(annotation, str) or annotation == "unknown":
        return None
    head, _, tail = annotation.rstrip(" 0123456789").partition(" : ")
    region = {"cancer": "breast carcinoma", "immune": "immune cells"}.get(
        head, REGIONS.get(head, REGIONS.get(f"{head} tissue", head))
    )
    words = [_CLUSTER_WORDS.get(w.strip().lower(), w.strip()) for w in tail.split(",") if w.strip()]
    return f"{region} with {' and '.join(words)}" if words else region


def add_captions(table: AnnData) -> None:
    """Write the columns of `CAPTION_COLUMNS` and `SEVERAL_COLUMNS` to the ``.obs`` of a table of spots."""
    obs = table.obs
    obs["caption_region"] = obs["pathologist_label"].astype(object).map(REGIONS)
    obs["caption_cluster"] = obs["cluster_annotation"].astype(object).map(caption_cluster)
    obs["caption_cells"] = obs["deconv_major_top"].astype(object).map(CELLS)
    proportions, sections = _proportions(table), obs["section"].astype(str).to_numpy()
    for column, (name, caption) in zip(_TYPE_COLUMNS, CELLS.items(), strict=True):
        present = proportions[name] > proportions[name].groupby(sections).transform("quantile", PRESENT)
        obs[column] = np.array([caption if p else None for p in present], dtype=object)


def add_reference_captions(cells: AnnData) -> None:
    """Write the caption columns to the ``.obs`` of the single-cell reference."""
    for column in ("caption_cells", "caption_reference"):
        cells.obs[column] = cells.obs["celltype_major"].astype(object).map(REFERENCE)


def _proportions(table: AnnData) -> pd.DataFrame:
    """Proportions of the deconvolution, one column per cell type."""
    return pd.DataFrame(table.obsm["deconv_major"], columns=list(table.uns["deconv_major"]["classes"]))


def targets(table: AnnData) -> pd.DataFrame:
    """Ground truth: whether each class is present in each spot.

    Regions are those of the pathologist. A cell type is present in the quarter of the spots with the highest proportions of it.

    Parameters
    ----------
    table
        Spots of one section.

    Returns
    -------
    Nullable Boolean columns, one row per spot. Regions are ``<NA>`` in spots that the pathologist did not label. A region is left
    out where fewer than `MIN_ROWS` spots have it, or fewer labelled spots do not.
    """
    region = table.obs["pathologist_label"].astype(object).map(REGION_TARGETS)
    labelled = table.obs["pathologist_label"].notna().to_numpy()
    out = {}
    for name in dict.fromkeys(REGION_TARGETS.values()):
        present = (region == name).to_numpy()
        if min(present.sum(), (labelled & ~present).sum()) >= MIN_ROWS:
            out[name] = pd.array(present, dtype="boolean")
            out[name][~labelled] = pd.NA
    proportions = _proportions(table)
    for name in CELLS:
        above = proportions[name] > proportions[name].quantile(PRESENT)
        out[name] = pd.array(above.to_numpy(), dtype="boolean")
    return pd.DataFrame(out)
