"""Spatial domains: clusters of predicted or observed expression, or of an embedding, smoothed over neighbours on request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access.columns import column, matrix
from spatialwhisperer._access.names import check_names
from spatialwhisperer._access.result import Result
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.table.row_names import check_same_rows
from spatialwhisperer._access.tables import is_spatialdata
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._checks.values import check_key_added, check_text
from spatialwhisperer._docs import shared
from spatialwhisperer._messages import listing, warn
from spatialwhisperer.tl._tissue.clusters import METHODS, components, kmeans, leiden, smoothed
from spatialwhisperer.tl._tissue.neighbours import Smoothing, as_smoothing, order_on_tissue, part_of, spatial_graph
from spatialwhisperer.tl._tissue.observed import variable_expression

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer._access.slide_options import SlideOptions

Method = Literal["kmeans", "leiden"]


@shared
@checked
def spatial_domains(
    data: AnnData | SpatialData,
    *,
    n_domains: int,
    use: str = "expression",
    method: Method = "kmeans",
    smooth: float | Smoothing = 0.0,
    n_pcs: int | None = 9,
    n_top_genes: int | None = 1000,
    n_init: int = 10,
    group_key: str | None = None,
    prediction: AnnData | None = None,
    layer: str | None = None,
    key_added: str = _keys.DOMAIN,
    random_state: int = 0,
    inplace: bool = True,
    **slide: Unpack[SlideOptions],
) -> pd.Series | None:
    """Partition the tissue into spatial domains.

    ``"kmeans"`` is the procedure of mclSTExp (Min et al., Brief Bioinform 2024): principal components, then k-means++. With
    ``smooth`` = a > 0 the components z of a row are first mixed with the mean of its neighbours on the tissue,
    z <- (1 - a) z + a (mean of the neighbours), ``n_rings`` times. ``"leiden"`` finds communities (Traag et al., 2019) in the graph
    (1 - a) E + a S, where E is scanpy's neighbourhood graph of the components and S that of the neighbours on the tissue, at the
    resolution that gives ``n_domains``; where none of those tried does, a warning says how many there are. The domains are the same
    in whatever order the rows stand.

    Parameters
    ----------
    data
        What to partition. All rows are clustered together, so that a domain means the same in every section.
    n_domains
        Number of domains.
    use
        ``"expression"``: the table that :func:`predict_expression` wrote. ``"observed"``: log1p(CP10k) of raw counts.
        ``"embedding"``: the joint image embedding. Anything else: a key of ``.obsm``.
    method
        The clustering.
    smooth
        Weight of the neighbours on the tissue, 0 to 1, or :class:`Smoothing`.
    n_pcs
        Number of principal components; ``None`` clusters the values themselves.
    n_top_genes
        For ``"observed"``: number of highly variable genes of each section, of which the union is used; ``None`` takes every gene.
    n_init
        Number of starts of k-means, of which the best is kept.
    group_key
        Column of ``.obs``; the rows of each group are partitioned on their own, and domains of different groups then have nothing in
        common.
    prediction
        The predicted expression, for ``use="expression"`` of an AnnData; rows in the order of ``data``.
    %(layer)s
    key_added
        Column of ``.obs`` to write.
    %(random_state)s
    %(inplace)s
    %(slide)s

    Returns
    -------
    ``None``, or with ``inplace=False`` the domains as a Series. In place it writes:

    ``.obs['sw_domain']`` : :class:`pandas.Series` (dtype ``category``)
        "0", "1", … from the largest to the smallest domain; NaN where the values hold NaN.

    Raises
    ------
    KeyError
        If values, graph or columns do not exist.
    ValueError
        If there are more domains than rows, or a number is out of range.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> section = sw.datasets.simulate_sections(1, 80, n_genes=60, n_reference_cells=50, random_state=0).sections["P1"]
    >>> sw.tl.spatial_domains(section, use="observed", n_domains=3)
    >>> section["table"].obs["sw_domain"].cat.categories.tolist()
    ['0', '1', '2']
    """
    check_key_added(key_added)
    opened = Slide.open(data, **slide)
    check_names([opened], layer=layer, group_key=group_key)
    if inplace:
        opened.check_column(key_added)
    table = opened.table
    smoothing = as_smoothing(smooth)
    check_clustering(method, n_pcs, n_init)
    if isinstance(n_domains, bool) or not isinstance(n_domains, int | np.integer) or n_domains < 2:
        raise ValueError(f"n_domains must be a whole number above 1, not {n_domains!r}.")
    groups = np.full(table.n_obs, "all", object) if group_key is None else column(table, group_key, "group_key")
    values = domain_values(opened, use, prediction=prediction, layer=layer, n_top_genes=n_top_genes)
    whole = np.isfinite(values).all(axis=1) & (groups != None)  # noqa: E711
    names = pd.unique(groups[whole])
    _check_rows(groups[whole], names, n_domains, group_key)
    graph = spatial_graph(opened, smoothing)
    codes = np.full(table.n_obs, -1)
    for name in names:
        rows = np.flatnonzero(whole & (groups == name))
        rows = order_on_tissue(opened, rows, values, graph)
        codes[rows] = partition(
            components(values[rows], n_pcs, random_state),
            part_of(graph, rows),
            n_domains,
            method=method,
            smoothing=smoothing,
            n_init=n_init,
            random_state=random_state,
        )
        _say_number(int(codes[rows].max()) + 1, n_domains, "" if group_key is None else f" in {group_key} {name}")
    result = pd.Categorical.from_codes(codes, categories=pd.Index([str(i) for i in range(int(codes.max()) + 1)]))
    if not inplace:
        return pd.Series(result, index=table.obs_names, name=key_added)
    record = {
        "use": use,
        "method": method,
        "n_domains": n_domains,
        "smoothing": smoothing,
        "n_pcs": n_pcs,
        "n_top_genes": n_top_genes if use == "observed" else None,
        "layer": layer if use == "observed" else None,
        "n_init": n_init if method == "kmeans" else None,
        "group_key": group_key,
        "random_state": random_state,
    }
    # the colours of an earlier partition would belong to other domains
    opened.put(Result(key_added, record, obs={key_added: result}, gone=(f"{key_added}_colors",)))
    return None


def _say_number(found: int, asked: int, where: str) -> None:
    if found < asked:
        warn(f"Only {found} domains were found{where}: the rows do not split into {asked}.")
    elif found > asked:
        warn(
            f"{found} domains were found{where}, and not {asked}: no resolution that was tried gives {asked} communities. "
            "Pass another random_state, or method='kmeans', which always gives the number that is asked for."
        )


def partition(
    z: np.ndarray,
    graph: Any,
    n_domains: int,
    *,
    method: str,
    smoothing: Smoothing,
    n_init: int,
    random_state: int,
) -> np.ndarray:
    """Domain of each row, 0 the largest; ``z`` are components, ``graph`` their part of the spatial graph or ``None``."""
    if method == "kmeans":
        return kmeans(
            smoothed(z, graph, smoothing.weight, smoothing.n_rings), n_domains, n_init=n_init, random_state=random_state
        )
    return leiden(z, graph, smoothing.weight, n_domains, random_state=random_state)


def domain_values(
    slide: Slide,
    use: str,
    *,
    prediction: AnnData | None,
    layer: str | None,
    n_top_genes: int | None,
) -> np.ndarray:
    """What is clustered, shape (n, d): predicted or observed expression, or a key of ``.obsm``."""
    check_text("use", use)
    if prediction is not None and use != "expression":
        raise ValueError(f"prediction applies to use='expression', not to {use!r}.")
    if use == "expression":
        return _predicted(slide, prediction)
    if use == "observed":
        return variable_expression(slide.table, slide.sections, n_top_genes, layer)
    return matrix(slide.table, _keys.IMAGE if use == "embedding" else use)


def _predicted(slide: Slide, prediction: AnnData | None) -> np.ndarray:
    data, table = slide.data, slide.table
    if prediction is None and is_spatialdata(data) and _keys.EXPRESSION in data.tables:
        prediction = data.tables[_keys.EXPRESSION]
    if prediction is None:
        raise KeyError(
            "There is no predicted expression. Run sw.tl.predict_expression first (for an AnnData pass what it returns as "
            "prediction=…), or pass use='observed', use='embedding' or a key of .obsm."
        )
    if not hasattr(prediction, "obs_names"):
        raise TypeError(
            f"prediction must be an AnnData, not {type(prediction).__name__}: what sw.tl.predict_expression returns."
        )
    check_same_rows(prediction, table)
    values: Any = prediction.X
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values, dtype=np.float64)


def check_clustering(method: str, n_pcs: int | None, n_init: int) -> None:
    """Refuse an unknown method and numbers out of range."""
    if method not in METHODS:
        raise ValueError(f"method={method!r} is not a clustering; choose one of {listing(METHODS)}.")
    for name, value in (("n_pcs", n_pcs), ("n_init", n_init)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1):
            raise ValueError(f"{name} must be a positive whole number, not {value!r}.")


def _check_rows(groups: np.ndarray, names: np.ndarray, n_domains: int, group_key: str | None) -> None:
    if not len(groups):
        raise ValueError("Every row has a NaN, so there is nothing to partition.")
    for name in names:
        n = int((groups == name).sum())
        if n < n_domains:
            where = "" if group_key is None else f" of {group_key} {name}"
            raise ValueError(f"n_domains={n_domains} is more than the {n} rows{where} without NaN.")
