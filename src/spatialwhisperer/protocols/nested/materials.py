"""Sections, image features by part, captions and gene encoders; everything is computed once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

import spatialwhisperer as sw
from spatialwhisperer._access.slide import Slide
from spatialwhisperer.pp.features.encoder_choice import choose_encoder
from spatialwhisperer.pp.features.tile_sizes import coarse_sections
from spatialwhisperer.protocols import captions
from spatialwhisperer.protocols.annotation.splits import (
    COARSE,
    TILE_UM,
    labelled_cells,
    sections_without_image,
    table_alone,
)
from spatialwhisperer.protocols.default_model.recipe import SCVI_EPOCHS
from spatialwhisperer.protocols.nested.candidates import FEATURES, NUCLEI, STAIN_TEXTURE_UM, stain_texture_part
from spatialwhisperer.statistics.standardize import standardize, statistics

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer.models import GeneEncoder


@dataclass
class Materials:
    """What all folds use.

    Attributes
    ----------
    images
        Tables of the sections with an image; each part of the image features is in ``.obsm`` under its name.
    captioned
        Table of the spots of all sections without an image, with captions.
    cells
        Single cells with captions.
    gene_encoder
        "pca" or "scvi".
    seed
        Of scVI.
    """

    images: dict[str, AnnData]
    captioned: AnnData
    cells: AnnData
    gene_encoder: str = "pca"
    seed: int = 0
    _fitted: dict[frozenset[str], tuple[list[AnnData], GeneEncoder]] = field(default_factory=dict)

    def parts(self, names: Iterable[str]) -> list[set[str]]:
        """Parts of the image features that each section has."""
        return [set(self.images[name].obsm) for name in names]

    def without(self, patients: frozenset[str]) -> tuple[list[AnnData], GeneEncoder]:
        """Tables with captions of the other patients, and the gene encoder that is fitted on them."""
        if patients not in self._fitted:
            others = ~self.captioned.obs["patient"].astype(str).isin(patients).to_numpy()
            texts = [self.captioned[others].copy(), self.cells]
            more: dict[str, Any] = (
                {"max_epochs": SCVI_EPOCHS, "random_state": self.seed} if self.gene_encoder == "scvi" else {}
            )
            encoder = sw.pp.fit_gene_encoder(texts, self.gene_encoder, batch_key="patient", **more)
            self._fitted[patients] = texts, encoder
        return self._fitted[patients]


def load(data: Path, names: Iterable[str], features: Iterable[str], *, smoke: bool = False) -> Materials:
    """Read sections and cells, and embed the tiles of the sections with an image.

    Parameters
    ----------
    data
        Folder that holds ``her2st/`` and ``singlecell/``.
    names
        Sections with an image.
    features
        Names of the image features of the candidates.
    smoke
        Take every eighth section without an image.
    """
    parts = {part for name in features for part in FEATURES[name]}
    images = {name: _image_table(sw.datasets.her2st(name, data_dir=data), parts) for name in names}
    others = sections_without_image(data)[:: 8 if smoke else 1]
    captioned = table_alone(sw.datasets.her2st(others, data_dir=data, with_image=False))
    captions.add_captions(captioned)
    return Materials(images, captioned, labelled_cells(data))


def _image_table(section: SpatialData, parts: set[str]) -> AnnData:
    """Features of all tile sizes in one pass over the image, and of nuclei where the image is fine enough."""
    sizes = [um for um in STAIN_TEXTURE_UM if stain_texture_part(um) in parts]
    found = {}
    if sizes:
        x = sw.pp.embed_images(section, tile_um=sizes, tile_px=COARSE, inplace=False)
        each = np.split(np.asarray(x), len(sizes), axis=1)
        found = {stain_texture_part(um): part for um, part in zip(sizes, each, strict=True)}
    if NUCLEI in parts and not coarse_sections(Slide.open(section).scaled(), choose_encoder(NUCLEI).spec):
        found[NUCLEI] = np.asarray(sw.pp.embed_images(section, encoder=NUCLEI, inplace=False))
    sw.tl.tissue_darkness(section, tile_um=TILE_UM, tile_px=COARSE)
    table = table_alone(section)
    for name, x in found.items():
        table.obsm[name] = x
    return table


def standardised(
    train: Sequence[AnnData], others: Sequence[AnnData], features: Sequence[str]
) -> tuple[list[AnnData], list[AnnData]]:
    """Copies with image features under their name in `FEATURES`, standardised by the statistics of the training rows.

    Parameters
    ----------
    train, others
        Tables with the parts of the features.
    features
        Names.
    """
    copies = [t.copy() for t in (*train, *others)]
    for name in features:
        joined = [np.concatenate([np.asarray(t.obsm[p]) for p in FEATURES[name]], axis=1) for t in copies]
        mean, std = statistics(np.concatenate(joined[: len(train)]))
        for table, x in zip(copies, joined, strict=True):
            table.obsm[name] = standardize(x, how="global", mean=mean, std=std)
    return copies[: len(train)], copies[len(train) :]
