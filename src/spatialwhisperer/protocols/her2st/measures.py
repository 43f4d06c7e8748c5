"""What is measured of a run: expression, spatial domains and patch classes, as rows of section, predictor, gene list and metric."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer.protocols.her2st.folds import IGNORED, LABELS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

    from spatialwhisperer.tl.evaluation.expression import ListOrigin


def expression_rows(
    test: AnnData,
    predicted: AnnData,
    train: Sequence[AnnData],
    *,
    layer: str | None,
    lists_from: ListOrigin,
    baselines: bool = False,
    value_space: str | None = None,
    gene_lists: Mapping[str, Sequence[str]] | None = None,
) -> pd.DataFrame:
    """Metrics of the predicted expression of one section."""
    result = sw.tl.evaluate_expression(
        test,
        predicted,
        train=list(train),
        layer=layer,
        gene_lists=gene_lists,
        gene_lists_from=lists_from,
        baselines=baselines,
        value_space=value_space,
        group_key="section",
    )
    return result[result["group"] != "mean"].rename(columns={"group": "section"})


def baseline_rows(
    test: AnnData, genes: list[str], train: Sequence[AnnData], *, space: str, lists_from: ListOrigin
) -> pd.DataFrame:
    """Metrics of the baselines alone, measured beside a prediction of zeros."""
    import anndata as ad

    zeros = np.zeros((test.n_obs, len(genes)), np.float32)
    nothing = ad.AnnData(zeros, obs=pd.DataFrame(index=test.obs_names), var=pd.DataFrame(index=genes))
    rows = expression_rows(test, nothing, train, layer=None, lists_from=lists_from, baselines=True, value_space=space)
    return rows[rows["predictor"] != "prediction"]


def domain_rows(test: AnnData, predicted: AnnData | None, *, predictor: str = "prediction") -> pd.DataFrame:
    """ARI and NMI of k-means on nine components of predicted (or observed) expression, mean and standard deviation over 20 seeds."""
    use = "observed" if predicted is None else "expression"
    result = sw.tl.evaluate_domains(test, LABELS, use=use, prediction=predicted, ignore=IGNORED, group_key="section")
    row = result[result["section"] != "mean"].iloc[0]
    return _rows(str(row["section"]), predictor, {name: row[name] for name in ("ari", "ari_sd", "nmi", "nmi_sd")})


def class_rows(
    train: Sequence[AnnData], test: Sequence[AnnData], key: str, *, predictor: str = "prediction"
) -> pd.DataFrame:
    """Macro-F1 and balanced accuracy, over all test spots, of a probe that is trained on the labels of the training sections."""
    truth, guess = [], []
    for table in test:
        scores = sw.tl.classify(
            table,
            labels_key=LABELS,
            train=list(train),
            use=key,
            ignore=IGNORED,
            group_key="section",
            inplace=False,
        )
        if scores is None:
            raise TypeError("classify(inplace=False) returns the scores.")
        labels = table.obs[LABELS].astype(object)
        known = np.asarray(labels.notna() & ~labels.isin(IGNORED) & scores.notna().all(axis=1))
        truth.append(labels[known].astype(str).to_numpy())
        guess.append(scores.idxmax(axis=1)[known].astype(str).to_numpy())
    return _classes(np.concatenate(truth), np.concatenate(guess), predictor)


def majority_rows(train: Sequence[AnnData], test: Sequence[AnnData]) -> pd.DataFrame:
    """The same for a guess that is the most frequent class of the training sections everywhere."""
    most_frequent = _known_labels(train).mode().iloc[0]
    truth = _known_labels(test).astype(str).to_numpy()
    return _classes(truth, np.full(len(truth), most_frequent, dtype=object), "majority class")


def _known_labels(tables: Sequence[AnnData]) -> pd.Series:
    labels = pd.concat([pd.Series(t.obs[LABELS].astype(object)) for t in tables])
    return labels[labels.notna() & ~labels.isin(IGNORED)]


def _classes(truth: np.ndarray, guess: np.ndarray, predictor: str) -> pd.DataFrame:
    """Over the classes that the test sections hold."""
    from sklearn.metrics import balanced_accuracy_score, f1_score

    values = {
        "macro_f1": f1_score(truth, guess, labels=np.unique(truth), average="macro", zero_division=0),
        "balanced_accuracy": balanced_accuracy_score(truth, np.where(np.isin(guess, truth), guess, "other")),
    }
    return _rows("all", predictor, values)


def _rows(section: str, predictor: str, values: dict[str, float]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "section": section,
            "predictor": predictor,
            "gene_list": "",
            "metric": list(values),
            "value": list(values.values()),
        }
    )
