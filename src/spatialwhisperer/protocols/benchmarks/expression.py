"""One fold of the expression benchmark: every predictor, and what is measured of it in each section."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd

from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.table.counts import counts_matrix
from spatialwhisperer.protocols.benchmarks.folder.folds import codes
from spatialwhisperer.protocols.benchmarks.genes import SPACE, values_of
from spatialwhisperer.protocols.benchmarks.regressions import FIXED, OURS, Reduction, fit_by_patient, fit_fixed
from spatialwhisperer.statistics.count_splitting import halves, reliability
from spatialwhisperer.statistics.expression.metrics import pearson_per_gene
from spatialwhisperer.statistics.expression.structure import (
    correlation,
    gene_gene_agreement,
    morans_i,
    neighbour_weights,
    set_scores,
)
from spatialwhisperer.statistics.expression.value_spaces import to_space
from spatialwhisperer.statistics.left_out import left_out_units
from spatialwhisperer.tl.evaluation.baselines import DARKNESS, baseline_values, read_training
from spatialwhisperer.tl.evaluation.rows.pairs import make_pair

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

    from spatialwhisperer.protocols.benchmarks.folder.folds import Units
    from spatialwhisperer.protocols.benchmarks.folder.sections import BenchmarkSection
    from spatialwhisperer.protocols.benchmarks.genes import Genes
    from spatialwhisperer.tl.evaluation.rows.pairs import Pair

LEAST_OF_SET = 5
"""Sets with fewer of their genes among those predicted have no score."""

PUBLISHED = "HEST as published (ln(1 + counts))"
CEILING = "ceiling of counting noise"
NO_ENCODER = ""


class Predicted(NamedTuple):
    """What regressions predict for each test section.

    Attributes
    ----------
    values
        By encoder and predictor, then section: values of all genes, shape (n, g).
    published
        By encoder, then section: ln(1 + counts) of the benchmark genes.
    """

    values: dict[tuple[str, str], dict[str, np.ndarray]]
    published: dict[str, dict[str, np.ndarray]]


def fold_rows(
    train: Sequence[BenchmarkSection],
    test: Sequence[BenchmarkSection],
    units: Units,
    genes: Genes,
    keys: Mapping[str, str],
) -> pd.DataFrame:
    """Measure every predictor on every test section.

    Parameters
    ----------
    train, test
        Sections with features, darkness and the common genes.
    units
        What is left out as a whole when a penalty is chosen.
    genes
        Genes to predict.
    keys
        Key of ``.obsm`` of each encoder.

    Returns
    -------
    One row per section, encoder, predictor and metric, with the ``value``.
    """
    tables = [s.table for s in train]
    predicted = _regressions(train, test, units, genes, keys)
    rows = _pooled(test, predicted, genes)
    for section in test:
        pair = _pair(section.table, genes.all)
        found = {key: values[section.name] for key, values in predicted.values.items()}
        training = read_training(tables, pair, layer=None, options={})
        for name, values in baseline_values(pair, training, scalar_key=DARKNESS, patient_key="patient"):
            found[NO_ENCODER, name] = values
        rows += _section_rows(section.name, section.table, pair, found, genes)
        truth = _log_counts(section.table, genes.benchmark)
        for encoder, own in predicted.published.items():
            rows.append((section.name, encoder, PUBLISHED, "pearson", mean_pearson(truth, own[section.name])))
    return pd.DataFrame(rows, columns=["section", "encoder", "predictor", "metric", "value"])


def _regressions(
    train: Sequence[BenchmarkSection],
    test: Sequence[BenchmarkSection],
    units: Units,
    genes: Genes,
    keys: Mapping[str, str],
) -> Predicted:
    tables, n = [s.table for s in train], len(genes.benchmark)
    y = np.concatenate([values_of(t, genes.all) for t in tables])
    raw = np.concatenate([_log_counts(t, genes.benchmark) for t in tables])
    out = Predicted({}, {})
    for encoder, key in keys.items():
        x = np.concatenate([t.obsm[key] for t in tables])
        whole = np.isfinite(x).all(axis=1)
        reduction = Reduction.fit(x[whole])
        z = reduction.apply(x[whole])
        ours = fit_by_patient(z, y[whole], _row_units(train, units)[whole])
        fixed, published = fit_fixed(z, y[whole], n), fit_fixed(z, raw[whole], n)
        new = {s.name: reduction.apply(np.asarray(s.table.obsm[key])) for s in test}
        out.values[encoder, OURS] = {name: ours(v) for name, v in new.items()}
        out.values[encoder, FIXED] = {name: fixed(v) for name, v in new.items()}
        out.published[encoder] = {name: published(v) for name, v in new.items()}
    return out


def _row_units(train: Sequence[BenchmarkSection], units: Units) -> np.ndarray:
    """Units that are left out when a penalty is chosen: patients, sections of two patients, or blocks of one section."""
    repeats = [s.table.n_obs for s in train]
    names = [s.name for s in train]
    groups, sections = (np.repeat(codes(names, of), repeats) for of in (units.left_out, units.sections))
    return left_out_units(groups, sections, np.concatenate([s.table.obsm["spatial"] for s in train]))


def _log_counts(table: AnnData, genes: Sequence[str]) -> np.ndarray:
    counts = counts_matrix(table)[:, table.var_names.get_indexer(pd.Index(genes))]
    return np.asarray(np.log1p(counts.toarray()), np.float64)


def _pair(table: AnnData, genes: Sequence[str]) -> Pair:
    """Measured values, beside a prediction of zeros."""
    zeros = np.zeros((table.n_obs, len(genes)), np.float32)
    nothing = ad.AnnData(zeros, obs=pd.DataFrame(index=table.obs_names), var=pd.DataFrame(index=list(genes)))
    return make_pair(
        Slide.open(table),
        nothing,
        genes=None,
        value_space=SPACE,
        layer=None,
        group_key="section",
        key="sw_expression",
    )


def _section_rows(
    name: str, table: AnnData, pair: Pair, predicted: Mapping[tuple[str, str], np.ndarray], genes: Genes
) -> list[tuple[str, str, str, str, float]]:
    truth = np.asarray(pair.truth.toarray(), np.float64)
    n = len(genes.benchmark)
    xy = np.asarray(table.obsm["spatial"])
    rows = [(name, NO_ENCODER, CEILING, "pearson", ceiling(table, genes.benchmark))]
    for (encoder, predictor), values in predicted.items():
        measured = measures(truth, np.asarray(values, np.float64), xy, n, genes)
        rows += [(name, encoder, predictor, metric, value) for metric, value in measured.items()]
    return rows


def measures(truth: np.ndarray, predicted: np.ndarray, xy: np.ndarray, n: int, genes: Genes) -> dict[str, float]:
    """Correlation of the first n genes, and the structure of the prediction in one section.

    Parameters
    ----------
    truth, predicted
        Values of ``genes.all``, shape (spots, genes). Rows with NaN in the prediction are left out.
    xy
        Positions, shape (spots, 2).
    n
        Number of benchmark genes, which come first.
    genes
        The genes.

    Returns
    -------
    ``pearson``, mean over genes; ``moran_truth`` and ``moran_predicted``, mean Moran's I; ``moran_r``, correlation of the two over genes;
    ``gene_gene_r``; and ``pathway_r``, mean over the gene sets of the correlation of their scores.
    """
    keep = np.isfinite(predicted).all(axis=1)
    truth, predicted, xy = truth[keep], predicted[keep], xy[keep]
    t, p = truth[:, :n], predicted[:, :n]
    weights = neighbour_weights(xy)
    own, its = morans_i(t, weights), morans_i(p, weights)
    out = {
        "pearson": mean_pearson(t, p),
        "moran_truth": _mean(own),
        "moran_predicted": _mean(its),
        "moran_r": correlation(own, its),
        "gene_gene_r": gene_gene_agreement(t, p),
    }
    if genes.sets:
        scores = [set_scores(x, genes.all, genes.sets, LEAST_OF_SET) for x in (truth, predicted)]
        here = np.isfinite(scores[0]).all(axis=0)
        out["pathway_r"] = mean_pearson(scores[0][:, here], scores[1][:, here]) if here.any() else np.nan
    return out


def mean_pearson(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Mean over genes of their correlation over rows; a constant prediction of a gene that varies counts as 0."""
    varies = np.ptp(truth, axis=0) > 0
    if not varies.any():
        return np.nan
    return float(np.nan_to_num(pearson_per_gene(truth[:, varies], predicted[:, varies])).mean())


def ceiling(table: AnnData, genes: Sequence[str], *, random_state: int = 0) -> float:
    """Mean over genes of the correlation that their true expected expression would have with what was counted."""
    return _mean(np.sqrt(gene_reliability(table, genes, random_state=random_state)))


def gene_reliability(table: AnnData, genes: Sequence[str], *, random_state: int = 0) -> np.ndarray:
    """Reliability of each gene between halves of its counts, shape (g,); NaN where a half is constant."""
    parts = halves(counts_matrix(table), np.random.default_rng(random_state))
    columns = table.var_names.get_indexer(pd.Index(genes))
    one, other = (
        to_space(part[:, columns], SPACE, library=np.asarray(part.sum(axis=1)).ravel()).toarray() for part in parts
    )
    return reliability(pearson_per_gene(np.asarray(one, np.float64), np.asarray(other, np.float64)))


def _pooled(
    test: Sequence[BenchmarkSection], predicted: Predicted, genes: Genes
) -> list[tuple[str, str, str, str, float]]:
    """The correlation over all rows of the fold at once, as the HEST benchmark computes it."""
    n = len(genes.benchmark)
    truths = {f: np.concatenate([f(s.table, genes.benchmark) for s in test]) for f in (values_of, _log_counts)}
    rows = []
    for (encoder, predictor), values in predicted.values.items():
        p = np.concatenate([values[s.name][:, :n] for s in test])
        rows.append(("all", encoder, predictor, "pearson", mean_pearson(truths[values_of], p)))
    for encoder, own in predicted.published.items():
        p = np.concatenate([own[s.name] for s in test])
        rows.append(("all", encoder, PUBLISHED, "pearson", mean_pearson(truths[_log_counts], p)))
    return rows


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else np.nan
