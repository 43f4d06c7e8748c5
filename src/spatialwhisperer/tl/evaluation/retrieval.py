"""How well images find the expression of their own spot, and the other way round."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access.columns import as_list, stacked
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._docs import shared
from spatialwhisperer.retrieval.recall import partner_ranks
from spatialwhisperer.tl.evaluation.rows.groups import row_groups

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer._compute.ties import Ranks

K = (1, 5, 10)

CONVENTION = (
    "Recall@k: fraction of the rows whose own partner is among the k rows of the other modality with the highest cosine similarity; "
    "where a partner ties with others, the probability of that with ties broken at random. 'section': candidates are the rows of the same "
    "section, and the fraction is the mean over sections. 'all': candidates are all rows. 'chance' is the same for random ranks."
)


@shared
@checked
def evaluate_retrieval(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    *,
    image: str = _keys.IMAGE,
    gene: str = _keys.GENE,
    group_key: str | None = None,
    table_key: str | None = None,
) -> pd.DataFrame:
    """Measure how often an image finds the expression of its own spot among others, and the other way round.

    It says how much the two embeddings share, on sections that training has not seen. A high recall does not mean good labels: the two
    can pull apart.

    Parameters
    ----------
    data
        Objects with both embeddings; see :func:`embed`.
    image, gene
        Keys of ``.obsm``. Rows with NaN in either are left out.
    group_key
        Column of ``.obs`` with the groups whose rows are candidates of each other; ``None`` takes the sections. Rows of two objects are
        never of one group.
    %(table_key)s

    Returns
    -------
    DataFrame by direction ("image → gene", "gene → image") and candidates ("section", "all"): ``n`` rows, ``recall@1``, ``recall@5``,
    ``recall@10`` and what chance gives for each, and ``median_rank``. ``.attrs["convention"]`` states the protocol.

    Raises
    ------
    KeyError
        If an embedding or the column of the groups does not exist.
    ValueError
        If fewer than two rows have both embeddings, or the embeddings have different numbers of columns.

    Examples
    --------
    >>> import numpy as np
    >>> import spatialwhisperer as sw
    >>> section = sw.datasets.simulate_sections(1, 40, n_genes=60, n_reference_cells=50, random_state=0).sections["P1"]
    >>> section["table"].obsm["X_sw_image"] = section["table"].obsm["X_sw_gene"] = np.eye(40)
    >>> sw.tl.evaluate_retrieval(section).loc[("image → gene", "section"), "recall@1"]
    np.float64(1.0)
    """
    slides = [Slide.open(d, table_key=table_key) for d in as_list(data)]
    tables = [slide.table for slide in slides]
    x, y = stacked(tables, image), stacked(tables, gene)
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f".obsm[{image!r}] has {x.shape[1]} columns and .obsm[{gene!r}] {y.shape[1]}: they are not of one joint space. Run "
            "sw.tl.embed(data, model=model) with one model."
        )
    rows = np.flatnonzero(np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1))
    if len(rows) < 2:
        raise ValueError(f"{len(rows)} rows have both embeddings; at least two are needed.")
    groups = [f"{number} {name}" for number, slide in enumerate(slides) for name in row_groups(slide, group_key)]
    sections = np.unique(groups, return_inverse=True)[1][rows]
    out = {}
    for name, a, b in (("image → gene", x[rows], y[rows]), ("gene → image", y[rows], x[rows])):
        out[name, "section"] = _summary(partner_ranks(a, b, sections), sections)
        everywhere = np.zeros(len(rows), int)
        out[name, "all"] = _summary(partner_ranks(a, b, everywhere), everywhere)
    table = pd.DataFrame(list(out.values()), index=pd.MultiIndex.from_tuples(out, names=["direction", "candidates"]))
    table["n"] = table["n"].astype(int)
    table.attrs["convention"] = CONVENTION
    return table


def _summary(found: Ranks, groups: np.ndarray) -> dict[str, float]:
    """Recall at each k, its expectation by chance, and the median rank, averaged over groups."""
    each = [groups == g for g in np.unique(groups)]
    row: dict[str, float] = {"n": len(groups)}
    for k in K:
        row[f"recall@{k}"] = float(np.mean([found.within(k)[g].mean() for g in each]))
        row[f"chance@{k}"] = float(np.mean([min(1.0, k / g.sum()) for g in each]))
    row["median_rank"] = float(np.mean([np.median(found.mean[g]) for g in each]))
    return row
