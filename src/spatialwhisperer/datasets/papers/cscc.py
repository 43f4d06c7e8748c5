"""Human squamous cell carcinoma of the skin by Spatial Transcriptomics: twelve sections of four patients."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spatialwhisperer._checks.checked import checked
from spatialwhisperer._docs import shared
from spatialwhisperer._settings import settings
from spatialwhisperer.datasets.papers.files import PublishedFiles, unpacked
from spatialwhisperer.datasets.papers.sections import PublishedSections

if TYPE_CHECKING:
    from pathlib import Path

    from spatialwhisperer.datasets._sections.section import Section

PAGE = "https://www.ncbi.nlm.nih.gov/geo/query/acc.cgi?acc=GSE144240 (GSE144240_RAW.tar; subseries GSE144239)"
SECTIONS = tuple(f"{patient}_ST_rep{i}" for patient in ("P2", "P5", "P9", "P10") for i in (1, 2, 3))
SPOT_PITCH_UM = 150.0
SPOT_DIAMETER_UM = 110.0
_COLUMNS = ("x", "y", "pixel_x", "pixel_y")
_FEWEST_COUNTED = 0.5


@shared
@checked
def cscc(folder: str | Path, *, with_image: bool = True) -> PublishedSections:
    """Find sections of human cutaneous squamous cell carcinoma (Spatial Transcriptomics, 110 µm spots at 150 µm pitch).

    The folder holds what ``GSE144240_RAW.tar`` of GEO holds, packed (``.gz``) or not, of each section: the counts
    ``GSM…_P2_ST_rep1_stdata.tsv``, the spots under tissue ``GSM…_spot_data-selection-P2_ST_rep1.tsv`` and the image ``GSM…_P2_ST_rep1.jpg``.
    There are sections ``P2_ST_rep1`` to ``P10_ST_rep3``, three of each of the patients P2, P5, P9 and P10; those that are not there are
    left out. The Visium sections of that archive are not read. No regions were published.

    Parameters
    ----------
    %(published_sections)s

    Returns
    -------
    :class:`~spatialwhisperer.datasets.PublishedSections`, a mapping from section to SpatialData, opened one after the other. The ``table``
    has raw counts in ``X`` (CSR int32, genes by symbol), in ``obs`` ``section``, ``patient``, ``array_row``, ``array_col`` (and ``*_adj``),
    ``total_counts`` and ``n_genes``, and in ``obsm["spatial"]`` x, y in pixels of the image.

    Raises
    ------
    FileNotFoundError
        There is no such folder, no section in it, or a file of a section is missing.
    ValueError
        A file is damaged; counts and spots, or spots and image, are not of one section.

    Notes
    -----
    Microns per pixel come from the 150 µm between neighbouring spots. A packed image is unpacked once into ``settings.cache_dir / "cscc"``.

    References
    ----------
    Ji et al., Cell 182, 497 (2020), https://doi.org/10.1016/j.cell.2020.05.039. Data: GEO GSE144240.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sections = sw.datasets.cscc("GSE144240_RAW")  # doctest: +SKIP
    >>> sw.tl.zero_shot_annotate(sections["P2_ST_rep1"], unknown="label")  # doctest: +SKIP
    """
    files = PublishedFiles.of(folder, PAGE)
    paths = {}
    for name in SECTIONS:
        counts = files.find([f"GSM*_{name}_stdata.tsv", f"{name}_stdata.tsv"])
        if counts is None:
            continue
        spots = [f"GSM*_spot_data-selection-{name}.tsv", f"spot_data-selection-{name}.tsv"]
        image = [f"GSM*_{name}.jpg", f"{name}.jpg"]
        paths[name] = (
            counts,
            files.need(name, "the spots under tissue", spots),
            files.need(name, "the image (or pass with_image=False)", image) if with_image else None,
        )
    if not paths:
        raise files.nothing("GSM…_P2_ST_rep1_stdata.tsv")
    return PublishedSections("cscc", {name: patient_of(name) for name in paths}, partial(_read, paths))


def patient_of(section: str) -> str:
    """Patient of a section."""
    return section.split("_", 1)[0]


def _read(paths: dict[str, tuple[Path, Path, Path | None]], name: str) -> Section:
    from spatialwhisperer._access.sections.lattice import spot_pitch_px
    from spatialwhisperer.datasets._sections.section import Section
    from spatialwhisperer.datasets._sections.spots import array_obs, whole_numbers

    counts_file, spots_file, image = paths[name]
    counts, spots = _matched(name, counts_file, spots_file)
    matrix = whole_numbers(counts, counts_file)
    xy = spots[["pixel_x", "pixel_y"]].to_numpy(dtype=float)
    # neighbours along rows, columns or diagonals, as the indices of the array count
    mpp = SPOT_PITCH_UM / spot_pitch_px(name, xy)
    return Section(
        name=name,
        counts=matrix,
        genes=pd.DataFrame(index=counts.columns.astype(str)),
        obs=array_obs(name, patient_of(name), spots, matrix),
        spatial_px=xy.astype(np.float32),
        obsm={},
        mpp=mpp,
        spot_diameter_um=SPOT_DIAMETER_UM,
        image=None if image is None else unpacked(image, settings.cache_dir / "cscc"),
        meta={"section": name, "patient": patient_of(name), "um_per_px": mpp, "source": "GEO GSE144240"},
    )


def _matched(name: str, counts_file: Path, spots_file: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Counts and spots, in the order of the spots."""
    from spatialwhisperer._storage.untrusted import opening
    from spatialwhisperer.datasets._sections.spots import selected

    with opening(f"The counts {counts_file}"):
        counts = pd.read_csv(counts_file, sep="\t", index_col=0)
    with opening(f"The spots {spots_file}"):
        table = pd.read_csv(spots_file, sep="\t")
        if absent := [c for c in _COLUMNS if c not in table]:
            raise ValueError(f"there is no column {', '.join(absent)}")
        under = selected(table)
    spots = under[under.index.isin(counts.index)]
    if len(spots) < max(3, _FEWEST_COUNTED * len(under)):
        raise ValueError(
            f"Counts and spots of {name} are not of one section: {len(spots)} of {len(under)} spots in {spots_file} have counts in "
            f"{counts_file}. Get both files again from {PAGE}."
        )
    return counts.loc[spots.index], spots
