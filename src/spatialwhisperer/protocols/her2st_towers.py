"""A preset with its image network trained end to end, as the papers do; on a GPU, or on few spots to show that it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer.protocols.her2st_data import TILE_UM
from spatialwhisperer.protocols.her2st_fold import choose_genes, class_rows, domain_rows, expression_rows

if TYPE_CHECKING:
    from spatialwhisperer.protocols.her2st_data import Materials
    from spatialwhisperer.protocols.her2st_fold import Task

TRAINED = "trained:"
"""Prefix of the features that says: the timm model of this name is trained."""


@dataclass(frozen=True)
class TowerOptions:
    """How much is trained: epochs (``None``: the preset's), spots of each section (``None``: all), and from which weights."""

    epochs: int | None = None
    spots: int | None = None
    pretrained: bool = False
    batch_size: int | None = None


def run_trained(task: Task, materials: Materials, options: TowerOptions) -> pd.DataFrame:
    """Tidy rows as of a preset on frozen features."""
    preset = sw.models.get_preset(task.preset, task.protocol)
    train = [_section(materials, name, options.spots) for name in task.fold.train]
    test = [_section(materials, name, None) for name in task.fold.test]
    tables = [s["table"] for s in train], [s["table"] for s in test]
    genes = choose_genes(preset, "strict", *tables)
    px = min(224, round(TILE_UM / task.fold.mpp))
    model = sw.tl.train(
        train,
        preset=preset,
        pairs=[("image", "gene")],
        image_encoder=task.features.removeprefix(TRAINED),
        locking="LLU" if options.pretrained else "LLu",
        pretrained=options.pretrained,
        tile_um=TILE_UM,
        tile_px=px,
        genes=genes,
        expression=True,
        max_epochs=options.epochs,
        batch_size=options.batch_size,
        random_state=task.seed,
        **_gene_side(preset, materials, task),
    )
    k = model.expression.retrieval.k
    k = k and min(k, model.expression.values.shape[0])
    predicted = [sw.tl.predict_expression(s, model=model, k=k, inplace=False) for s in test]
    parts: list[pd.DataFrame] = []
    for section, prediction in zip(test, predicted, strict=True):
        table = section["table"]
        parts.append(expression_rows(table, prediction, tables[0], layer=None, lists_from="training", baselines=False))
        parts.append(domain_rows(table, prediction))
    for section in (*train, *test):
        sw.tl.embed(section, model=model, modality="image", key_added="X_benchmark")
    return pd.concat([*parts, class_rows(*tables, "X_benchmark")], ignore_index=True)


def _gene_side(preset: Any, materials: Materials, task: Task) -> dict[str, Any]:
    if preset.gene_encoder in ("scvi", "scanvi"):
        return {"gene_encoder": materials.gene_encoder(preset.gene_encoder, task.fold)}
    return {}


def _section(materials: Materials, name: str, spots: int | None) -> Any:
    """A section with its image, its spots thinned out evenly."""
    import spatialdata as sd

    sdata = sw.datasets.her2st(name, data_dir=materials.data)
    if spots is None or spots >= sdata["table"].n_obs:
        return sdata
    keep = np.unique(np.linspace(0, sdata["table"].n_obs - 1, spots).astype(int))
    return sd.SpatialData(
        images=dict(sdata.images), shapes=dict(sdata.shapes), tables={"table": sdata["table"][keep].copy()}
    )
