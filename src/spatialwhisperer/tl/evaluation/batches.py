"""How far batches are apart in an embedding, and how far labels are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spatialwhisperer._access.columns import columns, stacked, tables_of
from spatialwhisperer._access.table.groups import known_labels
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._docs import shared
from spatialwhisperer._messages import listing
from spatialwhisperer.tl._tissue.probes import scale

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

CONVENTION = (
    "Columns of each embedding are standardised. mixing is the fraction of the k nearest rows from other batches, entropy that of the "
    "batches of the k nearest rows; both are divided by their expectation for k neighbours drawn at random from the other rows (1: as at "
    "random, 0: batches apart). "
    "batch_accuracy is the balanced accuracy of a logistic regression in five folds of rows, batch_chance one over the number of "
    "batches. label_accuracy is the balanced accuracy of the majority vote of the k nearest rows of other batches, expected over ties, and label_chance one over the number of labels; both "
    "count the labels that are in at least two batches, as one of a single batch cannot be learnt from others. "
    "*_within_labels are computed among rows of one label and averaged over rows, so that different labels in different batches do not "
    "count as batch effect."
)


@shared
@checked
def batch_report(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    *,
    batch_key: str,
    embedding: str | Sequence[str],
    labels_key: str | None = None,
    ignore: Sequence[str] = ("undetermined",),
    k: int = 30,
    max_rows: int = 5000,
    table_key: str | None = None,
    random_state: int = 0,
) -> pd.DataFrame:
    """Measure how far batches (patients) are apart in embeddings, and how well labels carry over from batch to batch.

    Batches may differ because they were processed differently or because they hold different tissue. Only the columns
    ``*_within_labels`` and ``label_accuracy`` distinguish the two. For an embedding that was fitted with the labels, such as that of
    scANVI, the label columns say nothing about a new batch.

    Parameters
    ----------
    data
        One object or several.
    batch_key
        Column of ``.obs`` with the batch.
    embedding
        Key of ``.obsm``, or several to compare on the same rows, those without NaN in any of them.
    labels_key
        Column of ``.obs`` with known labels; rows where it is missing are used for the batches alone.
    ignore
        Labels that count as missing.
    k
        Number of neighbours.
    max_rows
        Largest number of rows to use; of more rows a random sample is drawn.
    %(table_key)s
    %(random_state)s

    Returns
    -------
    DataFrame by embedding: ``batch_silhouette`` (-1 to 1, high: apart), ``mixing``, ``entropy``, ``batch_accuracy``,
    ``batch_chance``; with ``labels_key`` also ``mixing_within_labels``, ``batch_silhouette_within_labels``, ``label_silhouette``,
    ``label_accuracy``, ``label_chance``. ``entropy`` is NaN with ``k=1``, and the last two are where no label is in two batches.
    ``.attrs["convention"]`` defines the columns, ``.attrs["batch_label_nmi"]`` is the normalised
    mutual information of batch and label, ``.attrs["n"]`` the number of rows that were used.

    Raises
    ------
    KeyError
        If a column or an embedding does not exist.
    ValueError
        If there are fewer than two batches or labels, or not more than ``k`` rows.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sections = sw.datasets.simulate_sections(2, 80, n_genes=60, n_reference_cells=50, random_state=0).sections
    >>> encoder = sw.pp.fit_gene_encoder(list(sections.values()), "pca", n_latent=5)
    >>> for section in sections.values():
    ...     sw.pp.embed_genes(section, encoder)
    >>> report = sw.tl.batch_report(list(sections.values()), batch_key="patient", embedding="X_pca", k=10)
    >>> bool(0 <= report.loc["X_pca", "mixing"])
    True
    """
    keys = [embedding] if isinstance(embedding, str) else list(dict.fromkeys(embedding))
    if not keys:
        raise ValueError("embedding is an empty list; name at least one key of .obsm.")
    rows = report_rows(
        data, batch_key, keys, labels_key, ignore, max_rows=max_rows, table_key=table_key, random_state=random_state
    )
    _check(rows, batch_key, labels_key, k)
    batch = pd.factorize(rows.batch)[0]
    label = None if rows.label is None else pd.factorize(rows.label)[0]
    out = pd.DataFrame(
        {key: _measure(x, batch, label, k, random_state) for key, x in rows.values.items()},
    ).T.rename_axis("embedding")
    out.attrs["convention"] = CONVENTION
    out.attrs["n"] = len(batch)
    if label is not None:
        from sklearn.metrics import normalized_mutual_info_score

        known = label >= 0
        out.attrs["batch_label_nmi"] = float(normalized_mutual_info_score(batch[known], label[known]))
    return out


@dataclass(frozen=True)
class Rows:
    """The rows that are compared.

    Attributes
    ----------
    values
        Standardised embeddings by key of ``.obsm``, shape (n, d).
    batch
        Batch of each row.
    label
        Label of each row, ``None`` where it is unknown; ``None`` without labels.
    """

    values: dict[str, np.ndarray]
    batch: np.ndarray
    label: np.ndarray | None


def report_rows(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    batch_key: str,
    keys: Sequence[str],
    labels_key: str | None,
    ignore: Sequence[str],
    *,
    max_rows: int,
    table_key: str | None,
    random_state: int,
) -> Rows:
    """Rows with a batch and without NaN in any embedding, at most ``max_rows`` of them, in the order of the data."""
    tables = tables_of(data, table_key)
    values = {key: stacked(tables, key) for key in keys}
    batch = columns(tables, batch_key, "batch_key")
    label = None if labels_key is None else known_labels(columns(tables, labels_key, "labels_key"), ignore)
    take = np.flatnonzero((batch != None) & np.all([np.isfinite(x).all(axis=1) for x in values.values()], axis=0))  # noqa: E711
    if max_rows < len(take):
        take = np.sort(np.random.default_rng(random_state).choice(take, max_rows, replace=False))
    scaled = {}
    for key, x in values.items():
        x = x[take]
        if len(x):
            mean, sd = scale(x)
            x = (x - mean) / sd
        scaled[key] = x
    return Rows(scaled, batch[take], None if label is None else label[take])


def _check(rows: Rows, batch_key: str, labels_key: str | None, k: int) -> None:
    if k < 1 or len(rows.batch) <= k:
        raise ValueError(f"k={k} neighbours need more than k rows; {len(rows.batch)} have a batch and no NaN.")
    _check_shared(rows.batch, "batch_key", batch_key)
    batches = pd.unique(rows.batch)
    if len(batches) < 2:
        raise ValueError(
            f"batch_key={batch_key!r} has one batch only ({listing(batches)}): there is nothing to compare."
        )
    if rows.label is not None:
        labels = [v for v in pd.unique(rows.label) if v is not None]
        if len(labels) < 2:
            raise ValueError(f"labels_key={labels_key!r} has fewer than two known labels ({listing(labels)}).")
        _check_shared(rows.label[rows.label != None], "labels_key", str(labels_key))  # noqa: E711


def _check_shared(values: np.ndarray, argument: str, key: str) -> None:
    """Refuse a column in which no two rows agree: it names rows, and there is nothing to compare."""
    if len(values) and len(pd.unique(values)) == len(values):
        raise ValueError(
            f"{argument}={key!r} has another value in each of the {len(values)} rows. Name a column that groups rows."
        )


def _measure(x: np.ndarray, batch: np.ndarray, label: np.ndarray | None, k: int, random_state: int) -> dict[str, float]:
    from sklearn.metrics import silhouette_score

    near = batch[_neighbours(x, x, k, itself=True)]
    out = {
        "batch_silhouette": float(silhouette_score(x, batch)),
        "mixing": _mixing(near, batch),
        "entropy": _evenness(near, batch),
        "batch_accuracy": _batch_accuracy(x, batch, random_state),
        "batch_chance": 1 / (batch.max() + 1),
    }
    if label is not None:
        known = label >= 0
        x, batch, label = x[known], batch[known], label[known]
        out |= _within(x, batch, label, k)
        out["label_silhouette"] = float(silhouette_score(x, label))
        there = pd.crosstab(label, batch).to_numpy() > 0
        common = np.flatnonzero(there.sum(axis=1) > 1)
        out["label_accuracy"] = _label_accuracy(x, batch, label, k, common)
        out["label_chance"] = 1 / len(common) if len(common) else np.nan
    return out


def _mixing(near: np.ndarray, batch: np.ndarray) -> float:
    """Fraction of neighbours from other batches over its expectation, from the batches of the neighbours, shape (n, k)."""
    expected = (len(batch) - np.bincount(batch)[batch]) / (len(batch) - 1)
    return float((near != batch[:, None]).mean() / expected.mean())


def _evenness(near: np.ndarray, batch: np.ndarray) -> float:
    """Entropy of the batches of the neighbours over its expectation; NaN where that is 0, as for a single neighbour."""
    k = near.shape[1]
    expected = _expected_entropy(np.bincount(batch), k)
    if not expected:
        return np.nan
    counts = np.stack([(near == b).sum(axis=1) for b in range(batch.max() + 1)], axis=1)
    return float(_terms(counts / k).sum(axis=1).mean() / expected)


def _expected_entropy(size: np.ndarray, k: int) -> float:
    """Entropy of the batches of ``k`` rows that are drawn without replacement from all but one, averaged over that one.

    The number from one batch is hypergeometric, and the entropy is a sum over batches.
    """
    from scipy.stats import hypergeom

    n, drawn = int(size.sum()), np.arange(k + 1)
    # the rows of a batch, which lack the one that it has left out, and all other rows
    left, weight = np.stack([size - 1, size]), np.stack([size, n - size]) / n
    chance = hypergeom.pmf(drawn, n - 1, left[..., None], k)
    return float((weight * (chance * _terms(drawn / k)).sum(axis=-1)).sum())


def _terms(p: np.ndarray) -> np.ndarray:
    return -p * np.log(np.where(p > 0, p, 1))


def _neighbours(x: np.ndarray, queries: np.ndarray, k: int, *, itself: bool) -> np.ndarray:
    """Positions of the ``k`` nearest rows, shape (queries, k), the row itself left out where the queries are the rows."""
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=k).fit(x)
    return index.kneighbors(None if itself else queries, return_distance=False)


def _batch_accuracy(x: np.ndarray, batch: np.ndarray, random_state: int) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import StratifiedKFold

    n_folds = min(5, int(np.bincount(batch).min()))
    if n_folds < 2:
        return np.nan
    guess = np.empty_like(batch)
    for fit, test in StratifiedKFold(n_folds, shuffle=True, random_state=random_state).split(x, batch):
        model = LogisticRegression(class_weight="balanced", max_iter=500).fit(x[fit], batch[fit])
        guess[test] = model.predict(x[test])
    return float(balanced_accuracy_score(batch, guess))


def _within(x: np.ndarray, batch: np.ndarray, label: np.ndarray, k: int) -> dict[str, float]:
    """Mixing and silhouette of the batches among rows of one label, mean over the rows of labels that allow it."""
    from sklearn.metrics import silhouette_samples

    mixing, silhouette = [], []
    for value in np.unique(label):
        rows = label == value
        codes = pd.factorize(batch[rows])[0]
        if codes.max() == 0 or len(codes) <= codes.max() + 1 or len(codes) < 3:
            continue
        # of a label with few rows not all rows should be neighbours
        few = min(k, max(1, len(codes) // 3))
        near = codes[_neighbours(x[rows], x[rows], few, itself=True)]
        mixing.append((len(codes), _mixing(near, codes)))
        silhouette.append((len(codes), silhouette_samples(x[rows], codes).mean()))
    return {
        "mixing_within_labels": _weighted(mixing),
        "batch_silhouette_within_labels": _weighted(silhouette),
    }


def _weighted(pairs: list[tuple[int, float]]) -> float:
    if not pairs:
        return np.nan
    weights, values = zip(*pairs, strict=True)
    return float(np.average(values, weights=weights))


def _label_accuracy(x: np.ndarray, batch: np.ndarray, label: np.ndarray, k: int, common: np.ndarray) -> float:
    """Mean recall of some labels by the vote; a tie is broken at random, so that the label counts as one over the number of tied ones."""
    if not len(common):
        return np.nan
    correct = np.empty(len(label))
    for b in np.unique(batch):
        out = batch == b
        near = label[~out][_neighbours(x[~out], x[out], min(k, int((~out).sum())), itself=False)]
        votes = np.stack([(near == c).sum(axis=1) for c in range(label.max() + 1)], axis=1)
        most = votes == votes.max(axis=1, keepdims=True)
        correct[out] = most[np.arange(len(most)), label[out]] / most.sum(axis=1)
    return float(np.mean([correct[label == c].mean() for c in common]))
