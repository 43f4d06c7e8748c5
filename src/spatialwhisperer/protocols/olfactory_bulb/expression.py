"""Expression of 1,000 genes from the image: leave one animal out among the four sections with counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer.protocols.her2st import measures
from spatialwhisperer.protocols.her2st.frozen_features import choose_genes, predict
from spatialwhisperer.protocols.olfactory_bulb.materials import TEXTURE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

PRESET = "bleep"
LISTS = ("HEG50", "HVG50")
METRICS = {"pearson": "r", "mse": "MSE"}


def expression_rows(tables: Sequence[AnnData], animal: str, *, seed: int, smoke: bool) -> pd.DataFrame:
    """Pearson correlation of both gene lists in the sections of an animal, by what the other animal's sections show."""
    test = [t for t in tables if str(t.obs["patient"].iloc[0]) == animal]
    train = [t for t in tables if str(t.obs["patient"].iloc[0]) != animal]
    preset = sw.models.get_preset(PRESET)
    genes = choose_genes(preset, "strict", train, test)
    model = sw.tl.train(
        train,
        preset=preset,
        image=sw.tl.ImageFeatures(key=TEXTURE),
        expression=sw.tl.ExpressionOptions(genes=genes, cross_validate=False),
        max_epochs=2 if smoke else None,
        random_state=seed,
    )
    parts = []
    for table in test:
        ridge = sw.tl.predict_expression(table, model=model, method="regression", inplace=False)
        if ridge is None:
            raise TypeError("predict_expression(inplace=False) returns the prediction.")
        for name, predicted in ((f"{PRESET}, retrieval", predict(table, model)), ("ridge on stain_texture", ridge)):
            found = measures.expression_rows(
                table, predicted, train, layer=None, lists_from="training", baselines=name.startswith("ridge")
            )
            parts.append(found.replace({"predictor": {"prediction": name}}))
    rows = pd.concat(parts, ignore_index=True)
    rows = rows[rows["metric"].isin(METRICS) & rows["gene_list"].isin(LISTS)]
    metric = rows["metric"].map(METRICS) + " " + rows["gene_list"].astype(str)
    rows = rows.assign(animal=animal, task="expression, animal left out", metric=metric)
    return rows[["section", "animal", "task", "predictor", "metric", "value"]]
