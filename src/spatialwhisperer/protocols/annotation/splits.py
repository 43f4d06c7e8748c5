"""Sections whose image–gene pairs train a model and sections that it annotates, with everything that is computed of them once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

import spatialwhisperer as sw
from spatialwhisperer.protocols import captions
from spatialwhisperer.protocols.her2st.folds import with_rows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer.models import GeneEncoder

WITH_IMAGE = ("C2", "C3", "C4", "C5", "A1")
TILE_UM = 154.0
SEVERAL_UM = (100.0, TILE_UM, 300.0)

FINE, COARSE = 224, 48
"""Edge of a tile of 154 µm in pixels: at 0.69 µm per pixel, and at 3.2 µm per pixel, the resolution of A1."""


@dataclass(frozen=True)
class Split:
    """Sections whose image–gene pairs train, and the one that is annotated; ``tile_px`` is the edge of their tiles."""

    name: str
    train: tuple[str, ...]
    test: str
    tile_px: int

    @property
    def patient(self) -> str:
        """Patient of the section that is annotated."""
        return self.test[0]


SPLITS = (
    Split("C → A1", ("C2", "C3", "C4", "C5"), "A1", COARSE),
    Split("A1 → C3", ("A1",), "C3", COARSE),
    *(
        Split("leave one section of C out", tuple(s for s in WITH_IMAGE[:4] if s != test), test, FINE)
        for test in WITH_IMAGE[:4]
    ),
)


@dataclass
class Materials:
    """What all methods use.

    Attributes
    ----------
    images
        Tables of the sections with an image, with image features, by section.
    texts
        Tables with captions: spots of sections without an image, and single cells; by the patient that is left out.
    encoders
        Gene encoder that is fitted on them, by the patient that is left out.
    """

    images: dict[str, AnnData]
    texts: dict[str, list[AnnData]] = field(default_factory=dict)
    encoders: dict[str, GeneEncoder] = field(default_factory=dict)


def load(data: Path, splits: tuple[Split, ...], *, smoke: bool = False) -> Materials:
    """Read sections and cells, embed the tiles, and fit one gene encoder per test patient.

    Parameters
    ----------
    data
        Folder that holds ``her2st/`` and ``singlecell/``.
    splits
        What is needed.
    smoke
        Take every third row of the sections with an image, and every eighth section without one.
    """
    needed = {(s, split.tile_px) for split in splits for s in (*split.train, split.test)}
    every = 3 if smoke else 1
    materials = Materials(
        {name: _image_table(data, name, {px for s, px in needed if s == name}, every) for name in dict(needed)}
    )
    cells = labelled_cells(data)
    names = sections_without_image(data)
    for patient in {split.patient for split in splits}:
        others = [n for n in names if n[0] != patient]
        texts = table_alone(sw.datasets.her2st(others[:: 8 if smoke else 1], data_dir=data, with_image=False))
        captions.add_captions(texts)
        materials.texts[patient] = [texts, cells]
        materials.encoders[patient] = sw.pp.fit_gene_encoder(materials.texts[patient], "pca", batch_key="patient")
    return materials


def image_key(tile_px: int, tile_um: float | Sequence[float] = TILE_UM) -> str:
    """Key of ``.obsm`` with the image features of one or several tile sizes."""
    return f"X_stain_texture_{'_'.join(f'{um:g}' for um in np.atleast_1d(tile_um))}um_{tile_px}px"


def _image_table(data: Path, name: str, sizes: set[int], every: int = 1) -> AnnData:
    section = sw.datasets.her2st(name, data_dir=data)
    if every > 1:
        section = with_rows(section, np.arange(0, section["table"].n_obs, every))
    for px in sorted(sizes):
        for um in (TILE_UM, SEVERAL_UM):
            sw.pp.embed_images(section, tile_um=um, tile_px=px, key_added=image_key(px, um))
    sw.tl.tissue_darkness(section, tile_um=TILE_UM, tile_px=COARSE)
    return table_alone(section)


def table_alone(section: SpatialData) -> AnnData:
    """The table without its section: images are not read again, and spots lie at their array coordinates."""
    table = section["table"].copy()
    table.uns.pop("spatialdata_attrs")
    del table.obsm["spatial"]
    return table


def sections_without_image(data: Path) -> list[str]:
    """Names of the sections that have expression and no image."""
    folder = data / "her2st" if (data / "her2st").is_dir() else data
    return sorted(p.parent.name for p in folder.glob("*/counts.h5ad") if p.parent.name not in WITH_IMAGE)


def labelled_cells(data: Path) -> AnnData:
    """Single cells with captions."""
    import anndata as ad

    cells = ad.read_h5ad(data / "singlecell" / "wu2021_breast_CID4465.h5ad")
    captions.add_reference_captions(cells)
    return cells
