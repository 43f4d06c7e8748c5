"""One preset on one fold: train, predict, and measure expression, domains and classes."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer.protocols.her2st_data import IGNORED, LABELS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from spatialwhisperer.protocols.her2st_data import Fold, Materials

CORRECTED = "corrected"
MIN_SHARE = 0.1
"""Share of the spots, of those that choose the genes, in which a gene occurs."""

BASELINES = "(baselines)"
"""Name of the run that measures what needs no model."""


@dataclass(frozen=True)
class Task:
    """What is run once."""

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


def run_task(task: Task, materials: Materials) -> pd.DataFrame:
    """Tidy rows of metric, gene list, predictor and value, on frozen features."""
    train = [materials.table(n) for n in task.fold.train]
    test = [materials.table(n) for n in task.fold.test]
    scales = task.preset == "whisperer"
    slots = {
        materials.features(n, task.features, task.fold.mpp, scales=scales) for n in (*task.fold.train, *task.fold.test)
    }
    (slot,) = slots
    if task.preset == BASELINES:
        return _baselines(task, train, test, slot)
    return _preset(task, materials, train, test, slot)


def _preset(
    task: Task, materials: Materials, train: Sequence[AnnData], test: Sequence[AnnData], slot: str
) -> pd.DataFrame:
    preset = sw.models.get_preset(task.preset, task.protocol)
    genes = choose_genes(preset, task.protocol, train, test)
    train, test, layer = _corrected(preset, train, test, genes)
    model = sw.tl.train(
        [*train, *_unpaired(task, materials, layer)],
        preset=preset,
        pairs=[("image", "gene")],
        image_features=slot,
        genes=genes,
        values_layer=layer,
        cross_validate=preset.name == "whisperer",
        expression=True,
        max_epochs=2 if materials.smoke else None,
        random_state=task.seed,
        **_gene_side(preset, materials, task, train, test, layer),
    )
    k = min(model.expression.retrieval.k or sys.maxsize, model.expression.values.shape[0])
    k = k if model.expression.retrieval.k else None
    predicted = [sw.tl.predict_expression(t, model=model, k=k) for t in test]
    lists_from = "test" if preset.evaluation.heg_from == "test" else "training"
    parts = [
        expression_rows(t, p, train, layer=layer, lists_from=lists_from, baselines=False)
        for t, p in zip(test, predicted, strict=True)
    ]
    parts += [domain_rows(t, p) for t, p in zip(test, predicted, strict=True)]
    for table in (*train, *test):
        sw.tl.embed(table, model=model, modality="image", key_added="X_benchmark")
    return pd.concat([*parts, class_rows(train, test, "X_benchmark")], ignore_index=True)


def _unpaired(task: Task, materials: Materials, layer: str | None) -> list[AnnData]:
    """Sections without an image show the preset of our own how genes vary together."""
    return materials.unpaired(task.fold.test[0][0]) if task.preset == "whisperer" and layer is None else []


def choose_genes(preset: Any, protocol: str, train: Sequence[AnnData], test: Sequence[AnnData]) -> list[str]:
    """Strict: the variable and the strong genes of the training sections, the same for every preset. Peer: the preset's own rule on the sections it sees."""
    spec = preset.expression
    if protocol == "strict":
        least = round(MIN_SHARE * sum(t.n_obs for t in train))
        chosen = [
            sw.pp.select_genes(list(train), method=method, n_top=n, min_spots=least)
            for method, n in (("hvg", 400), ("mean", 100))
        ]
        genes = list(dict.fromkeys(g for part in chosen for g in part))
    else:
        seen = [*train, *test] if preset.evaluation.gene_fit == "all" else list(train)
        least = round(MIN_SHARE * sum(t.n_obs for t in seen))
        genes = sw.pp.select_genes(seen, method=spec.genes, n_top=spec.n_genes, min_spots=least)
    common = set.intersection(*(set(t.var_names) for t in (*train, *test)))
    return [g for g in genes if g in common]


def _corrected(
    preset: Any, train: Sequence[AnnData], test: Sequence[AnnData], genes: list[str]
) -> tuple[list[AnnData], list[AnnData], str | None]:
    """The sections with batch-corrected expression in a layer where the published protocol does so, test sections included."""
    if preset.evaluation.correction == "none":
        return list(train), list(test), None
    tables = [t[:, genes].copy() for t in (*train, *test)]
    values = sw.pp.harmonize_expression(tables, genes=genes, batch_key="section")
    for table, corrected in zip(tables, values, strict=True):
        table.layers[CORRECTED] = corrected
        table.obsm["X_corrected"] = corrected
    return tables[: len(train)], tables[len(train) :], CORRECTED


def _gene_side(
    preset: Any,
    materials: Materials,
    task: Task,
    train: Sequence[AnnData],
    test: Sequence[AnnData],
    layer: str | None,
) -> dict[str, Any]:
    if layer is not None:
        return {"gene_features": "X_corrected"}
    if preset.gene_encoder in ("scvi", "scanvi"):
        return {"gene_encoder": materials.gene_encoder(preset.gene_encoder, task.fold)}
    if preset.gene_encoder == "gene_sentence":
        # sentences do not depend on the fold, and reading them takes longer than training
        for table in (*train, *test):
            if "X_gene_sentence" not in table.obsm:
                sw.pp.embed_genes(table, "gene_sentence", n_top_genes=None)
        return {"gene_features": "X_gene_sentence"}
    return {}


# ------------------------------------------------------------------------------------------------- measuring


def expression_rows(
    test: AnnData,
    predicted: AnnData,
    train: Sequence[AnnData],
    *,
    layer: str | None,
    lists_from: str,
    baselines: bool,
) -> pd.DataFrame:
    """Metrics of predicted expression in one section."""
    result = sw.tl.evaluate_expression(
        test,
        predicted,
        train=list(train),
        layer=layer,
        gene_lists_from=lists_from,
        baselines=baselines,
        group_key="section",
    )
    return result[result["group"] != "mean"].rename(columns={"group": "section"})


def domain_rows(test: AnnData, predicted: AnnData | None, *, predictor: str = "prediction") -> pd.DataFrame:
    """ARI and NMI of k-means on nine components of the expression, mean and sd over 20 seeds."""
    use = "observed" if predicted is None else "expression"
    result = sw.tl.evaluate_domains(test, LABELS, use=use, prediction=predicted, ignore=IGNORED, group_key="section")
    row = result[result["section"] != "mean"].iloc[0]
    names = ("ari", "ari_sd", "nmi", "nmi_sd")
    return pd.DataFrame(
        {
            "section": row["section"],
            "predictor": predictor,
            "gene_list": "",
            "metric": names,
            "value": [row[n] for n in names],
        }
    )


def class_rows(
    train: Sequence[AnnData], test: Sequence[AnnData], slot: str, *, predictor: str = "prediction"
) -> pd.DataFrame:
    """Macro-F1 and balanced accuracy of a probe that the labels of the training sections teach, over all test spots."""
    from sklearn.metrics import balanced_accuracy_score, f1_score

    truth, guess = [], []
    for table in test:
        scores = sw.tl.classify(
            table,
            labels_key=LABELS,
            train=list(train),
            use=slot,
            ignore=IGNORED,
            group_key="section",
            inplace=False,
        )
        labels = table.obs[LABELS].astype(object)
        known = np.asarray(labels.notna() & ~labels.isin(IGNORED) & scores.notna().all(axis=1))
        truth.append(labels[known].astype(str).to_numpy())
        guess.append(scores.idxmax(axis=1)[known].astype(str).to_numpy())
    t, g = np.concatenate(truth), np.concatenate(guess)
    return _class_frame(t, g, predictor, f1_score, balanced_accuracy_score)


def _class_frame(t: np.ndarray, g: np.ndarray, predictor: str, f1: Any, balanced: Any) -> pd.DataFrame:
    # over the classes that the test sections hold
    values = {"macro_f1": f1(t, g, labels=np.unique(t), average="macro", zero_division=0)}
    values["balanced_accuracy"] = balanced(t, np.where(np.isin(g, t), g, "other"))
    return pd.DataFrame(
        {
            "section": "all",
            "predictor": predictor,
            "gene_list": "",
            "metric": list(values),
            "value": list(values.values()),
        }
    )


def _baselines(task: Task, train: Sequence[AnnData], test: Sequence[AnnData], slot: str) -> pd.DataFrame:
    """What needs no model: the training mean, one scalar per spot, aligned sections; and the features and labels alone."""
    from sklearn.metrics import balanced_accuracy_score, f1_score

    preset = sw.models.get_preset("mclstexp", task.protocol)
    genes = choose_genes(preset, task.protocol, train, test)
    space = preset.expression.value_space
    lists_from = "test" if preset.evaluation.heg_from == "test" else "training"
    parts = []
    for table in test:
        nothing = _constant(table, genes, space)
        rows = expression_rows(table, nothing, train, layer=None, lists_from=lists_from, baselines=True)
        parts += [rows[rows["predictor"] != "prediction"], domain_rows(table, None, predictor="observed expression")]
    parts.append(class_rows(train, test, slot, predictor="image features"))
    labels = pd.concat([t.obs[LABELS].astype(object) for t in train])
    common = labels[labels.notna() & ~labels.isin(IGNORED)].mode().iloc[0]
    truth = pd.concat([t.obs[LABELS].astype(object) for t in test])
    truth = truth[truth.notna() & ~truth.isin(IGNORED)].astype(str).to_numpy()
    guess = np.full(len(truth), common, dtype=object)
    parts.append(_class_frame(truth, guess, "majority class", f1_score, balanced_accuracy_score))
    return pd.concat(parts, ignore_index=True)


def _constant(table: AnnData, genes: list[str], space: str) -> AnnData:
    """A prediction of zeros, beside which the baselines are measured."""
    import anndata as ad

    from spatialwhisperer import _keys
    from spatialwhisperer._provenance import record

    out = ad.AnnData(
        np.zeros((table.n_obs, len(genes)), np.float32), obs=table.obs[[]].copy(), var=pd.DataFrame(index=genes)
    )
    record(out, _keys.EXPRESSION, value_space=space)
    return out
