"""One preset on one fold of a row: train it, and measure what the row reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer.protocols.her2st import measures
from spatialwhisperer.protocols.her2st.frozen_features import (
    EMBEDDING,
    Sections,
    comparable,
    lists_origin,
    predict,
    train_heads,
)
from spatialwhisperer.protocols.her2st.trained_networks import TRAINED, train_network
from spatialwhisperer.protocols.papers.rows import MARKERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer.models import Whisperer
    from spatialwhisperer.protocols.her2st.folds import Materials
    from spatialwhisperer.protocols.her2st.frozen_features import Task
    from spatialwhisperer.protocols.her2st.trained_networks import NetworkOptions
    from spatialwhisperer.protocols.papers.rows import Row

PROTOCOL = "peer"


def measure(row: Row, task: Task, materials: Materials, networks: NetworkOptions) -> pd.DataFrame:
    """Train a preset and measure it.

    Parameters
    ----------
    row
        What is reported.
    task
        Preset, fold, image features and seed.
    materials
        Sections and their features.
    networks
        How much is trained; of frozen features the epochs alone count.

    Returns
    -------
    One row per section, predictor, gene list and metric, with the ``value``.
    """
    if task.features.startswith(TRAINED):
        model, train, test = train_network(task, materials, networks, genes=task.protocol)
        sections = Sections([s["table"] for s in train], [s["table"] for s in test])
        seen: Sequence[AnnData | SpatialData] = test
        embedded: Sequence[AnnData | SpatialData] = [*train, *test]
    else:
        fold = task.fold
        sections = Sections([materials.table(n) for n in fold.train], [materials.table(n) for n in fold.test])
        (key,) = {materials.features(n, task.features, fold.mpp, scales=False) for n in (*fold.train, *fold.test)}
        model, sections = train_heads(task, materials, sections, key, max_epochs=networks.epochs)
        seen, embedded = sections.test, sections.tables
    if row.task == "classes":
        for section in embedded:
            sw.tl.embed(section, model=model, modality="image", key_added=EMBEDDING)
        return measures.class_rows(sections.train, sections.test, EMBEDDING)
    return _expression(row, task, sections, seen, model)


def _expression(
    row: Row, task: Task, sections: Sections, seen: Sequence[AnnData | SpatialData], model: Whisperer
) -> pd.DataFrame:
    parts = []
    for table, section in zip(sections.test, seen, strict=True):
        predicted = predict(section, model)
        markers = [gene for gene in MARKERS if gene in predicted.var_names]
        parts.append(
            measures.expression_rows(
                table,
                predicted,
                sections.train,
                layer=sections.layer,
                lists_from=lists_origin(comparable(task)),
                baselines=True,
                gene_lists={"markers": markers} if markers and "pearson:markers" in row.metrics else None,
            )
        )
        if str(table.obs["section"].iloc[0]) in row.domains:
            parts.append(measures.domain_rows(table, predicted))
    return pd.concat(parts, ignore_index=True)
