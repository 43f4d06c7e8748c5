"""The card of a folder of sections: what it holds, how it may be split, and what figures on it can mean."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

import spatialwhisperer as sw
from spatialwhisperer._access.table.counts import counts_matrix
from spatialwhisperer._messages import inform
from spatialwhisperer.datasets.folders import duplicates as twins
from spatialwhisperer.datasets.folders.metadata import NOT_STATED
from spatialwhisperer.protocols.benchmarks.card_text import card_text
from spatialwhisperer.protocols.benchmarks.expression import gene_reliability
from spatialwhisperer.protocols.benchmarks.expression_run import (
    SMOKE_ROWS,
    SplitOptions,
    folds_of,
    measured,
    on_common_genes,
)
from spatialwhisperer.protocols.benchmarks.expression_table import by_fold
from spatialwhisperer.protocols.benchmarks.folder.duplicates import find_duplicates
from spatialwhisperer.protocols.benchmarks.folder.folds import units_of
from spatialwhisperer.protocols.benchmarks.folder.materials import Materials
from spatialwhisperer.protocols.benchmarks.folder.reading import layout_of, read_folder
from spatialwhisperer.protocols.benchmarks.folder.sections import FolderOptions
from spatialwhisperer.protocols.benchmarks.genes import choose_genes
from spatialwhisperer.protocols.output import write_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from spatialwhisperer.protocols.benchmarks.folder.sections import BenchmarkSection

CEILING_FORMULA = (
    "Counts are split binomially into halves, every molecule with probability 1/2. r is the correlation over the rows of a section of a "
    "gene in the two halves, each as ln(1 + counts per 10,000). Reliability = 2 r / (1 + r), 0 for r below 0 (Spearman and Brown); "
    "the ceiling of a prediction's correlation is its square root, a little too low for genes with few counts."
)


def run(
    data: Path,
    out: Path,
    *,
    encoder: str = "stain_texture",
    folder: FolderOptions = FolderOptions(),
    splits: SplitOptions = SplitOptions(),
    smoke: bool = False,
) -> dict[str, Any]:
    """Write ``card.json`` and ``card.md``.

    Parameters
    ----------
    data
        Folder in the layout of HEST or of her2st.
    out
        Folder of the card, and of features that are kept.
    encoder
        Image encoder of the ridge regression among the floors.
    folder, splits
        Which sections and rows are read, and how they are split.
    smoke
        Use one fold and few rows, to show that everything runs.

    Returns
    -------
    The card.

    Raises
    ------
    FileNotFoundError, ValueError
        If files are missing or damaged, or folds that somebody made leak.
    """
    sw.models.get_spec(encoder, "image")
    layout = layout_of(data)
    folder = replace(folder, rows=SMOKE_ROWS) if smoke else folder
    sections = read_folder(data, folder)
    found = find_duplicates(sections)
    shared = on_common_genes(sections)
    card: dict[str, Any] = {
        "layout": layout,
        "rows_per_section": folder.rows,
        "n_sections": len(sections),
        "n_patients": len({s.patient for s in sections}),
        "n_rows": sum(s.table.n_obs for s in sections),
        "n_common_genes": shared[0].table.n_vars,
        "patients": _patients(sections),
        "patient_not_stated": [s.name for s in sections if s.patient.startswith(NOT_STATED)],
        "sections": [section_facts(s) for s in sections],
        "duplicates": {"pairs": [asdict(pair) for pair in found], "convention": twins.CONVENTION},
        "noise_ceiling": noise_ceiling(shared),
        "splits": _splits(sections, splits, found),
    }
    card["floors"] = _floors(shared, splits, found, Materials(out / "cache"), encoder, smoke=smoke)
    write_text(out / "card.json", json.dumps(card, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    text = card_text(card)
    write_text(out / "card.md", text)
    print(text)
    return card


def _patients(sections: Sequence[BenchmarkSection]) -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    for s in sections:
        out.setdefault(s.patient, []).append(s.name)
    return out


def section_facts(section: BenchmarkSection) -> dict[str, Any]:
    """Rows, genes, counts and scale of a section."""
    counts = counts_matrix(section.table)
    pixels = section.pixels
    return {
        "name": section.name,
        "patient": section.patient,
        **section.facts,
        "rows": section.table.n_obs,
        "rows_without_tile": section.without_tile,
        "genes_counted": int((counts.getnnz(axis=0) > 0).sum()),
        "median_total_count": float(np.median(np.asarray(counts.sum(axis=1)))),
        "um_per_px": section.mpp,
        "measured_pitch_um": None if section.mpp is None or section.pitch is None else section.pitch * section.mpp,
        "tile": None if pixels is None else {"um": pixels.tile_um, "px": pixels.tile_px},
    }


def noise_ceiling(sections: Sequence[BenchmarkSection]) -> dict[str, Any]:
    """Reliability and ceiling of the 50 most variable genes, mean over genes, in each section."""
    genes = choose_genes([s.table for s in sections]).benchmark
    each = {}
    for s in sections:
        reliable = gene_reliability(s.table, genes)
        reliable = reliable[np.isfinite(reliable)]
        each[s.name] = {
            "reliability": float(reliable.mean()) if len(reliable) else None,
            "ceiling": float(np.sqrt(reliable).mean()) if len(reliable) else None,
            "n_genes": len(reliable),
        }
    known = [one["ceiling"] for one in each.values() if one["ceiling"] is not None]
    return {
        "formula": CEILING_FORMULA,
        "genes": f"the {len(genes)} most variable of all sections together",
        "mean_ceiling": float(np.mean(known)) if known else None,
        "sections": each,
    }


def _splits(
    sections: Sequence[BenchmarkSection], splits: SplitOptions, found: Sequence[twins.Duplicate]
) -> dict[str, Any]:
    """Folds, or why there are none."""
    try:
        folds = folds_of(sections, splits, found)
    except ValueError as error:
        if splits.files is not None:
            raise
        return {"left_out": splits.split, "folds": [], "refused": str(error)}
    return {"left_out": splits.split, "folds": [asdict(fold) for fold in folds], "refused": None}


def _floors(
    sections: Sequence[BenchmarkSection],
    splits: SplitOptions,
    found: Sequence[twins.Duplicate],
    materials: Materials,
    encoder: str,
    *,
    smoke: bool,
) -> dict[str, Any]:
    """Mean correlation of what every prediction is to be compared with, on the sections that have an image."""
    with_image = [s for s in sections if s.pixels is not None]
    names = {s.name for s in with_image}
    inside = [d for d in found if d.one in names and d.other in names]
    out: dict[str, Any] = {"encoder": encoder, "left_out": splits.split, "sections": sorted(names), "pearson": {}}
    try:
        if not with_image:
            raise ValueError("No section has an image.")
        folds = folds_of(with_image, splits, inside)
    except ValueError as error:
        return {**out, "refused": str(error)}
    inform(f"floors: {len(folds)} folds of {len(with_image)} sections with an image")
    rows = measured(
        with_image,
        folds[:1] if smoke else folds,
        units_of(with_image, splits.split, inside),
        materials,
        [encoder],
    )
    for predictor, own in rows[rows["section"] != "all"].groupby("predictor", sort=False):
        values = by_fold(own, "pearson")
        out["pearson"][str(predictor)] = float(values.mean()) if len(values) else None
    return {**out, "refused": None}
