"""Expression by ridge regression on any image encoders, in the manner of the HEST benchmark."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer._messages import inform, listing
from spatialwhisperer.protocols.benchmarks.expression import fold_rows
from spatialwhisperer.protocols.benchmarks.expression_table import report
from spatialwhisperer.protocols.benchmarks.folder.duplicates import find_duplicates
from spatialwhisperer.protocols.benchmarks.folder.folds import make_folds, read_splits, say, units_of
from spatialwhisperer.protocols.benchmarks.folder.materials import Materials
from spatialwhisperer.protocols.benchmarks.folder.reading import read_folder, with_pixels
from spatialwhisperer.protocols.benchmarks.folder.sections import FolderOptions, common_genes
from spatialwhisperer.protocols.benchmarks.genes import choose_genes, read_genes
from spatialwhisperer.protocols.output import write_text
from spatialwhisperer.tl.evaluation.genes import read_gene_sets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData

    from spatialwhisperer.datasets.folders.duplicates import Duplicate
    from spatialwhisperer.protocols.benchmarks.folder.folds import Fold, Split, Units
    from spatialwhisperer.protocols.benchmarks.folder.sections import BenchmarkSection
    from spatialwhisperer.protocols.benchmarks.genes import Rank

SMOKE_ROWS = 100


@dataclass(frozen=True)
class SplitOptions:
    """How sections are split.

    Attributes
    ----------
    split
        "patient", or "section" to measure sections of patients that also train.
    n_folds
        Number of folds; ``None`` leaves out each patient in turn, where there are at most ten.
    files
        Folder with folds that somebody made, instead.
    """

    split: Split = "patient"
    n_folds: int | None = None
    files: Path | None = None


@dataclass(frozen=True)
class GeneOptions:
    """Which genes are predicted.

    Attributes
    ----------
    genes
        JSON file with a list of genes, or with the list ``genes``, as the HEST benchmark has it; ``None`` chooses 50 in each fold.
    gene_sets
        GMT file of gene sets whose scores are compared.
    rank
        How the most variable genes are found; see :func:`~spatialwhisperer.protocols.benchmarks.genes.choose_genes`.
    """

    genes: Path | None = None
    gene_sets: Path | None = None
    rank: Rank = "dispersion"


def run(
    data: Path,
    out: Path,
    *,
    encoders: Sequence[str] = ("stain_texture",),
    folder: FolderOptions = FolderOptions(),
    splits: SplitOptions = SplitOptions(),
    genes: GeneOptions = GeneOptions(),
    smoke: bool = False,
) -> pd.DataFrame:
    """Measure every encoder and write ``hest_bench.csv`` and ``hest_bench.md``.

    Parameters
    ----------
    data
        Folder in the layout of HEST or of her2st.
    out
        Folder of the results, and of features that are kept.
    encoders
        Names of image encoders; see :func:`spatialwhisperer.models.list_encoders`.
    folder, splits, genes
        Which sections and rows are read, how they are split, and which genes are predicted.
    smoke
        Use one fold and few rows, to show that everything runs.

    Returns
    -------
    One row per fold, section, encoder, predictor and metric. Section "all" is the correlation over all rows of a fold at once.

    Raises
    ------
    FileNotFoundError, ValueError
        If files are missing or damaged, an encoder is not known, there is one patient only, or a fold leaks.
    """
    for name in encoders:
        sw.models.get_spec(name, "image")
    given = read_genes(genes.genes)
    sets = read_gene_sets(genes.gene_sets) if genes.gene_sets is not None else {}
    folder = replace(folder, rows=SMOKE_ROWS) if smoke else folder
    sections = with_pixels(read_folder(data, folder))
    duplicates = find_duplicates(sections)
    folds = folds_of(sections, splits, duplicates)
    say(folds, duplicates)
    sections = on_common_genes(sections, given)
    table = measured(
        sections,
        folds[:1] if smoke else folds,
        units_of(sections, splits.split, duplicates),
        Materials(out / "cache"),
        encoders,
        rank=genes.rank,
        given=given,
        sets=sets,
    )
    write_text(out / "hest_bench.csv", table.to_csv(index=False))
    text = report(table, split=splits.split, sections=sections, duplicates=duplicates, rows=folder.rows)
    write_text(out / "hest_bench.md", text)
    print(text)
    return table


def folds_of(sections: Sequence[BenchmarkSection], splits: SplitOptions, duplicates: Sequence[Duplicate]) -> list[Fold]:
    """Folds that are made, or that somebody made; none leaks."""
    if splits.files is not None:
        return read_splits(splits.files, sections, split=splits.split, duplicates=duplicates)
    return make_folds(sections, split=splits.split, n_folds=splits.n_folds, duplicates=duplicates)


def measured(
    sections: Sequence[BenchmarkSection],
    folds: Sequence[Fold],
    units: Units,
    materials: Materials,
    encoders: Sequence[str],
    *,
    rank: Rank = "dispersion",
    given: Sequence[str] = (),
    sets: Mapping[str, Sequence[str]] | None = None,
) -> pd.DataFrame:
    """Every predictor on every fold."""
    by_name = {s.name: s for s in sections}
    used = [by_name[n] for n in by_name if any(n in (*f.train, *f.test) for f in folds)]
    for section in used:
        materials.add_darkness(section)
    keys = {name: {materials.add_features(s, name) for s in used}.pop() for name in encoders}
    frames = []
    for fold in folds:
        inform(f"fold {fold.name}: {len(fold.train)} sections train, {len(fold.test)} are measured")
        train, test = ([by_name[n] for n in names] for names in (fold.train, fold.test))
        chosen = choose_genes([s.table for s in train], rank=rank, given=given, sets=sets)
        rows = fold_rows(train, test, units, chosen, keys)
        frames.append(rows.assign(fold=fold.name, n_genes=len(chosen.benchmark)))
    return pd.concat(frames, ignore_index=True)


def on_common_genes(sections: Sequence[BenchmarkSection], given: Sequence[str] = ()) -> list[BenchmarkSection]:
    """The sections with the genes that all of them have, in one order.

    Raises
    ------
    ValueError
        If none is common, or a gene that is asked for is not.
    """
    genes = common_genes(sections)
    shared = set(genes)
    if not genes:
        raise ValueError("No gene is in all sections. Leave out those of other panels, by --sections or --where.")
    if absent := [g for g in given if g not in shared]:
        raise ValueError(f"Genes that were asked for are not in all sections: {listing(absent)}.")
    return [replace(s, table=_with_genes(s.table, genes)) for s in sections]


def _with_genes(table: AnnData, genes: Sequence[str]) -> AnnData:
    return table[:, list(genes)].copy()
