"""Layers of the olfactory bulb from image features: probes, few labels, and domains without a label."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, cast

import anndata as ad
import numpy as np
import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer.protocols.olfactory_bulb.materials import FEATURES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

LAYER = "layer"
UNITS = {"section": "section", "patient": "animal"}
Method = Literal["logistic", "prototypes"]
METHODS: tuple[Method, ...] = ("logistic", "prototypes")
SHOTS = (5, 20)


class Options(NamedTuple):
    """How many examples of each layer train which classifier; ``None`` takes all."""

    n_shots: int | None = None
    method: Method = "logistic"
    random_state: int = 0


def probe_rows(tables: Sequence[AnnData], split: str) -> pd.DataFrame:
    """Macro AUROC of each section, by a probe of the sections of other animals ("patient") or of all others ("section")."""
    rows = []
    for table in tables:
        train = [t for t in tables if t is not table and (split == "section" or _animal(t) != _animal(table))]
        for key, name in FEATURES.items():
            scores = classified(table, train, key, group_key=split)
            rows.append(_row(table, f"probe, {UNITS[split]} left out", name, "macro AUROC", macro_auroc(table, scores)))
    return pd.DataFrame(rows)


def few_rows(tables: Sequence[AnnData], *, n_seeds: int, smoke: bool) -> pd.DataFrame:
    """Macro AUROC of each section, by some examples of each layer in one section of another animal."""
    rows = []
    for source in tables[:1] if smoke else tables:
        tests = [t for t in tables if _animal(t) != _animal(source)]
        together = ad.concat(tests, join="outer")
        for shots in SHOTS:
            for method in METHODS:
                for seed in range(n_seeds):
                    for key, name in FEATURES.items():
                        options = Options(shots, method, seed)
                        scores = classified(together, [source], key, group_key="patient", options=options)
                        task = f"{shots} examples, {method}"
                        rows += [
                            _row(t, task, name, "macro AUROC", macro_auroc(t, scores.loc[t.obs_names])) | {"seed": seed}
                            for t in tests
                        ]
    keys = ["section", "animal", "task", "predictor", "metric"]
    return cast("pd.DataFrame", pd.DataFrame(rows).groupby(keys, as_index=False, sort=False)["value"].mean())


def domain_rows(tables: Sequence[AnnData], *, n_seeds: int) -> pd.DataFrame:
    """Agreement of k-means with the layers of each section, as many domains as layers, mean over seeds."""
    rows = []
    for table in tables:
        for smooth in (0.0, 0.5):
            result = sw.tl.evaluate_domains(
                table, LAYER, use=list(FEATURES), smooth=smooth, n_seeds=n_seeds, group_key="section"
            )
            for _, found in result[result["section"] != "mean"].iterrows():
                task = "domains" + (", smoothed" if smooth else "")
                name = FEATURES[str(found["use"])]
                rows += [_row(table, task, name, m.upper(), float(found[m])) for m in ("ari", "nmi")]
        # one domain everywhere, the most frequent layer, agrees by 0 by definition
        rows += [_row(table, "domains", "majority", metric, 0.0) for metric in ("ARI", "NMI")]
    return pd.DataFrame(rows)


def classified(
    table: AnnData,
    train: Sequence[AnnData],
    key: str,
    *,
    group_key: str,
    options: Options = Options(),
) -> pd.DataFrame:
    """Score of each layer for each row."""
    scores = sw.tl.classify(
        table,
        labels_key=LAYER,
        train=list(train),
        use=key,
        method=options.method,
        n_shots=options.n_shots,
        group_key=group_key,
        random_state=options.random_state,
        inplace=False,
    )
    if scores is None:
        raise TypeError("classify(inplace=False) returns the scores.")
    return scores


def macro_auroc(table: AnnData, scores: pd.DataFrame) -> float:
    """Mean over the layers of a section of the AUROC of each layer against the others."""
    from sklearn.metrics import roc_auc_score

    truth = table.obs[LAYER].astype(object)
    known = np.asarray(truth.notna())
    present = [layer for layer in scores.columns if (truth[known] == layer).any()]
    values = [roc_auc_score(truth[known] == layer, scores.loc[known, layer]) for layer in present]
    return float(np.mean(values))


def _animal(table: AnnData) -> str:
    return str(table.obs["patient"].iloc[0])


def _row(table: AnnData, task: str, predictor: str, metric: str, value: float) -> dict[str, object]:
    section = str(table.obs["section"].iloc[0])
    return {
        "section": section,
        "animal": _animal(table),
        "task": task,
        "predictor": predictor,
        "metric": metric,
        "value": value,
    }
