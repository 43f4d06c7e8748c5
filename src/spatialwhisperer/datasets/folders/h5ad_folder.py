"""Tables of a folder with a table of metadata, as data sets in GEO are shared."""

from __future__ import annotations

from pathlib import Path

from spatialwhisperer._checks.checked import checked
from spatialwhisperer.datasets.folders.metadata import patients_of, read_metadata, sections_of
from spatialwhisperer.datasets.folders.sections import SectionFolder


@checked
def h5ad_folder(
    folder: str | Path,
    *,
    query: str | None = None,
    metadata: str | None = None,
    id_key: str = "id",
    patient_key: str = "patient",
    join_duplicates: bool = False,
) -> SectionFolder:
    """Find the tables of a folder that holds ``<id>.h5ad`` files and one table of metadata.

    Parameters
    ----------
    folder
        The folder.
    query
        Which tables: a query of :meth:`pandas.DataFrame.query` over the metadata.
    metadata
        Name of the table of metadata, ``.csv`` or ``.tsv``, also compressed (``.gz``), where the folder holds several.
    id_key, patient_key
        Columns of the metadata with the name of a table (its file without ``.h5ad``), and with its patient.
    join_duplicates
        Read every table and compare their counts: patients of near-identical tables are taken for one.

    Returns
    -------
    :class:`~spatialwhisperer.datasets.SectionFolder`, a mapping from name to AnnData, with the metadata in ``.obs``.

    Raises
    ------
    FileNotFoundError
        If there is no table of metadata with both columns, or no ``.h5ad`` file that was asked for.
    ValueError
        If the metadata name a table twice or not at all, a file has no row, or the query cannot be read or fits no table.

    Examples
    --------
    >>> import tempfile
    >>> import pandas as pd
    >>> import spatialwhisperer as sw
    >>> from pathlib import Path
    >>> folder = Path(tempfile.mkdtemp())
    >>> cells = sw.datasets.simulate_sections(1, 80, n_genes=60, n_reference_cells=50, random_state=0).reference
    >>> cells.write_h5ad(folder / "GSM1.h5ad")
    >>> pd.DataFrame({"id": ["GSM1"], "patient": ["A"], "tissue": ["breast"]}).to_csv(
    ...     folder / "samples.csv", index=False
    ... )
    >>> tables = sw.datasets.h5ad_folder(folder, query="tissue == 'breast'")
    >>> tables["GSM1"].obs["tissue"].iloc[0]
    'breast'
    """
    where = Path(folder).expanduser()
    table = read_metadata(where, metadata, id_key=id_key, patient_key=patient_key)
    there = {path.stem: path for path in sorted(where.glob("*.h5ad"))}
    chosen = sections_of(table, there, query, where)
    patients = patients_of(table, patient_key)
    found = SectionFolder(
        {name: there[name] for name in chosen}, table.loc[chosen], {name: patients[name] for name in chosen}
    )
    return found.with_duplicates_joined() if join_duplicates else found
