"""How well domains agree with known regions, on average over many seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

import numpy as np
import pandas as pd

from spatialwhisperer._access.columns import as_list, column
from spatialwhisperer._access.names import check_names
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.table.groups import known_labels
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._docs import shared
from spatialwhisperer._messages import listing
from spatialwhisperer.tl._tissue.clusters import components
from spatialwhisperer.tl._tissue.neighbours import Smoothing, as_smoothing, order_on_tissue, part_of, spatial_graph
from spatialwhisperer.tl.domains import Method, check_clustering, domain_values, partition

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer._access.slide_options import SlideOptions

CONVENTION = (
    "Within each section, rows without a label or with an ignored one are dropped; components and clusters are those of the remaining "
    "rows, as many clusters as labels remain unless n_domains says otherwise; adjusted Rand index and normalised mutual information "
    "(arithmetic) with the labels, mean and standard deviation over seeds of one start each (mclSTExp, which takes a single seed)."
)


@shared
@checked
def evaluate_domains(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    truth: str,
    *,
    use: str | Sequence[str] = "expression",
    n_domains: int | None = None,
    n_seeds: int = 20,
    ignore: Sequence[str] = ("undetermined",),
    method: Method = "kmeans",
    smooth: float | Smoothing = 0.0,
    n_pcs: int | None = 9,
    n_top_genes: int | None = 1000,
    group_key: str | None = None,
    prediction: AnnData | Sequence[AnnData] | None = None,
    layer: str | None = None,
    random_state: int = 0,
    **slide: Unpack[SlideOptions],
) -> pd.DataFrame:
    """Measure how well :func:`spatial_domains` recover known regions of each section.

    Results of k-means vary more from seed to seed than most methods differ from each other, so that the mean over seeds is taken.

    Parameters
    ----------
    data
        One object or several.
    truth
        Column of ``.obs`` with the known regions; rows where it is missing are left out.
    use
        What is clustered, as in :func:`spatial_domains`; several to compare them. For ``"observed"`` the union of the variable genes
        of all sections of an object is used.
    n_domains
        Number of domains; ``None`` takes, in each section, the number of labels that remain.
    n_seeds
        Number of seeds.
    ignore
        Labels that are left out.
    method, smooth, n_pcs, n_top_genes
        As in :func:`spatial_domains`. Neighbours without a label are left out too.
    group_key
        Column of ``.obs`` with the group to partition on its own; ``None`` takes the section.
    prediction
        Predicted expression of an AnnData, for ``use="expression"``; one for each object.
    %(layer)s
    random_state
        First seed; the others follow.
    %(slide)s

    Returns
    -------
    DataFrame, one row per section and ``use``, with ``section``, ``use``, ``n`` (rows), ``n_domains``, ``ari``, ``ari_sd``,
    ``nmi``, ``nmi_sd``; then a row ``"mean"`` per ``use`` whose ``*_sd`` is the standard deviation over seeds of the mean over
    sections. ``.attrs["convention"]`` states the protocol.

    Raises
    ------
    KeyError
        If values, labels or graph do not exist.
    ValueError
        If a section has fewer than two labels, there are more domains than rows, or a number is out of range.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> section = sw.datasets.simulate_sections(1, 80, n_genes=60, n_reference_cells=50, random_state=0).sections["P1"]
    >>> result = sw.tl.evaluate_domains(section, "cell_type", use="observed", n_seeds=3)
    >>> result["section"].tolist()
    ['P1_spots', 'mean']
    """
    smoothing = as_smoothing(smooth)
    check_clustering(method, n_pcs, n_seeds)
    names = [use] if isinstance(use, str) else list(dict.fromkeys(use))
    if not names:
        raise ValueError("use is an empty list; name at least one kind of values.")
    objects = as_list(data)
    predictions: list[Any] = list(prediction) if isinstance(prediction, list | tuple) else [prediction]
    if prediction is None:
        predictions = [None] * len(objects)
    if len(predictions) != len(objects):
        raise ValueError(f"{len(predictions)} predictions were given for {len(objects)} objects.")
    if any(p is not None for p in predictions) and "expression" not in names:
        raise ValueError(f"prediction applies to use='expression', which is not among {listing(map(repr, names))}.")
    slides = [Slide.open(one, **slide) for one in objects]
    check_names(slides, layer=layer)
    tasks: list[_Task] = []
    for number, (opened, predicted) in enumerate(zip(slides, predictions, strict=True)):
        where = "" if len(objects) == 1 else f" of object {number}"
        table = opened.table
        labels = known_labels(column(table, truth, "truth", where), ignore)
        groups = opened.sections if group_key is None else column(table, group_key, "group_key", where)
        graph = spatial_graph(opened, smoothing)
        for name in names:
            given = predicted if name == "expression" else None
            values = domain_values(opened, name, prediction=given, layer=layer, n_top_genes=n_top_genes)
            tasks += _tasks(opened, name, values, labels, groups, graph, n_domains, f"{truth!r}{where}", n_pcs)
    options = {"method": method, "smoothing": smoothing, "n_init": 1}
    runs = [[_agreement(task, random_state + seed, options) for seed in range(n_seeds)] for task in tasks]
    out = _table(tasks, np.array(runs), names)
    out.attrs["convention"] = CONVENTION
    return out


class _Task(NamedTuple):
    """Labelled rows of one section, as components."""

    section: str
    use: str
    z: np.ndarray
    labels: np.ndarray
    graph: Any
    n_domains: int


def _tasks(
    slide: Slide,
    use: str,
    values: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    graph: Any,
    n_domains: int | None,
    truth: str,
    n_pcs: int | None,
) -> list[_Task]:
    kept = (labels != None) & (groups != None) & np.isfinite(values).all(axis=1)  # noqa: E711
    if not kept.any():
        raise ValueError(f"No row has both a known label in {truth} and values without NaN for use={use!r}.")
    out = []
    for section in pd.unique(groups[kept]):
        rows = np.flatnonzero(kept & (groups == section))
        rows = order_on_tissue(slide, rows, values, graph)
        distinct = pd.unique(labels[rows])
        if len(distinct) < 2:
            raise ValueError(
                f"Section {section} has one label only in {truth} ({distinct[0]}): no agreement is defined. Leave it out."
            )
        n = len(distinct) if n_domains is None else n_domains
        if not 2 <= n <= len(rows):
            raise ValueError(f"n_domains={n} does not fit the {len(rows)} labelled rows of section {section}.")
        part = part_of(graph, rows)
        out.append(_Task(str(section), use, components(values[rows], n_pcs, 0), labels[rows], part, n))
    return out


def _agreement(task: _Task, seed: int, options: dict[str, Any]) -> tuple[float, float]:
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    codes = partition(task.z, task.graph, task.n_domains, random_state=seed, **options)
    return adjusted_rand_score(task.labels, codes), normalized_mutual_info_score(task.labels, codes)


def _table(tasks: list[_Task], runs: np.ndarray, names: list[str]) -> pd.DataFrame:
    """``runs`` has shape (tasks, seeds, 2)."""
    rows = [
        {"section": t.section, "use": t.use, "n": len(t.labels), "n_domains": t.n_domains} | _moments(run)
        for t, run in zip(tasks, runs, strict=True)
    ]
    for name in names:
        mine = [i for i, t in enumerate(tasks) if t.use == name]
        total = {"section": "mean", "use": name, "n": sum(len(tasks[i].labels) for i in mine), "n_domains": pd.NA}
        rows.append(total | _moments(runs[mine].mean(axis=0)))
    return pd.DataFrame(rows).astype({"n_domains": "Int64"})


def _moments(run: np.ndarray) -> dict[str, float]:
    (ari, nmi), (ari_sd, nmi_sd) = run.mean(axis=0), run.std(axis=0)
    return {"ari": ari, "ari_sd": ari_sd, "nmi": nmi, "nmi_sd": nmi_sd}
