"""How well classes are predicted in held-out patients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access.columns import columns, stacked, tables_of
from spatialwhisperer._access.result import Result, write_results
from spatialwhisperer._access.table.groups import known_labels, names_in_order
from spatialwhisperer._access.table.placing import check_kept, check_others_kept
from spatialwhisperer._access.tables import obs_of
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._checks.values import check_key_added
from spatialwhisperer._docs import shared
from spatialwhisperer._messages import listing
from spatialwhisperer.statistics.intervals.auroc import aurocs
from spatialwhisperer.statistics.intervals.uncertainty import jackknife
from spatialwhisperer.tl._tissue.probes import Method, fit_probe, take_shots
from spatialwhisperer.tl.classify import check_classes, check_probe, repeated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

CONVENTION = (
    "Leave one group out: the classes of a group are predicted by a classifier of the other groups. Predictions of all groups are pooled; "
    "F1 by class, macro-F1 (mean over classes), balanced accuracy (mean recall over classes) and accuracy of the best class, "
    "AUROC one class against the rest of the pooled scores. Classes are those with a known label; one that a single group has "
    "cannot be predicted there and counts as missed. 'majority' predicts the most frequent class of the other groups."
)
_MACRO = ("f1", "balanced_accuracy", "accuracy")


@shared
@checked
def evaluate_classes(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    *,
    labels_key: str,
    use: str | Sequence[str] = _keys.IMAGE,
    method: Method = "logistic",
    group_key: str = "patient",
    n_shots: int | None = None,
    ignore: Sequence[str] = ("undetermined",),
    n_neighbors: int = 15,
    intervals: bool = False,
    key_added: str | None = None,
    table_key: str | None = None,
    random_state: int = 0,
) -> pd.DataFrame:
    """Measure the classes of :func:`classify` by leaving one patient out at a time.

    Scores of single patients are undefined where a patient lacks a class, so the predictions are pooled before they are scored.

    Parameters
    ----------
    data
        Objects with known labels; all sections of a patient are left out together.
    labels_key
        Column of ``.obs`` with the known labels; rows where it is missing are left out.
    use
        Key of ``.obsm`` with features; several to compare them on the same rows, those without NaN in any of them.
    method, n_shots, n_neighbors
        As in :func:`classify`.
    group_key
        Column of ``.obs`` with the group that is left out.
    ignore
        Labels that are left out.
    intervals
        Add 95 % intervals over groups: the jackknife that leaves out one group at a time, with Student's t. Differences between keys
        are paired. There is none with fewer than three groups.
    key_added
        Column of ``.obs`` to write the pooled predictions to, for :func:`spatialwhisperer.pl.confusion`; for one key only.
    %(table_key)s
    %(random_state)s

    Returns
    -------
    DataFrame by class: ``n``, ``n_groups`` that have it, ``precision``, ``recall``, ``f1``, ``auroc``; then the row ``"macro"`` with
    means over classes, ``balanced_accuracy`` and ``accuracy``, and the row ``"majority"``. With ``intervals`` also
    ``<metric>_low`` and ``<metric>_high`` in the row ``"macro"``; with several keys the index is (use, class), and with both the
    difference of macro-F1 from the first key, ``f1_gain``, and its interval. ``.attrs["convention"]`` states the protocol.

    Raises
    ------
    KeyError
        If labels, groups or features do not exist.
    ValueError
        If there is one group only, fewer than two classes, a group whose absence leaves fewer than two classes, or the same rows in
        two groups.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sections = sw.datasets.simulate_sections(3, 40, n_genes=60, n_reference_cells=50, random_state=0).sections
    >>> for section in sections.values():
    ...     sw.pp.embed_images(section, tile_um=80, tile_px=64)
    >>> result = sw.tl.evaluate_classes(
    ...     list(sections.values()), labels_key="cell_type", use="X_stain_texture", method="prototypes"
    ... )
    >>> bool(result.loc["macro", "f1"] > result.loc["majority", "f1"])
    True
    """
    check_probe(method, n_shots, n_neighbors)
    check_key_added(key_added)
    keys = [use] if isinstance(use, str) else list(dict.fromkeys(use))
    if not keys:
        raise ValueError("use is an empty list; name at least one key of .obsm.")
    if key_added is not None and len(keys) > 1:
        raise ValueError(f"key_added={key_added!r} holds the predictions of one key; {len(keys)} were given.")
    tables = tables_of(data, table_key)
    if key_added is not None:
        for table in tables:
            check_kept(table, key_added, [key_added])
            check_others_kept(table, key_added, [key_added])
    features = {name: stacked(tables, name) for name in keys}
    labels = known_labels(columns(tables, labels_key, "labels_key"), ignore)
    remedy = "Pass group_key='section' to leave sections out instead."
    groups = columns(tables, group_key, "group_key", remedy)
    rows = np.flatnonzero((labels != None) & np.all([np.isfinite(x).all(axis=1) for x in features.values()], axis=0))  # noqa: E711
    classes = names_in_order(labels[rows], [obs_of(t)[labels_key] for t in tables])
    check_classes(classes, labels_key, len(rows))
    y = pd.Categorical(labels[rows], categories=classes).codes.astype(int)
    _check_groups(groups[rows], y, group_key)
    names = np.concatenate([t.obs_names for t in tables])
    _check_repeated(names[rows], features[keys[0]][rows], groups[rows], group_key)
    # in the order of their names: folds and draws of a group do not depend on which object was passed first
    codes = np.unique(groups[rows].astype(str), return_inverse=True)[1]
    options: dict[str, Any] = {
        "classes": classes,
        "method": method,
        "n_neighbors": n_neighbors,
        "n_shots": n_shots,
        "random_state": random_state,
    }
    scores = {s: out_of_fold(x[rows], labels[rows], codes, **options) for s, x in features.items()}
    results = {s: _summary(z, y, codes, classes, intervals) for s, z in scores.items()}
    if intervals and len(keys) > 1:
        _add_gains(results, scores, y, codes, len(classes))
    if key_added is not None:
        _write(tables, rows, scores[keys[0]], classes, key_added, use=keys[0], method=method, group_key=group_key)
    out = results[keys[0]] if isinstance(use, str) else pd.concat(results, names=["use", "class"])
    out.attrs["convention"] = CONVENTION
    return out


def out_of_fold(
    x: np.ndarray, labels: np.ndarray, codes: np.ndarray, *, n_shots: int | None, random_state: int, **options: Any
) -> np.ndarray:
    """Scores (n, number of classes) of the rows of each group by a classifier of the other groups."""
    scores = np.zeros((len(labels), len(options["classes"])))
    for group in np.unique(codes):
        out = codes == group
        rest = np.flatnonzero(~out)
        rest = rest[take_shots(x[rest], labels[rest], n_shots, random_state + int(group))]
        probe = fit_probe(x[rest], labels[rest], codes[rest], random_state=random_state, **options)
        scores[out] = probe.score(x[out])
    return scores


def _check_groups(groups: np.ndarray, y: np.ndarray, group_key: str) -> None:
    if (groups == None).any():  # noqa: E711
        raise ValueError(f".obs[{group_key!r}] is missing in labelled rows; every labelled row needs a group.")
    names = list(dict.fromkeys(groups))
    remedy = "" if group_key == "section" else " Pass group_key='section' to leave sections out instead, and say so."
    if len(names) < 2:
        raise ValueError(
            f"All labelled rows are of one {group_key} ({names[0]}): there is none to leave out.{remedy} Or pass more objects."
        )
    alone = [g for g in names if len(np.unique(y[groups != g])) < 2]
    if alone:
        raise ValueError(f"Without {group_key} {listing(alone)} fewer than two classes are left to learn from.{remedy}")


def _check_repeated(names: np.ndarray, x: np.ndarray, groups: np.ndarray, group_key: str) -> None:
    """Refuse a section that is there twice, as two groups: each would be predicted from itself."""
    again = repeated(names, x, groups)
    counts = pd.Series(again).groupby(groups).mean()
    twice = counts.index[counts > 0.5].tolist()
    if twice:
        raise ValueError(
            f"{group_key} {listing(twice)} hold the same rows (same names and features): those that are left out would be learnt from. "
            f"Pass each section once, or give its copies one {group_key}."
        )


def _summary(scores: np.ndarray, y: np.ndarray, codes: np.ndarray, classes: list[str], intervals: bool) -> pd.DataFrame:
    from sklearn.metrics import precision_recall_fscore_support

    k = len(classes)
    guess = scores.argmax(axis=1)
    precision, recall, f1, n = precision_recall_fscore_support(y, guess, labels=range(k), zero_division=0)
    out = pd.DataFrame(
        {
            "n": n,
            "n_groups": [len(np.unique(codes[y == c])) for c in range(k)],
            "precision": precision,
            "recall": recall,
            "f1": f1,
            "auroc": aurocs(scores, y),
            "balanced_accuracy": np.nan,
            "accuracy": np.nan,
        },
        index=pd.Index(classes, name="class"),
    )
    means = out[["precision", "recall", "f1", "auroc"]].mean().to_dict()
    counts = {"n": len(y), "n_groups": codes.max() + 1}
    tables = confusions(y, guess, codes, k)
    totals = _macro(tables.sum(axis=0))
    out.loc["macro"] = counts | means | totals
    # of equally frequent classes the first of the alphabet, whatever the order of the categories
    ordered = np.argsort(classes)
    counted = [np.bincount(y[codes != g], minlength=k)[ordered] for g in range(codes.max() + 1)]
    common = ordered[np.argmax(counted, axis=1)][codes]
    out.loc["majority"] = counts | {"auroc": 0.5} | _macro(confusions(y, common, codes, k).sum(axis=0))
    if intervals:
        without = pd.DataFrame(_without_each(tables))
        for name in _MACRO:
            ends = jackknife(without[name].to_numpy(), np.bincount(codes)).interval(totals[name], bounded=True)
            out.loc["macro", [f"{name}_low", f"{name}_high"]] = ends
    return out.astype({"n": int, "n_groups": int})


def confusions(y: np.ndarray, guess: np.ndarray, codes: np.ndarray, k: int) -> np.ndarray:
    """Rows by group, true class and predicted class; shape (groups, k, k)."""
    out = np.zeros((codes.max() + 1, k, k))
    np.add.at(out, (codes, y, guess), 1)
    return out


def _macro(table: np.ndarray) -> dict[str, float]:
    """Macro-F1, balanced accuracy and accuracy over the classes that have rows."""
    true, guessed, correct = table.sum(axis=1), table.sum(axis=0), np.diag(table)
    has = true > 0
    return {
        "f1": float((2 * correct[has] / (true + guessed)[has]).mean()),
        "balanced_accuracy": float((correct[has] / true[has]).mean()),
        "accuracy": float(correct.sum() / table.sum()),
    }


def _without_each(tables: np.ndarray) -> list[dict[str, float]]:
    """The figures without each group in turn."""
    return [_macro(tables.sum(axis=0) - one) for one in tables]


def _add_gains(
    results: dict[str, pd.DataFrame],
    scores: dict[str, np.ndarray],
    y: np.ndarray,
    codes: np.ndarray,
    k: int,
) -> None:
    """Difference of the macro-F1 of each key from that of the first, and its interval."""
    first, *others = results
    tables = {s: confusions(y, z.argmax(axis=1), codes, k) for s, z in scores.items()}
    for other in others:
        pairs = zip(_without_each(tables[other]), _without_each(tables[first]), strict=True)
        without = np.array([one["f1"] - base["f1"] for one, base in pairs])
        gain = _macro(tables[other].sum(axis=0))["f1"] - _macro(tables[first].sum(axis=0))["f1"]
        low, high = jackknife(without, np.bincount(codes)).interval(gain, within=(-1, 1))
        for column, value in (("f1_gain", gain), ("f1_gain_low", low), ("f1_gain_high", high)):
            results[other].loc["macro", column] = value


def _write(
    tables: Sequence[AnnData], rows: np.ndarray, scores: np.ndarray, classes: list[str], key: str, **parameters: Any
) -> None:
    codes = np.full(sum(t.n_obs for t in tables), -1)
    codes[rows] = scores.argmax(axis=1)
    for table, part in zip(tables, np.split(codes, np.cumsum([t.n_obs for t in tables])[:-1]), strict=True):
        record = {"classes": classes, "out_of_fold": True, **parameters}
        guess = pd.Categorical.from_codes(part, categories=pd.Index(classes))
        write_results(table, (Result(key, record, obs={key: guess}),))
