"""A preset whose image network is trained end to end, as in the papers: on a GPU, or on few spots to show that it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer.protocols.her2st import measures
from spatialwhisperer.protocols.her2st.folds import with_rows
from spatialwhisperer.protocols.her2st.frozen_features import EMBEDDING, choose_genes, comparable, predict

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from spatialwhisperer.models import GeneEncoder, Preset, Whisperer
    from spatialwhisperer.protocols.her2st.folds import Materials
    from spatialwhisperer.protocols.her2st.frozen_features import Task

TRAINED = "trained:"
"""Features of this prefix are a timm model that is trained."""


@dataclass(frozen=True)
class NetworkOptions:
    """How much is trained.

    Attributes
    ----------
    epochs
        Epochs; ``None`` takes those of the preset.
    spots
        Spots of each training section; ``None`` takes all.
    pretrained
        Start from the published weights.
    batch_size
        Pairs in a step; ``None`` takes that of the preset.
    """

    epochs: int | None = None
    spots: int | None = None
    pretrained: bool = False
    batch_size: int | None = None


def run_trained(task: Task, materials: Materials, options: NetworkOptions) -> pd.DataFrame:
    """Run a task; the rows are as for frozen features."""
    model, train, test = train_network(task, materials, options, genes="strict")
    tables = [s["table"] for s in train], [s["table"] for s in test]
    predicted = [predict(s, model) for s in test]
    parts: list[pd.DataFrame] = []
    for table, prediction in zip(tables[1], predicted, strict=True):
        parts.append(measures.expression_rows(table, prediction, tables[0], layer=None, lists_from="training"))
        parts.append(measures.domain_rows(table, prediction))
    for section in (*train, *test):
        sw.tl.embed(section, model=model, modality="image", key_added=EMBEDDING)
    return pd.concat([*parts, measures.class_rows(*tables, EMBEDDING)], ignore_index=True)


def train_network(
    task: Task, materials: Materials, options: NetworkOptions, *, genes: str
) -> tuple[Whisperer, list[SpatialData], list[SpatialData]]:
    """Train the image network of a preset with its heads.

    Parameters
    ----------
    task, materials, options
        What is run, what it uses, and how much is trained.
    genes
        Protocol by which the genes are chosen.

    Returns
    -------
    The model, training sections, and test sections.
    """
    preset = comparable(task)
    train = [_spread(materials.section(name), options.spots) for name in task.fold.train]
    test = [materials.section(name) for name in task.fold.test]
    tables = [s["table"] for s in train], [s["table"] for s in test]
    model = sw.tl.train(
        train,
        preset=_changed(preset, options),
        image=sw.tl.ImageFeatures(
            task.features.removeprefix(TRAINED),
            tile_um=materials.tile_um,
            tile_px=min(224, round(materials.tile_um / task.fold.mpp)),
            pretrained=options.pretrained,
        ),
        gene=_gene_encoder(preset, materials, task),
        expression=sw.tl.ExpressionOptions(genes=choose_genes(preset, genes, *tables)),
        max_epochs=options.epochs,
        random_state=task.seed,
    )
    return model, train, test


def _changed(preset: Preset, options: NetworkOptions) -> Preset:
    """The preset with an image encoder that is trained."""
    changes: dict[str, Any] = {"pairs": [("image", "gene")], "locking": "LLU" if options.pretrained else "LLu"}
    if options.batch_size is not None:
        changes["batch_size"] = options.batch_size
    return preset.replace(**changes)


def _gene_encoder(preset: Preset, materials: Materials, task: Task) -> GeneEncoder | None:
    if preset.gene_encoder in ("scvi", "scanvi"):
        likelihood = preset.gene_options.get("gene_likelihood")
        return materials.gene_encoder(preset.gene_encoder, task.fold, likelihood)
    return None


def _spread(section: SpatialData, spots: int | None) -> SpatialData:
    """The section with all spots, or with some at even distances in the table."""
    n = section["table"].n_obs
    if spots is None or spots >= n:
        return section
    return with_rows(section, np.unique(np.linspace(0, n - 1, spots).astype(int)))
