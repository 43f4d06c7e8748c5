"""Tables of a folder with a table of metadata, as data sets in GEO are shared."""

from __future__ import annotations

from pathlib import Path

from spatialwhisperer._checks.checked import checked
from spatialwhisperer._messages import listing
from spatialwhisperer.datasets.folders.metadata import patients_of, queried, read_metadata
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
        If there is no table of metadata with both columns, or no ``.h5ad`` file that it names.
    ValueError
        If the metadata name a table twice or not at all, or the query cannot be read or fits no table.

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
    chosen = [str(name) for name in queried(table, query).index if name in there]
    if not chosen:
        raise FileNotFoundError(f"{where} holds no <{id_key}>.h5ad that was asked for; found {listing(there)}.")
    patients = patients_of(table, patient_key)
    found = SectionFolder(
        {name: there[name] for name in chosen}, table.loc[chosen], {name: patients[name] for name in chosen}
    )
    return found.with_duplicates_joined() if join_duplicates else found
