"""Retrieval between images and expression in patients that were left out, in the manner of HESCAPE."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer._access.table.counts import counts_matrix
from spatialwhisperer._messages import inform
from spatialwhisperer.protocols.benchmarks.expression_run import SMOKE_ROWS, SplitOptions, folds_of, on_common_genes
from spatialwhisperer.protocols.benchmarks.folder.duplicates import find_duplicates
from spatialwhisperer.protocols.benchmarks.folder.folds import say, units_of
from spatialwhisperer.protocols.benchmarks.folder.materials import Materials
from spatialwhisperer.protocols.benchmarks.folder.reading import read_folder, with_pixels
from spatialwhisperer.protocols.benchmarks.folder.sections import FolderOptions
from spatialwhisperer.protocols.benchmarks.retrieval_table import report
from spatialwhisperer.protocols.output import write_text
from spatialwhisperer.tl.evaluation.baselines import DARKNESS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData

    from spatialwhisperer.protocols.benchmarks.folder.folds import Fold
    from spatialwhisperer.protocols.benchmarks.folder.sections import BenchmarkSection

FLOOR = "darkness and total count"
"""What one number from each modality finds: rows are matched by its rank within the section."""

_FLOOR_KEYS = ("X_floor_image", "X_floor_gene")
_SMOKE_EPOCHS = 2


@dataclass(frozen=True)
class Towers:
    """What is combined: every preset with every image encoder and every gene encoder.

    Attributes
    ----------
    presets, image_encoders
        Names.
    gene_encoders
        Names; none takes that of each preset.
    """

    presets: tuple[str, ...] = ("whisperer",)
    image_encoders: tuple[str, ...] = ("stain_texture",)
    gene_encoders: tuple[str, ...] = ()


class Combination(NamedTuple):
    """One model to train."""

    preset: str
    image: str
    gene: str
    seed: int


def run(
    data: Path,
    out: Path,
    *,
    towers: Towers = Towers(),
    folder: FolderOptions = FolderOptions(),
    splits: SplitOptions = SplitOptions(),
    n_seeds: int = 1,
    max_epochs: int | None = None,
    smoke: bool = False,
) -> pd.DataFrame:
    """Train every combination on each fold, and write ``retrieval.csv`` and ``retrieval.md``.

    Parameters
    ----------
    data
        Folder in the layout of HEST or of her2st.
    out
        Folder of the results, and of features that are kept.
    towers
        Presets and encoders.
    folder, splits
        Which sections and rows are read, and how they are split.
    n_seeds
        Training runs of each fold.
    max_epochs
        Epochs; ``None`` takes those of the preset.
    smoke
        Use one fold, few rows and two epochs, to show that everything runs.

    Returns
    -------
    One row per fold, preset, encoders, seed, direction and candidates, with the columns of
    :func:`~spatialwhisperer.tl.evaluate_retrieval`.

    Raises
    ------
    FileNotFoundError, ValueError
        If files are missing or damaged, a name is not known, there is one patient only, or a fold leaks.
    """
    _check(towers, n_seeds)
    folder = replace(folder, rows=SMOKE_ROWS) if smoke else folder
    sections = with_pixels(read_folder(data, folder))
    duplicates = find_duplicates(sections)
    folds = folds_of(sections, splits, duplicates)
    say(folds, duplicates)
    sections = on_common_genes(sections)
    unit = units_of(sections, splits.split, duplicates).left_out
    combinations = [c for seed in range(1 if smoke else n_seeds) for c in _combined(towers, seed)]
    materials = Materials(out / "cache")
    frames = [
        frame
        for fold in (folds[:1] if smoke else folds)
        for frame in _fold(fold, sections, unit, materials, combinations, _SMOKE_EPOCHS if smoke else max_epochs)
    ]
    table = pd.concat(frames, ignore_index=True)
    write_text(out / "retrieval.csv", table.to_csv(index=False))
    text = report(table, split=splits.split, sections=sections, duplicates=duplicates, rows=folder.rows)
    write_text(out / "retrieval.md", text)
    print(text)
    return table


def _check(towers: Towers, n_seeds: int) -> None:
    if n_seeds < 1:
        raise ValueError(f"--seeds must be at least 1, not {n_seeds}.")
    for name in towers.presets:
        sw.models.get_preset(name)
    for modality, names in (("image", towers.image_encoders), ("gene", towers.gene_encoders)):
        for name in names:
            sw.models.get_spec(name, modality)


def _combined(towers: Towers, seed: int) -> list[Combination]:
    return [
        Combination(preset, image, gene, seed)
        for preset, image in product(towers.presets, towers.image_encoders)
        for gene in towers.gene_encoders or (str(sw.models.get_preset(preset).gene_encoder),)
    ]


def _fold(
    fold: Fold,
    sections: Sequence[BenchmarkSection],
    unit: Mapping[str, str],
    materials: Materials,
    combinations: Sequence[Combination],
    max_epochs: int | None,
) -> Iterator[pd.DataFrame]:
    """Recall of each combination on the rows of a fold, and that of the floor."""
    by_name = {s.name: s for s in sections}
    for name in (*fold.train, *fold.test):
        materials.add_darkness(by_name[name])
        for encoder in dict.fromkeys(c.image for c in combinations):
            materials.add_features(by_name[name], encoder)
    for c in combinations:
        inform(f"fold {fold.name}: {c.preset}, {c.image}, {c.gene}, seed {c.seed}")
        train, test = ([_for_training(by_name[n].table, unit[n]) for n in names] for names in (fold.train, fold.test))
        yield recall(train, test, c, max_epochs).assign(fold=fold.name, **c._asdict())
    test = [by_name[n].table.copy() for n in fold.test]
    yield floor(test).assign(fold=fold.name, preset=FLOOR, image="", gene="", seed=0)


def _for_training(table: AnnData, unit: str) -> AnnData:
    """A copy whose patient is the unit that is left out as a whole, duplicates included."""
    out = table.copy()
    out.obs["patient"] = unit
    return out


def recall(
    train: Sequence[AnnData], test: Sequence[AnnData], combination: Combination, max_epochs: int | None
) -> pd.DataFrame:
    """Train on some sections, embed others, and measure retrieval among the rows of each of them."""
    preset = sw.models.get_preset(combination.preset).replace(pairs=[("image", "gene")], locking="LLL")
    model = sw.tl.train(
        list(train),
        preset=preset,
        image=sw.tl.ImageFeatures(key=f"X_{combination.image}"),
        gene=combination.gene,
        # it reads the genes that a model predicts, and so needs to know them
        expression=sw.tl.ExpressionOptions(cross_validate=False) if combination.gene == "identity" else False,
        max_epochs=max_epochs,
        random_state=combination.seed,
    )
    for table in test:
        for modality in ("image", "gene"):
            sw.tl.embed(table, model=model, modality=modality)
    return _measured(test)


def floor(test: Sequence[AnnData]) -> pd.DataFrame:
    """Retrieval by one number from each modality: tissue darkness, and the total count of a row."""
    for table in test:
        totals = np.asarray(counts_matrix(table).sum(axis=1)).ravel()
        for key, values in zip(_FLOOR_KEYS, (np.asarray(table.obs[DARKNESS], np.float64), totals), strict=True):
            table.obsm[key] = on_arc(values)
    return _measured(test, *_FLOOR_KEYS)


def on_arc(values: np.ndarray) -> np.ndarray:
    """Points on a quarter of the unit circle by the rank of each value, so that cosine similarity falls with the difference of ranks.

    NaN stays NaN; shape (n, 2).
    """
    rank = pd.Series(values).rank(pct=True).to_numpy()
    return np.stack([np.cos(np.pi / 2 * rank), np.sin(np.pi / 2 * rank)], axis=1)


def _measured(test: Sequence[AnnData], *keys: str) -> pd.DataFrame:
    named = dict(zip(("image", "gene"), keys, strict=False))
    return sw.tl.evaluate_retrieval(list(test), group_key="section", **named).reset_index()
