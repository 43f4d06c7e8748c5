"""A preset whose image network is trained end to end, as in the papers: on a GPU, or on few spots to show that it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer.protocols.her2st import measures
from spatialwhisperer.protocols.her2st.folds import TILE_UM, with_rows
from spatialwhisperer.protocols.her2st.frozen_features import EMBEDDING, choose_genes, comparable, predict

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from spatialwhisperer.models import GeneEncoder, Preset
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
    preset = comparable(task)
    train = [_section(materials, name, options.spots) for name in task.fold.train]
    test = [_section(materials, name, None) for name in task.fold.test]
    tables = [s["table"] for s in train], [s["table"] for s in test]
    model = sw.tl.train(
        train,
        preset=_changed(preset, options),
        image=sw.tl.ImageFeatures(
            task.features.removeprefix(TRAINED),
            tile_um=TILE_UM,
            tile_px=min(224, round(TILE_UM / task.fold.mpp)),
            pretrained=options.pretrained,
        ),
        gene=_gene_encoder(preset, materials, task),
        expression=sw.tl.ExpressionOptions(genes=choose_genes(preset, "strict", *tables)),
        max_epochs=options.epochs,
        random_state=task.seed,
    )
    predicted = [predict(s, model) for s in test]
    parts: list[pd.DataFrame] = []
    for table, prediction in zip(tables[1], predicted, strict=True):
        parts.append(measures.expression_rows(table, prediction, tables[0], layer=None, lists_from="training"))
        parts.append(measures.domain_rows(table, prediction))
    for section in (*train, *test):
        sw.tl.embed(section, model=model, modality="image", key_added=EMBEDDING)
    return pd.concat([*parts, measures.class_rows(*tables, EMBEDDING)], ignore_index=True)


def _changed(preset: Preset, options: NetworkOptions) -> Preset:
    """The preset with an image encoder that is trained."""
    changes: dict[str, Any] = {"pairs": [("image", "gene")], "locking": "LLU" if options.pretrained else "LLu"}
    if options.batch_size is not None:
        changes["batch_size"] = options.batch_size
    return preset.replace(**changes)


def _gene_encoder(preset: Preset, materials: Materials, task: Task) -> GeneEncoder | None:
    if preset.gene_encoder in ("scvi", "scanvi"):
        return materials.gene_encoder(preset.gene_encoder, task.fold)
    return None


def _section(materials: Materials, name: str, spots: int | None) -> SpatialData:
    """A section with its image, with all spots or with some at even distances in the table."""
    section = sw.datasets.her2st(name, data_dir=materials.data)
    n = section["table"].n_obs
    if spots is None or spots >= n:
        return section
    return with_rows(section, np.unique(np.linspace(0, n - 1, spots).astype(int)))
