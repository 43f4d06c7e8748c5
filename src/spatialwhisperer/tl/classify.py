"""Classes of rows, learnt from a few rows with known labels: a classifier on frozen features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access.columns import columns, matrix, stacked, tables_of
from spatialwhisperer._access.result import Result
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.table.groups import group_names, known_labels, names_in_order
from spatialwhisperer._access.tables import obs_of
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._checks.values import check_key_added
from spatialwhisperer._docs import shared
from spatialwhisperer._messages import listing
from spatialwhisperer.tl._tissue.probes import METHODS, Method, fit_probe, take_shots

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

_COMPARED = 8
"""Features by which a row is recognised."""


@shared
@checked
def classify(
    data: AnnData | SpatialData,
    *,
    labels_key: str,
    train: AnnData | SpatialData | Sequence[AnnData | SpatialData] | None = None,
    use: str = _keys.IMAGE,
    method: Method = "logistic",
    n_shots: int | None = None,
    ignore: Sequence[str] = ("undetermined",),
    group_key: str = "patient",
    allow_overlap: bool = False,
    n_neighbors: int = 15,
    table_key: str | None = None,
    key_added: str = _keys.CLASS,
    random_state: int = 0,
    inplace: bool = True,
) -> pd.DataFrame | None:
    """Give every row a class, learnt from rows with known labels on frozen features.

    This is the task that TPIRBAE (Nishimura et al., ISBI 2025) pre-trains image encoders for; the classifiers and their settings are
    this package's own. Features are standardised with the mean and standard deviation of the training rows.

    - ``"logistic"``: multinomial logistic regression with a ridge penalty, classes weighted by the inverse of their frequency. The
      penalty is the one with the best macro-F1 on left-out groups where the training rows come from at least two groups, else a
      fixed one.
    - ``"knn"``: fraction of each class among the nearest training rows; of classes with equally many, the one of the nearest row.
    - ``"prototypes"``: softmax of the cosines with the mean unit vector of each class (after Wang et al., SimpleShot, 2019); for
      a handful of labels.

    Parameters
    ----------
    data
        What to classify.
    labels_key
        Column of ``.obs`` with the known labels; missing values are unlabelled.
    train
        Objects with known labels to learn from. ``None`` takes the labelled rows of ``data``; the predictions for these rows then say
        nothing about accuracy, which :func:`evaluate_classes` measures.
    use
        Key of ``.obsm`` with features, shape (n, d); a row with NaN gets no class.
    method
        The classifier.
    n_shots
        Learn from at most this many rows of each class, drawn at random by the name of the class.
    ignore
        Labels that count as unlabelled.
    group_key
        Column of ``.obs`` with the group (patient). An object without it, and rows where it is missing, are a group of their own.
    allow_overlap
        Accept a group that is both in ``train`` and in ``data``.
    n_neighbors
        Neighbours that vote in ``"knn"``; at most as many as there are training rows of a class on average.
    %(table_key)s
    key_added
        Column of ``.obs`` to write.
    %(random_state)s
    %(inplace)s

    Returns
    -------
    ``None``, or with ``inplace=False`` the scores as a DataFrame, one column per class. In place it writes:

    ``.obs['sw_class']`` : :class:`pandas.Series` (dtype ``category``)
        Class of the highest score; NaN where the features hold NaN.
    ``.obs['sw_class_confidence']`` : :class:`pandas.Series` (dtype ``float32``)
        That score.
    ``.obsm['sw_class_scores']`` : :class:`numpy.ndarray` (dtype ``float32``)
        Probability of each class, shape (n, number of classes).
    ``.uns['sw_class']['classes']`` : :class:`numpy.ndarray`
        Class of each column of the scores.

    Raises
    ------
    KeyError
        If the labels or the features do not exist.
    ValueError
        If fewer than two classes are known, a group or most rows of ``data`` are also in ``train``, widths of features differ, or a number is
        out of range.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sections = sw.datasets.simulate_sections(2, 40, n_genes=60, n_reference_cells=50, random_state=0).sections
    >>> for section in sections.values():
    ...     sw.pp.embed_images(section, tile_um=80, tile_px=64)
    >>> sw.tl.classify(sections["P2"], labels_key="cell_type", train=sections["P1"], use="X_stain_texture")
    >>> sections["P2"]["table"].obsm["sw_class_scores"].shape
    (40, 5)
    """
    check_probe(method, n_shots, n_neighbors)
    check_key_added(key_added)
    if key_added == labels_key:
        raise ValueError(
            f"key_added={key_added!r} is the column of known labels, which the result would replace. Pass another name."
        )
    slide = Slide.open(data, table_key=table_key)
    if inplace:
        slide.check_column(key_added, beside=(_keys.confidence(key_added), _keys.scores(key_added)))
    table = slide.table
    sources = [table] if train is None else tables_of(train, table_key, "train")
    x = matrix(table, use)
    known = x if train is None else stacked(sources, use)
    if known.shape[1] != x.shape[1]:
        raise ValueError(
            f".obsm[{use!r}] has {x.shape[1]} columns in data and {known.shape[1]} in train: "
            "embed both with the same encoder."
        )
    labels = known_labels(columns(sources, labels_key, "labels_key"), ignore)
    groups = _groups(sources, group_key)
    if train is not None and not allow_overlap:
        _refuse_overlap(table, sources, group_key)
        _refuse_same_rows(table, x, sources, known)
    rows = np.flatnonzero((labels != None) & np.isfinite(known).all(axis=1))  # noqa: E711
    classes = names_in_order(labels[rows], [obs_of(t)[labels_key] for t in sources])
    check_classes(classes, labels_key, len(rows))

    rows = rows[take_shots(known[rows], labels[rows], n_shots, random_state)]
    probe = fit_probe(
        known[rows],
        labels[rows],
        groups[rows],
        classes=classes,
        method=method,
        n_neighbors=n_neighbors,
        random_state=random_state,
    )
    scores = np.full((len(x), len(classes)), np.nan, np.float32)
    whole = np.isfinite(x).all(axis=1)
    if whole.any():
        scores[whole] = probe.score(x[whole])
    if not inplace:
        return pd.DataFrame(scores, index=table.obs_names, columns=classes)

    best = np.where(whole, np.nan_to_num(scores, nan=-1).argmax(axis=1), -1)
    record = {
        "classes": classes,
        "labels_key": labels_key,
        "use": use,
        "method": method,
        "penalty": probe.penalty,
        "n_neighbors": probe.n_neighbors,
        "n_shots": n_shots,
        "ignore": list(ignore),
        "training_rows": {c: int((labels[rows] == c).sum()) for c in classes},
        "training_groups": sorted(set(groups[rows])),
        "own_labels": train is None,
        "random_state": random_state,
    }
    slide.put(
        Result(
            key_added,
            record,
            obs={
                key_added: pd.Categorical.from_codes(best, categories=pd.Index(classes)),
                _keys.confidence(key_added): scores.max(axis=1),
            },
            obsm={_keys.scores(key_added): scores},
            uns={key_added: {"classes": np.array(classes, dtype=str)}},
        )
    )
    return None


def check_probe(method: str, n_shots: int | None, n_neighbors: int) -> None:
    """Refuse an unknown method and numbers below one."""
    if method not in METHODS:
        raise ValueError(f"method={method!r} is not a classifier; choose one of {listing(METHODS)}.")
    for name, value in (("n_shots", n_shots), ("n_neighbors", n_neighbors)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1):
            raise ValueError(f"{name} must be a positive whole number, not {value!r}.")


def check_classes(classes: Sequence[str], labels_key: str, n_rows: int) -> None:
    """Refuse fewer than two classes."""
    if len(classes) < 2:
        raise ValueError(
            f"At least two classes are needed; labels_key={labels_key!r} gives {listing(classes)} in the {n_rows} rows that have "
            "a known label and features without NaN."
        )


def _groups(tables: Sequence[AnnData], group_key: str) -> np.ndarray:
    if group_key != _keys.PATIENT and not any(group_key in table.obs for table in tables):
        every = dict.fromkeys(str(c) for table in tables for c in table.obs)
        raise KeyError(f"group_key={group_key!r} is not in .obs (found: {listing(every)}).")
    parts = []
    for i, table in enumerate(tables):
        obs: Any = table.obs
        values = group_names(obs[group_key]) if group_key in obs else np.full(table.n_obs, None, object)
        parts.append(np.array([f"object {i}" if v is None else v for v in values], dtype=object))
    return np.concatenate(parts)


def repeated(names: np.ndarray, x: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Which rows another group has too, by name and features, Boolean, shape (n,). Names alone repeat between sections."""
    out = np.zeros(len(names), bool)
    at = np.flatnonzero(pd.Series(names).duplicated(keep=False) & np.isfinite(x).all(axis=1))
    if len(at):
        rows = pd.DataFrame(x[at, :_COMPARED]).assign(name=names[at])
        same = rows.groupby(list(rows.columns), sort=False, dropna=False).ngroup()
        out[at] = pd.Series(groups[at]).groupby(same).transform("nunique") > 1
    return out


def _refuse_same_rows(table: AnnData, x: np.ndarray, sources: Sequence[AnnData], known: np.ndarray) -> None:
    names = np.concatenate([table.obs_names, *(t.obs_names for t in sources)])
    again = repeated(names, np.concatenate([x, known]), np.arange(len(names)) < len(x))
    n = int(again[: len(x)].sum())
    if 2 * n > len(x):
        raise ValueError(
            f"{n} of the {len(x)} rows of data are also in train (same names and features), so the result would not show how well new "
            "tissue is classified. Take them out of train, or pass allow_overlap=True."
        )


def _refuse_overlap(table: AnnData, sources: Sequence[AnnData], group_key: str) -> None:
    if any(t is table for t in sources):
        raise ValueError("data is also in train; leave train=… out to learn from the labelled rows of data itself.")
    if group_key not in table.obs:
        return
    own = set(group_names(table.obs[group_key])) - {None}
    trained = {v for t in sources if group_key in t.obs for v in group_names(t.obs[group_key])}
    if both := sorted(own & trained):
        raise ValueError(
            f"{group_key} {listing(both)} is both in data and in train, so the result would not show how well a new {group_key} is "
            "classified. Take it out of train, or pass allow_overlap=True."
        )
