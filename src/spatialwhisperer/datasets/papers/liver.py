"""Human liver by Visium: four sections of a healthy donor, and four of a patient with primary sclerosing cholangitis."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from spatialwhisperer._checks.checked import checked
from spatialwhisperer._docs import shared
from spatialwhisperer._settings import settings
from spatialwhisperer.datasets.papers.files import PublishedFiles, unpacked
from spatialwhisperer.datasets.papers.sections import PublishedSections

if TYPE_CHECKING:
    from pathlib import Path

    from spatialwhisperer.datasets._sections.section import Section

SERIES = {"C73": "GSE240429", "PSC011": "GSE245620"}
"""GEO series of each patient."""

SAMPLES = {f"C73_{part}1": f"GSM{7697868 + i}" for i, part in enumerate("ABCD")} | {
    f"PSC011_{part}1": f"GSM{7845914 + i}" for i, part in enumerate("ABCD")
}
"""GEO sample of each section."""

PAGE = " and ".join(f"https://www.ncbi.nlm.nih.gov/geo/query/acc.cgi?acc={s} ({s}_RAW.tar)" for s in SERIES.values())


class _Files(NamedTuple):
    """Files of one section."""

    matrix: Path
    barcodes: Path
    features: Path
    positions: Path
    image: Path | None


@shared
@checked
def liver(folder: str | Path, *, with_image: bool = True, off_tissue: bool = False) -> PublishedSections:
    """Find sections of the human liver (Visium, 55 µm spots at 100 µm pitch), which BLEEP and HECLIP are measured on.

    The folder holds what the archives GSE240429 (healthy donor C73, sections ``C73_A1`` to ``C73_D1``) and GSE245620 (patient PSC011 with primary
    sclerosing cholangitis, sections ``PSC011_A1`` to ``PSC011_D1``) of GEO hold, packed (``.gz``) or not, of each section: the counts
    ``GSM…_matrix.mtx``, ``GSM…_barcodes.tsv`` and ``GSM…_features.tsv``, the positions ``GSM…_tissue_positions_list.csv`` and the image
    ``GSM…_Merged.tif`` (or ``.tiff``). Files are recognised by their sample (GSM7697868 to 71, GSM7845914 to 17). Sections that are not
    there are left out. No regions were published.

    Parameters
    ----------
    %(published_sections)s
    off_tissue
        Keep spots beside the tissue where the counts hold them: those of GSE245620 hold all 4,992 spots of the array.

    Returns
    -------
    :class:`~spatialwhisperer.datasets.PublishedSections`, a mapping from section to SpatialData, opened one after the other. The ``table``
    has raw counts in ``X`` (CSR int32, genes by symbol, Ensembl ids in ``var["ensembl_id"]``), in ``obs`` ``section``, ``patient``,
    ``barcode``, ``array_row``, ``array_col``, ``in_tissue``, ``total_counts`` and ``n_genes``, and in ``obsm["spatial"]`` x, y in pixels of the
    image.

    Raises
    ------
    FileNotFoundError
        There is no such folder, no section in it, or a file of a section is missing.
    ValueError
        A file is damaged; counts and positions, or positions and image, are not of one section.

    Notes
    -----
    Microns per pixel come from the 100 µm pitch of the array. A packed image is unpacked once into
    ``settings.cache_dir / "liver"``.

    References
    ----------
    Andrews et al., J Hepatol 80, 730 (2024), https://doi.org/10.1016/j.jhep.2023.12.023. Data: GEO GSE240429, GSE245620.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sections = sw.datasets.liver("GSE240429_RAW")  # doctest: +SKIP
    >>> sw.tl.zero_shot_annotate(sections["C73_C1"], unknown="label")  # doctest: +SKIP
    """
    files = PublishedFiles.of(folder, PAGE)
    paths = {}
    for name, sample in SAMPLES.items():
        if files.find([f"{sample}_*matrix.mtx"]) is None:
            continue
        matrix, barcodes, features = (
            files.need(name, "a file of the counts", [f"{sample}_*{file}"])
            for file in ("matrix.mtx", "barcodes.tsv", "features.tsv")
        )
        positions = [f"{sample}_*tissue_positions_list.csv", f"{sample}_*tissue_positions.csv"]
        image = [f"{sample}_*Merged.tif", f"{sample}_*Merged.tiff"]
        paths[name] = _Files(
            matrix,
            barcodes,
            features,
            files.need(name, "the positions of the spots", positions),
            files.need(name, "the image (or pass with_image=False)", image) if with_image else None,
        )
    if not paths:
        raise files.nothing("GSM7697868_…_matrix.mtx (or of another section)")
    patients = {name: name.split("_", 1)[0] for name in paths}
    return PublishedSections("liver", patients, partial(_read, paths, off_tissue))


def _read(paths: dict[str, _Files], off_tissue: bool, name: str) -> Section:
    from spatialwhisperer.datasets.papers.visium import counts_of_triplet, read_visium

    own = paths[name]
    patient = name.split("_", 1)[0]
    return read_visium(
        name,
        patient,
        counts_of_triplet(own.matrix, own.barcodes, own.features),
        own.positions,
        None if own.image is None else unpacked(own.image, settings.cache_dir / "liver"),
        off_tissue=off_tissue,
        meta={"source": f"GEO {SERIES[patient]}, {SAMPLES[name]}"},
    )
