"""Cells of the CELLxGENE Census, data set by data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from spatialwhisperer._access.tables import obs_of
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._messages import listing, require
from spatialwhisperer._settings import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

VERSION = "2023-12-15"
"""Release of the Census that the published model was trained on."""

FIELDS = (
    "assay",
    "cell_type",
    "cell_type_ontology_term_id",
    "development_stage",
    "disease",
    "disease_ontology_term_id",
    "donor_id",
    "sex",
    "tissue",
    "tissue_ontology_term_id",
)
"""Columns of ``.obs`` that are read."""

_DATASET = "dataset_id"


@dataclass(frozen=True)
class CensusTables(Mapping[str, Any]):
    """Cells of the Census by data set; each data set is read when it is asked for.

    Attributes
    ----------
    uri, version, organism
        Where the Census is read from, its release, and the organism.
    query
        Filter of the cells.
    datasets
        Number of cells of each data set.
    pseudobulk
        Columns by which counts of cells are summed; empty where rows are cells.
    min_genes
        Least number of genes of a row.
    """

    uri: str | None
    version: str
    organism: str
    query: str | None
    datasets: Mapping[str, int]
    pseudobulk: tuple[str, ...] = ()
    min_genes: int = 0

    def __getitem__(self, name: str) -> AnnData:
        if name not in self.datasets:
            raise KeyError(f"There is no data set {name!r} (found: {listing(self)}).")
        client = require("cellxgene_census", extra="census")
        with _opened(self.uri, self.version) as soma:
            table: AnnData = client.get_anndata(
                soma,
                self.organism,
                obs_value_filter=_both(self.query, f"{_DATASET} == {name!r}"),
                obs_column_names=[*FIELDS, _DATASET],
            )
        return self._finished(table)

    def __iter__(self) -> Iterator[str]:
        return iter(self.datasets)

    def __len__(self) -> int:
        return len(self.datasets)

    def __repr__(self) -> str:
        return f"CensusTables({sum(self.datasets.values())} cells of {len(self)} data sets)"

    def peek(self, name: str) -> AnnData:
        """Read the columns of the cells of a data set, without their counts.

        Parameters
        ----------
        name
            Name of the data set.
        """
        import anndata as ad

        with _opened(self.uri, self.version) as soma:
            experiment = soma["census_data"][self.organism]
            query = _both(self.query, f"{_DATASET} == {name!r}")
            columns = [*FIELDS, _DATASET]
            obs = experiment.obs.read(value_filter=query, column_names=columns).concat().to_pandas()
            var = experiment.ms["RNA"].var.read(column_names=["feature_id"]).concat().to_pandas()
        obs.index, var.index = obs.index.astype(str), pd.Index(var["feature_id"].astype(str))
        obs["patient"] = _patients(obs)
        return ad.AnnData(obs=obs, var=var)

    def _finished(self, table: AnnData) -> AnnData:
        if "feature_id" in table.var:
            table.var_names = [str(name) for name in table.var["feature_id"]]
        table.obs["patient"] = _patients(obs_of(table))
        if self.pseudobulk:
            table = _summed(table, [*dict.fromkeys(["patient", *self.pseudobulk])])
        counts: Any = table.X
        genes = np.asarray((counts != 0).sum(axis=1)).ravel()
        table = table[genes >= self.min_genes].copy()
        table.obs_names = [f"{i}" for i in range(table.n_obs)]
        return table


@checked
def census(
    query: str | None = None,
    *,
    organism: str = "homo_sapiens",
    version: str = VERSION,
    uri: str | None = None,
    pseudobulk: Sequence[str] = (),
    min_genes: int = 100,
) -> CensusTables:
    """Read cells of the CELLxGENE Census through its own client.

    It needs ``pip install 'spatialwhisperer[census]'``. Only what is asked for is downloaded, one data set at a time.

    Parameters
    ----------
    query
        Filter of the cells in the language of SOMA, such as ``"tissue_general == 'breast' and is_primary_data == True"``. ``None``
        reads all primary data.
    organism
        ``"homo_sapiens"`` or ``"mus_musculus"``.
    version
        Release of the Census. That of the published training is ``"2023-12-15"``.
    uri
        Folder or address of a Census that is stored elsewhere; ``None`` downloads.
    pseudobulk
        Columns by which cells of a donor are put together, such as ``("cell_type", "tissue", "assay", "disease")``: their counts are summed. The
        published training took the mean, whose ranks are the same. Empty keeps single cells.
    min_genes
        Rows with fewer genes are left out.

    Returns
    -------
    A mapping from data set to AnnData, which :class:`spatialwhisperer.pp.CorpusSource` takes: raw counts in ``.X``; Ensembl ids as
    names of genes; in ``.obs`` cell type, tissue, disease (names and ontology ids), assay, sex, stage, and ``patient``, which is the donor
    with the data set, because donors have names within one. :func:`spatialwhisperer.pp.caption_metadata` makes captions of them.

    Raises
    ------
    ImportError
        If ``cellxgene-census`` is not installed.
    FileNotFoundError
        If ``settings.offline`` is set and the Census is not in a local folder.
    ValueError
        If no cell fits, or the query cannot be read.

    References
    ----------
    CZI Cell Science Program, bioRxiv 2023.10.30.563174. Licence CC BY 4.0, https://chanzuckerberg.github.io/cellxgene-census.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> cells = sw.datasets.census("tissue_general == 'breast' and is_primary_data == True")  # doctest: +SKIP
    >>> source = sw.pp.CorpusSource("census", cells, licence="CC BY 4.0")  # doctest: +SKIP
    """
    require("cellxgene_census", extra="census")
    query = "is_primary_data == True" if query is None else query
    if wrong := [name for name in pseudobulk if name not in FIELDS]:
        raise ValueError(f"pseudobulk names {listing(wrong)}; the columns that are read are {listing(FIELDS, 20)}.")
    with _opened(uri, version) as soma:
        rows = _rows(soma, organism, query)
    if not len(rows):
        raise ValueError(f"No cell of the Census fits {query!r}.")
    counts = rows[_DATASET].astype(str).value_counts()
    datasets = {str(name): int(counts[name]) for name in sorted(counts.index)}
    return CensusTables(uri, version, organism, query, datasets, tuple(pseudobulk), min_genes)


def _opened(uri: str | None, version: str) -> Any:
    client = require("cellxgene_census", extra="census")
    if settings.offline and (uri is None or ("://" in uri and not uri.startswith("file://"))):
        raise FileNotFoundError(
            f"settings.offline is set, and the Census {uri or version} is read over the network. Pass uri=…, the local folder of a Census, "
            "or set spatialwhisperer.settings.offline = False."
        )
    return client.open_soma(uri=uri) if uri is not None else client.open_soma(census_version=version)


def _rows(soma: Any, organism: str, query: str) -> pd.DataFrame:
    experiments = soma["census_data"]
    if organism not in experiments:
        raise ValueError(f"The Census has no organism {organism!r} (found: {listing(experiments)}).")
    try:
        return experiments[organism].obs.read(value_filter=query, column_names=[_DATASET]).concat().to_pandas()
    except Exception as error:
        raise ValueError(f"query={query!r} cannot be read ({type(error).__name__}: {str(error)[:300]}).") from error


def _both(one: str | None, other: str) -> str:
    return other if one is None else f"({one}) and {other}"


def _patients(obs: pd.DataFrame) -> pd.Series:
    return obs[_DATASET].astype(str) + ":" + obs["donor_id"].astype(str)


def _summed(table: AnnData, by: list[str]) -> AnnData:
    """Sums of counts of the rows with the same values; other columns are kept where they are the same in all of them."""
    import anndata as ad
    import scipy.sparse as sp

    rows = obs_of(table)
    group = rows.groupby(by, observed=True, sort=True).ngroup().to_numpy()
    n = int(group.max()) + 1
    into = sp.csr_matrix((np.ones(len(group), np.float32), (group, np.arange(len(group)))), (n, len(group)))
    first = rows.groupby(group).first()
    alike = rows.groupby(group).nunique(dropna=False) <= 1
    obs = first.where(alike.reindex(columns=first.columns, fill_value=True))
    obs["cells"] = np.bincount(group)
    obs.index = obs.index.astype(str)
    return ad.AnnData(sp.csr_matrix(into @ table.X), obs=obs, var=cast("pd.DataFrame", table.var).copy())
