"""One preset on one fold: train on frozen image features, predict, and measure expression, domains and classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer.protocols.her2st import floors, measures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer.models import Preset, Whisperer
    from spatialwhisperer.protocols.her2st.folds import Fold, Materials
    from spatialwhisperer.tl.evaluation.expression import ListOrigin

CORRECTED, X_CORRECTED, X_SENTENCES = "corrected", "X_corrected", "X_gene_sentence"
EMBEDDING = "X_benchmark"

MIN_FRACTION = 0.1
"""Fraction of the spots that a gene must occur in to be chosen."""

BASELINES = "(baselines)"
"""Name of the run that measures what needs no model."""


@dataclass(frozen=True)
class Task:
    """What is run once: a preset (or the baselines) on a fold, with one kind of image features and one seed."""

    preset: str
    protocol: str
    fold: Fold
    features: str
    seed: int

    @property
    def key(self) -> str:
        """Name of its file."""
        fold = self.fold.name.replace(" → ", "-")
        return f"{self.preset.strip('()')}-{self.protocol}-{self.fold.split}-{fold}-{self.features}-{self.seed}"


@dataclass(frozen=True)
class Sections:
    """Training and test sections of a fold.

    Attributes
    ----------
    train, test
        Their tables.
    layer
        Layer with batch-corrected expression; ``None`` where the preset takes counts.
    """

    train: list[AnnData]
    test: list[AnnData]
    layer: str | None = None

    @property
    def tables(self) -> list[AnnData]:
        """Training sections, then test sections."""
        return [*self.train, *self.test]


def run_task(task: Task, materials: Materials) -> pd.DataFrame:
    """Run a task.

    Returns
    -------
    One row per section, predictor, gene list and metric, with the ``value``.
    """
    fold = task.fold
    sections = Sections([materials.table(n) for n in fold.train], [materials.table(n) for n in fold.test])

    def key(*, scales: bool) -> str:
        (found,) = {materials.features(n, task.features, fold.mpp, scales=scales) for n in (*fold.train, *fold.test)}
        return found

    if task.preset == BASELINES:
        return _baselines(task, sections, key(scales=False), key(scales=True))
    return _preset(task, materials, sections, key(scales=task.preset == "whisperer"))


def comparable(task: Task) -> Preset:
    """The preset of a task with the encoders of its strict protocol, which are the same for all presets, or need no download."""
    strict, preset = (sw.models.get_preset(task.preset, protocol) for protocol in ("strict", task.protocol))
    return preset.replace(**{f"{m}_encoder": getattr(strict, f"{m}_encoder") for m in ("image", "gene", "text")})


def _preset(task: Task, materials: Materials, sections: Sections, key: str) -> pd.DataFrame:
    model, sections = train_heads(task, materials, sections, key)
    predicted = [predict(t, model) for t in sections.test]
    lists_from = lists_origin(comparable(task))
    parts = [
        measures.expression_rows(t, p, sections.train, layer=sections.layer, lists_from=lists_from)
        for t, p in zip(sections.test, predicted, strict=True)
    ]
    parts += [measures.domain_rows(t, p) for t, p in zip(sections.test, predicted, strict=True)]
    for table in sections.tables:
        sw.tl.embed(table, model=model, modality="image", key_added=EMBEDDING)
    return pd.concat([*parts, measures.class_rows(sections.train, sections.test, EMBEDDING)], ignore_index=True)


def train_heads(
    task: Task, materials: Materials, sections: Sections, key: str, *, max_epochs: int | None = None
) -> tuple[Whisperer, Sections]:
    """Train the heads of a preset on frozen features.

    Parameters
    ----------
    task, materials
        What is run, and what it uses.
    sections
        Training and test sections, with image features.
    key
        Key of ``.obsm`` with the image features.
    max_epochs
        Epochs; ``None`` takes those of the preset.

    Returns
    -------
    The model, and the sections with the expression that it was trained on: corrected where the published code corrects it.
    """
    preset = comparable(task).replace(locking="LLL")
    genes = choose_genes(preset, task.protocol, sections.train, sections.test)
    sections = _corrected(preset, sections, genes)
    model = sw.tl.train(
        [*sections.train, *_unpaired(task, materials, sections.layer)],
        preset=preset.replace(pairs=[("image", "gene")]),
        image=sw.tl.ImageFeatures(key=key),
        gene=_gene_features(preset, materials, task, sections),
        expression=sw.tl.ExpressionOptions(
            genes=genes, values_layer=sections.layer, cross_validate=preset.name == "whisperer"
        ),
        max_epochs=2 if materials.smoke else max_epochs,
        random_state=task.seed,
    )
    return model, sections


def predict(section: AnnData | SpatialData, model: Whisperer) -> AnnData:
    """Predicted expression of a section, from the neighbours of the preset, or the whole bank where it is smaller."""
    if model.expression is None:
        raise ValueError("This model predicts no expression.")
    k = model.expression.config.retrieval.k
    k = None if k is None else min(k, model.expression.values.shape[0])
    predicted = sw.tl.predict_expression(section, model=model, k=k, inplace=False)
    if predicted is None:
        raise TypeError("predict_expression(inplace=False) returns the prediction.")
    return predicted


def lists_origin(preset: Preset) -> ListOrigin:
    """Whose expression chooses the genes of HEG50 and HVG50."""
    return "test" if preset.evaluation.heg_from == "test" else "training"


def _unpaired(task: Task, materials: Materials, layer: str | None) -> list[AnnData]:
    """Sections without an image, from which the preset "whisperer" learns how genes vary together."""
    return materials.unpaired(task.fold.test[0][0]) if task.preset == "whisperer" and layer is None else []


def choose_genes(preset: Preset, protocol: str, train: Sequence[AnnData], test: Sequence[AnnData]) -> list[str]:
    """Genes to predict.

    Parameters
    ----------
    preset
        Its rule counts where the protocol is "peer".
    protocol
        "strict": the most variable and the most expressed genes of the training sections, the same for every preset. "peer": the
        preset's own rule on the sections that its published code uses.
    train, test
        Tables of the sections.
    """
    if protocol == "strict":
        least = round(MIN_FRACTION * sum(t.n_obs for t in train))
        chosen = [
            sw.pp.select_genes(list(train), method=method, n_top=n, min_spots=least)
            for method, n in (("hvg", 400), ("mean", 100))
        ]
        genes = list(dict.fromkeys(g for part in chosen for g in part))
    else:
        rule = preset.expression
        if rule is None:
            raise ValueError(f"The preset {preset.name!r} predicts no expression.")
        seen = [*train, *test] if preset.evaluation.gene_fit == "all" else list(train)
        least = round(MIN_FRACTION * sum(t.n_obs for t in seen))
        genes = sw.pp.select_genes(seen, method=rule.genes, n_top=rule.n_genes, min_spots=least)
    common = set.intersection(*(set(t.var_names) for t in (*train, *test)))
    return [g for g in genes if g in common]


def _corrected(preset: Preset, sections: Sections, genes: list[str]) -> Sections:
    """The sections with batch-corrected expression, test sections included, where the published code corrects it."""
    if preset.evaluation.correction == "none":
        return sections
    tables = [t[:, genes].copy() for t in sections.tables]
    values = sw.pp.harmonize_expression(tables, genes=genes, batch_key="section")
    for table, corrected in zip(tables, values, strict=True):
        table.layers[CORRECTED] = corrected
        table.obsm[X_CORRECTED] = corrected
    n = len(sections.train)
    return Sections(tables[:n], tables[n:], CORRECTED)


def _gene_features(preset: Preset, materials: Materials, task: Task, sections: Sections) -> sw.tl.GeneFeatures | None:
    """What the preset trains on beside images; ``None`` takes its own encoder, fitted on the training sections."""
    if sections.layer is not None:
        return sw.tl.GeneFeatures(key=X_CORRECTED)
    if preset.gene_encoder in ("scvi", "scanvi"):
        likelihood = preset.gene_options.get("gene_likelihood")
        return sw.tl.GeneFeatures(materials.gene_encoder(preset.gene_encoder, task.fold, likelihood))
    if preset.gene_encoder == "gene_sentence":
        # sentences do not depend on the fold, and reading them takes longer than training
        drop = str(preset.gene_options.get("drop", "none"))
        key = f"{X_SENTENCES}_{drop}"
        for table in sections.tables:
            if key not in table.obsm:
                sw.pp.embed_genes(table, "gene_sentence", n_top_genes=None, options={"drop": drop}, key_added=key)
        return sw.tl.GeneFeatures(key=key)
    return None


def _baselines(task: Task, sections: Sections, key: str, key_sizes: str) -> pd.DataFrame:
    """What needs no model: the training mean, one scalar per spot, aligned sections, plain ridge, the majority class, and the ceiling."""
    preset = sw.models.get_preset("mclstexp", task.protocol)
    if preset.expression is None:
        raise ValueError(f"The preset {preset.name!r} predicts no expression.")
    genes = choose_genes(preset, task.protocol, sections.train, sections.test)
    lists_from, space = lists_origin(preset), preset.expression.value_space
    parts = []
    for table in sections.test:
        for name, features in ((floors.RIDGE, key), (floors.RIDGE_SIZES, key_sizes)):
            predicted = floors.ridge(sections.train, table, genes, features, space)
            found = measures.expression_rows(
                table, predicted, sections.train, layer=None, lists_from=lists_from, value_space=space
            )
            parts.append(found.replace({"predictor": {"prediction": name}}))
        parts.append(floors.ceiling_rows(table, genes, sections.train, space))
        parts += [
            measures.baseline_rows(table, genes, sections.train, space=space, lists_from=lists_from),
            measures.domain_rows(table, None, predictor="observed expression"),
        ]
    parts += [
        measures.class_rows(sections.train, sections.test, key, predictor="image features"),
        measures.majority_rows(sections.train, sections.test),
    ]
    return pd.concat(parts, ignore_index=True)
