"""What image features of its own add to the regression of the preset "whisperer", beside plain ridge regressions.

Sections of patient C are left out in turn (fine images), and A1 is predicted from them (an image that is too coarse for the features).
Each predictor is compared with its counterpart on the image features of the model, on the same spots, by a paired block bootstrap.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

import spatialwhisperer as sw
from spatialwhisperer._access.table.counts import counts_matrix
from spatialwhisperer._messages import inform
from spatialwhisperer.protocols.her2st.frozen_features import choose_genes, predict
from spatialwhisperer.protocols.output import markdown, write_text
from spatialwhisperer.statistics.bootstrap import Bootstrap, interval, spatial_blocks
from spatialwhisperer.statistics.grouped_ridge import grouped_ridge
from spatialwhisperer.statistics.standardize import standardize, statistics
from spatialwhisperer.statistics.value_spaces import to_space

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

FINE = ("C2", "C3", "C4", "C5")
COARSE = "A1"
LISTS = ("HEG50", "HVG50")
OWN = ("X_stain_texture", "X_nuclei")
NEW, BEFORE = "whisperer", "whisperer, features of the model"
RIDGE, RIDGE_BEFORE = "ridge, stain_texture + nuclei", "ridge, stain_texture"
PAIRS = {NEW: BEFORE, RIDGE: RIDGE_BEFORE}
"""Predictor to its counterpart on the image features of the model."""

_RESAMPLINGS = 1000


@dataclass
class Measured:
    """Test spots of all folds of a split.

    Attributes
    ----------
    truth, predicted
        Expression of the genes of a list by section, and the same as each predictor gives it, each (n, 50).
    positions
        Position of the spots by section, (n, 2).
    """

    truth: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    predicted: dict[tuple[str, str, str], np.ndarray] = field(default_factory=dict)
    positions: dict[str, np.ndarray] = field(default_factory=dict)


def run(data: Path, out: Path, *, smoke: bool = False) -> pd.DataFrame:
    """Measure each predictor and write ``her2st_regression.csv`` and ``her2st_regression.md``.

    Parameters
    ----------
    data
        Folder that holds ``her2st/``.
    out
        Folder of the results.
    smoke
        Leave out one section only, and predict few genes.

    Returns
    -------
    One row per split, gene list and predictor: mean correlation per gene and section, and the difference from the counterpart in `PAIRS`
    with its 95 % interval.
    """
    sections = {name: sw.datasets.her2st(name, data_dir=data) for name in (*FINE, COARSE)}
    splits = {
        "section": [([n for n in FINE if n != left_out], left_out) for left_out in FINE[: 1 if smoke else None]],
        "C → A": [(list(FINE), COARSE)],
    }
    tables = []
    for split, folds in splits.items():
        measured = Measured()
        for train, test in folds:
            inform(f"{split}: {test}")
            _fold([sections[n] for n in train], sections[test], test, measured, n_genes=60 if smoke else None)
        tables.append(_summary(measured).assign(split=split))
    table = pd.concat(tables, ignore_index=True)
    write_text(out / "her2st_regression.csv", table.to_csv(index=False))
    text = markdown(table.set_index("split"))
    write_text(out / "her2st_regression.md", text)
    print(text)
    return table


def _fold(
    train: Sequence[SpatialData], test: SpatialData, name: str, measured: Measured, *, n_genes: int | None
) -> None:
    preset = sw.models.get_preset("whisperer")
    tables = [one["table"] for one in train]
    genes = choose_genes(preset, "strict", tables, [test["table"]])[:n_genes]
    model = sw.tl.train(
        list(train),
        preset=preset.replace(pairs=[("image", "gene")]),
        expression=sw.tl.ExpressionOptions(genes=genes),
    )
    if model.expression is None:
        raise ValueError("This model predicts no expression.")
    lists = model.expression.config.gene_lists
    predicted = {NEW: pd.DataFrame(predict(test, model).to_df().to_numpy(), columns=genes)}
    # the other regression of the model is the one that there would be without features of its own
    before = model.predict_expression(test["table"].obsm[OWN[0]], sections=np.repeat(name, test["table"].n_obs))[0]
    predicted[BEFORE] = pd.DataFrame(before, columns=genes)
    for predictor, keys in ((RIDGE, OWN), (RIDGE_BEFORE, OWN[:1])):
        if all(key in test["table"].obsm for key in keys):
            predicted[predictor] = pd.DataFrame(_ridge(tables, test["table"], keys, genes), columns=genes)
    truth = pd.DataFrame(_values(test["table"], genes), columns=genes)
    measured.positions[name] = np.asarray(test["table"].obsm["spatial"], float)
    for each in LISTS:
        chosen = list(lists[each])
        measured.truth[name, each] = truth[chosen].to_numpy()
        for predictor, values in predicted.items():
            measured.predicted[name, each, predictor] = values[chosen].to_numpy()


def _values(table: AnnData, genes: Sequence[str]) -> np.ndarray:
    library = np.asarray(counts_matrix(table).sum(axis=1)).ravel()
    counts = csr_matrix(counts_matrix(table)[:, table.var_names.get_indexer(pd.Index(genes))])
    return np.asarray(to_space(counts, library=library).toarray())


def _ridge(train: Sequence[AnnData], test: AnnData, keys: Sequence[str], genes: Sequence[str]) -> np.ndarray:
    """A ridge regression of every gene, by training statistics, with the penalty that predicts training sections best."""
    x = np.concatenate([np.hstack([t.obsm[key] for key in keys]) for t in train])
    mean, std = statistics(x)
    z = standardize(x, how="global", mean=mean, std=std)
    fitted = grouped_ridge(
        z,
        np.concatenate([_values(t, genes) for t in train]),
        np.repeat(np.arange(len(train)), [t.n_obs for t in train]),
    )
    new = np.hstack([test.obsm[key] for key in keys])
    return standardize(new, how="global", mean=mean, std=std) @ fitted.weight


def _summary(measured: Measured) -> pd.DataFrame:
    """Mean over genes and sections, and the paired difference from the counterpart."""
    drawn = {
        name: Bootstrap(spatial_blocks(xy, np.zeros(len(xy))), _RESAMPLINGS, random_state=number).weights
        for number, (name, xy) in enumerate(measured.positions.items())
    }
    rows = []
    predictors = list(dict.fromkeys(predictor for _, _, predictor in measured.predicted))
    for each in LISTS:
        means = {}
        for predictor in predictors:
            # the first weights are one for every spot
            of_sections = [
                _mean_pearson(
                    measured.truth[name, each],
                    measured.predicted[name, each, predictor],
                    np.vstack([np.ones(len(weights[0])), weights]),
                )
                for name, weights in drawn.items()
            ]
            means[predictor] = np.mean(of_sections, axis=0)
        for predictor, r in means.items():
            row = {"gene list": each, "predictor": predictor, "r": f"{r[0]:.3f}", "difference": ""}
            if PAIRS.get(predictor) in means:
                gain = r - means[PAIRS[predictor]]
                low, high = interval(gain[1:])
                row["difference"] = f"{gain[0]:+.3f} [{low:+.3f}, {high:+.3f}]"
            rows.append(row)
    return pd.DataFrame(rows)


def _mean_pearson(truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Correlation of each gene over weighted spots, mean over the genes, for each row of weights; a constant gene counts as 0."""
    w = weights / weights.sum(axis=1, keepdims=True)
    x, y = truth - truth.mean(axis=0), predicted - predicted.mean(axis=0)
    mx, my = w @ x, w @ y
    vx, vy = w @ x**2 - mx**2, w @ y**2 - my**2
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (w @ (x * y) - mx * my) / np.sqrt(vx * vy)
    return np.asarray(np.nan_to_num(r).mean(axis=1))
