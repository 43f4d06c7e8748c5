"""What image features of its own add to the regression of the preset "whisperer", beside plain ridge regressions.

Sections of patient C are left out in turn (fine images), and A1 is predicted from them (an image that is too coarse for the features).
Each predictor is compared with its counterpart on the image features of the model on the same spots. The interval of 95 % is
over the spots of these sections, which are taken to be correlated with their neighbours; it says nothing about other patients.
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
from spatialwhisperer.protocols.her2st.frozen_features import choose_genes
from spatialwhisperer.protocols.output import markdown, write_text
from spatialwhisperer.statistics.expression.value_spaces import to_space
from spatialwhisperer.statistics.grouped_ridge import grouped_ridge
from spatialwhisperer.statistics.intervals.spatial import SpatialErrors
from spatialwhisperer.statistics.standardize import standardize, statistics

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

FINE = ("C2", "C3", "C4", "C5")
COARSE = "A1"
OTHERS = ("B1", "D1", "E1", "F1", "G2", "H1")
"""Sections of other patients, without an image, from which the regression learns how genes vary together."""
LISTS = ("HEG50", "HVG50")
OWN = ("X_stain_texture", "X_nuclei")
_PREDICTION = "predicted"
NEW, BEFORE = "whisperer", "whisperer, features of the model"
RIDGE, RIDGE_BEFORE = "ridge, stain_texture + nuclei", "ridge, stain_texture"
PAIRS = {NEW: BEFORE, RIDGE: RIDGE_BEFORE}
"""Predictor to its counterpart on the image features of the model."""


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
    others = [sw.datasets.her2st(name, data_dir=data, with_image=False) for name in OTHERS[: 2 if smoke else None]]
    splits = {
        "section": [([n for n in FINE if n != left_out], left_out) for left_out in FINE[: 1 if smoke else None]],
        "C → A": [(list(FINE), COARSE)],
    }
    tables = []
    for split, folds in splits.items():
        measured = Measured()
        for train, test in folds:
            inform(f"{split}: {test}")
            objects = [sections[n] for n in train], others
            _fold(*objects, sections[test], test, measured, n_genes=60 if smoke else None)
        tables.append(_summary(measured).assign(split=split))
    table = pd.concat(tables, ignore_index=True)
    write_text(out / "her2st_regression.csv", table.to_csv(index=False))
    text = markdown(table.set_index("split"))
    write_text(out / "her2st_regression.md", text)
    print(text)
    return table


def _fold(
    train: Sequence[SpatialData],
    others: Sequence[SpatialData],
    test: SpatialData,
    name: str,
    measured: Measured,
    *,
    n_genes: int | None,
) -> None:
    preset = sw.models.get_preset("whisperer")
    tables = [one["table"] for one in train]
    genes = choose_genes(preset, "strict", tables, [test["table"]])[:n_genes]
    model = sw.tl.train(
        [*train, *others],
        preset=preset,
        expression=sw.tl.ExpressionOptions(genes=genes),
    )
    if model.expression is None:
        raise ValueError("This model predicts no expression.")
    lists = model.expression.config.gene_lists
    # in place, which keeps the features of the section for the other predictors
    sw.tl.predict_expression(test, model=model, key_added=_PREDICTION)
    predicted = {NEW: pd.DataFrame(test.tables.pop(_PREDICTION).to_df().to_numpy(), columns=genes)}
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
    names = list(measured.positions)
    sections = np.repeat(names, [len(measured.positions[n]) for n in names])
    errors = SpatialErrors(np.concatenate([measured.positions[n] for n in names]), sections)
    codes = np.unique(sections, return_inverse=True)[1]
    # sections count alike, however many spots they have
    weights = 1 / len(names) / np.bincount(codes)[codes]
    predictors = list(dict.fromkeys(predictor for _, _, predictor in measured.predicted))
    rows = []
    for each in LISTS:
        found = {
            p: [_mean_pearson(measured.truth[n, each], measured.predicted[n, each, p]) for n in names]
            for p in predictors
        }
        means = {p: float(np.mean([r for r, _ in parts])) for p, parts in found.items()}
        influence = {p: np.concatenate([own for _, own in parts]) for p, parts in found.items()}
        for predictor, r in means.items():
            row = {"gene list": each, "predictor": predictor, "r": f"{r:.3f}", "difference": ""}
            before = PAIRS.get(predictor)
            if before in means:
                gain = r - means[before]
                uncertainty = errors.contrast(influence[predictor] - influence[before], weights, codes)
                low, high = uncertainty.interval(gain)
                row["difference"] = f"{gain:+.3f} [{low:+.3f}, {high:+.3f}]"
            rows.append(row)
    return pd.DataFrame(rows)


def _mean_pearson(truth: np.ndarray, predicted: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean over the genes of their correlation, and the influence of each spot on it, shape (n,).

    A gene that is constant, measured or predicted, counts as 0. The influence of a spot with z-scores x and y on a correlation r is
    xy - r (x² + y²) / 2 (Devlin, Gnanadesikan, Kettenring, Biometrika 1975).
    """
    x, y = (_z_scores(values) for values in (truth, predicted))
    r = (x * y).mean(axis=0)
    return float(r.mean()), np.asarray((x * y - r * (x**2 + y**2) / 2).mean(axis=1))


def _z_scores(values: np.ndarray) -> np.ndarray:
    centred = values - values.mean(axis=0, dtype=np.float64)
    sd = centred.std(axis=0)
    return np.asarray(centred / np.where(sd > 0, sd, 1.0))
