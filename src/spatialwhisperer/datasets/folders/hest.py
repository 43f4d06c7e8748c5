"""Sections of a folder in the layout of HEST-1k."""

from __future__ import annotations

from pathlib import Path

from spatialwhisperer._checks.checked import checked
from spatialwhisperer._messages import inform, listing
from spatialwhisperer.datasets.folders.metadata import patients_of, read_metadata, sections_of
from spatialwhisperer.datasets.folders.sections import SectionFolder

PATCH_UM = 112.0


@checked
def hest(
    folder: str | Path, *, query: str | None = None, metadata: str | None = None, join_duplicates: bool = False
) -> SectionFolder:
    """Find the sections of a folder in the layout of HEST-1k.

    The folder holds a table of metadata with the columns ``id`` and ``patient`` (``HEST_v1_1_0.csv`` or a later one),
    ``st/<id>.h5ad`` with raw counts, and ``patches/<id>.h5`` with patches of 224 pixels and 112 µm around the rows. Sections that are in the
    metadata and not in the folder are left out. Download them with the command that the authors state, by
    ``huggingface_hub.snapshot_download("MahmoodLab/hest", repo_type="dataset", allow_patterns=[…])``; the data set is gated.

    Parameters
    ----------
    folder
        The folder.
    query
        Which sections: a query of :meth:`pandas.DataFrame.query` over the metadata. That of the published training is
        ``"st_technology == 'Visium' and species == 'Homo sapiens' and pixel_size_um_estimated <= 0.8"``.
    metadata
        Name of the table of metadata, where the folder holds several.
    join_duplicates
        Read every section and compare their counts: patients of near-identical sections are taken for one, so that a section and its copy are
        on one side of every split.

    Returns
    -------
    :class:`~spatialwhisperer.datasets.SectionFolder`, a mapping from section to AnnData, which :class:`spatialwhisperer.pp.CorpusSource`
    takes. Sections that name no patient count as one patient of their data set, and a name that several data sets give is
    followed by the title of the data set. ``.uns["sw_patches"]`` of an AnnData says where its patches
    lie, from which :func:`spatialwhisperer.pp.build_corpus` computes image features.

    Raises
    ------
    FileNotFoundError
        If there is no table of metadata, or no section.
    ValueError
        If the metadata name a section twice or not at all, or the query cannot be read or fits no section.

    References
    ----------
    Jaume et al., HEST-1k, NeurIPS 2024 (arXiv 2406.16192). Licence CC BY-NC-SA 4.0, https://huggingface.co/datasets/MahmoodLab/hest.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sections = sw.datasets.hest("hest", query="organ == 'Breast'")  # doctest: +SKIP
    >>> source = sw.pp.CorpusSource("hest", sections, licence="CC BY-NC-SA 4.0")  # doctest: +SKIP
    """
    where = Path(folder).expanduser()
    if not (where / "st").is_dir():
        raise FileNotFoundError(
            f"{where} is no folder in the layout of HEST-1k: there is no folder st with <id>.h5ad in it."
        )
    table = read_metadata(where, metadata)
    there = {path.stem: path for path in sorted((where / "st").glob("*.h5ad"))}
    chosen = sections_of(table, there, query, where / "st")
    # of all data sets, so that a query changes no name
    patients = patients_of(table)
    patches = {name: path for name in chosen if (path := where / "patches" / f"{name}.h5").is_file()}
    if without := [name for name in chosen if name not in patches]:
        inform(f"{len(without)} sections have no patches: {listing(without)}.")
    found = SectionFolder(
        {name: there[name] for name in chosen},
        table.loc[chosen],
        {name: patients[name] for name in chosen},
        patches=patches,
        tile_um=PATCH_UM,
    )
    return found.with_duplicates_joined() if join_duplicates else found
