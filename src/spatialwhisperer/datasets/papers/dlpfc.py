"""Human dorsolateral prefrontal cortex by Visium (spatialLIBD): twelve sections of three donors, with cortical layers."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from spatialwhisperer._checks.checked import checked
from spatialwhisperer._docs import shared
from spatialwhisperer._messages import warn
from spatialwhisperer._settings import settings
from spatialwhisperer.datasets.papers.files import PublishedFiles, unpacked
from spatialwhisperer.datasets.papers.sections import PublishedSections

if TYPE_CHECKING:
    from pathlib import Path

    from spatialwhisperer.datasets._sections.section import Section

PAGE = (
    "http://research.libd.org/spatialLIBD (table 'Raw data': counts and images) and https://github.com/LieberInstitute/HumanPilot (folder 10X: "
    "positions and layers)"
)
DONORS = {
    "Br5292": ("151507", "151508", "151509", "151510"),
    "Br5595": ("151669", "151670", "151671", "151672"),
    "Br8100": ("151673", "151674", "151675", "151676"),
}
"""Donor of each section."""

LAYERS = ("L1", "L2", "L3", "L4", "L5", "L6", "WM")
"""From the surface of the cortex to the white matter."""

LAYER_MAP = "barcode_level_layer_map.tsv"
_DONOR_OF = {section: donor for donor, sections in DONORS.items() for section in sections}


@shared
@checked
def dlpfc(folder: str | Path, *, with_image: bool = True) -> PublishedSections:
    """Find sections of the human dorsolateral prefrontal cortex (Visium, 55 µm spots at 100 µm pitch) with their layers.

    The folder holds of each section the counts ``151507_filtered_feature_bc_matrix.h5`` and the image ``151507_full_image.tif``, as linked by
    spatialLIBD, and from its repository HumanPilot ``10X/151507/tissue_positions_list.txt`` and, for all sections,
    ``10X/barcode_level_layer_map.tsv``. Files may also lie in one folder for each section, with the name of the section in front or not, or
    have the names of Space Ranger (``spatial/tissue_positions_list.csv``). There are sections 151507 to 151510 of donor Br5292, 151669 to 151672
    of Br5595 and 151673 to 151676 of Br8100; those that are not there are left out.

    Parameters
    ----------
    %(published_sections)s

    Returns
    -------
    :class:`~spatialwhisperer.datasets.PublishedSections`, a mapping from section to SpatialData, opened one after the other. The ``table``
    has raw counts in ``X`` (CSR int32, genes by symbol, Ensembl ids in ``var["ensembl_id"]``), in ``obs`` ``section``, ``patient`` (the
    donor), ``barcode``, ``array_row``, ``array_col``, ``in_tissue``, ``total_counts``, ``n_genes`` and ``layer`` (categories L1 to L6 and WM;
    missing where the authors chose none), and in ``obsm["spatial"]`` x, y in pixels of the image.

    Raises
    ------
    FileNotFoundError
        There is no such folder, no section in it, or a file of a section is missing.
    ValueError
        A file is damaged; counts and positions, or positions and image, are not of one section.

    Warns
    -----
    SpatialWhispererWarning
        There is no table of layers.

    Notes
    -----
    Microns per pixel come from the 100 µm pitch of the array. Barcodes are the same on all slides: counts beside the positions of another section
    are noticed by the spots that lie under its tissue.

    References
    ----------
    Maynard et al., Nat Neurosci 24, 425 (2021), https://doi.org/10.1038/s41593-020-00787-0.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sections = sw.datasets.dlpfc("HumanPilot")  # doctest: +SKIP
    >>> sections["151507"]["table"].obs["layer"].value_counts()  # doctest: +SKIP
    """
    files = PublishedFiles.of(folder, PAGE)
    paths = {}
    for name in _DONOR_OF:
        counts = files.find(_named(name, "filtered_feature_bc_matrix.h5"))
        if counts is None:
            continue
        positions = [*_named(name, "tissue_positions_list.txt"), *_named(name, "tissue_positions_list.csv", "spatial/")]
        paths[name] = (
            counts,
            files.need(name, "the positions of the spots", [positions[1], positions[0], *positions[2:]]),
            files.need(name, "the image (or pass with_image=False)", _named(name, "full_image.tif", "spatial/"))
            if with_image
            else None,
        )
    if not paths:
        raise files.nothing("151507_filtered_feature_bc_matrix.h5 (or of another section)")
    layers = files.find([LAYER_MAP])
    if layers is None:
        warn(f"{files.folder} has no {LAYER_MAP}: layers are missing. It is published at {PAGE}.")
    return PublishedSections("dlpfc", {name: _DONOR_OF[name] for name in paths}, partial(_read, paths, layers))


def _named(section: str, file: str, *inside: str) -> list[str]:
    """Names of a file of a section, the published one first."""
    places = [f"{section}/{place}" for place in ("", *inside)]
    return [
        f"{section}_{file}",
        *(f"{place}{file}" for place in places),
        *(f"{place}{section}_{file}" for place in places),
    ]


def _read(paths: dict[str, tuple[Path, Path, Path | None]], layers: Path | None, name: str) -> Section:
    from spatialwhisperer.datasets.papers.visium import counts_of_h5, read_visium

    counts, positions, image = paths[name]
    section = read_visium(
        name,
        _DONOR_OF[name],
        counts_of_h5(counts),
        positions,
        None if image is None else unpacked(image, settings.cache_dir / "dlpfc"),
        meta={"source": "spatialLIBD, github.com/LieberInstitute/HumanPilot"},
    )
    layer = pd.Series(pd.NA, index=section.obs.index, dtype=object) if layers is None else _layers(layers, section)
    return replace(section, obs=section.obs.assign(layer=layer))


def _layers(path: Path, section: Section) -> pd.Series:
    """Layer of each spot, from the table of all sections: barcode, section, layer, without a header."""
    from spatialwhisperer._storage.untrusted import opening

    with opening(f"The layers {path}"):
        table = pd.read_csv(path, sep="\t", header=None, names=["barcode", "section", "layer"], dtype=str)
        if not table["layer"].isin([*LAYERS, "NA"]).any():
            raise ValueError(f"three columns are needed: barcode, section, and one of {', '.join(LAYERS)}")
    own = table[table["section"] == section.name].drop_duplicates("barcode").set_index("barcode")["layer"]
    return section.obs["barcode"].map(own)
