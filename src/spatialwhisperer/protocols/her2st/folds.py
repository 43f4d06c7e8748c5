"""Sections, image features and gene encoders of the comparison of presets, computed once and kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

import spatialwhisperer as sw
from spatialwhisperer._messages import inform
from spatialwhisperer.protocols.finished import stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer.models import GeneEncoder, ImageEncoder

FINE_MPP, COARSE_MPP = 154 / 224, 154 / 48
"""Microns per pixel at which tiles are read: that of the sections at full resolution, and that of A1, which is coarser."""

TILE_UM = 154.0
SCALES_UM = (100.0, 154.0, 300.0, 600.0)
LARGEST_PX = 224
ANNOTATED = ("A1", "B1", "D1", "E1", "F1", "G2", "H1")
"""One section of each patient with the pathologist's own labels; C has none of its own with an image."""

LABELS = "pathologist_label"
IGNORED = ("undetermined",)


@dataclass(frozen=True)
class Fold:
    """Sections that train and sections that are measured; ``mpp`` is the scale at which their tiles are read."""

    split: str
    name: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    mpp: float


_C = ("C2", "C3", "C4", "C5")
FOLDS = (
    *(Fold("section", s, tuple(t for t in _C if t != s), (s,), FINE_MPP) for s in _C),
    Fold("patient", "C → A", _C, ("A1",), COARSE_MPP),
    Fold("patient", "A → C", ("A1",), _C, COARSE_MPP),
)


@dataclass
class Materials:
    """What all presets use.

    Attributes
    ----------
    data, cache
        Folder of the data, and of what is computed from them.
    tables
        Tables of the sections with an image.
    others
        Tables of sections without an image, from which gene encoders may learn.
    smoke
        Use few spots and epochs, to show that everything runs.
    read
        Opens a section by name; ``None`` reads HER2-positive breast cancer.
    tile_um
        Edge of a tile in microns.
    """

    data: Path
    cache: Path
    tables: dict[str, AnnData] = field(default_factory=dict)
    others: dict[str, AnnData] = field(default_factory=dict)
    smoke: bool = False
    read: Callable[[str], SpatialData] | None = None
    tile_um: float = TILE_UM

    def table(self, name: str) -> AnnData:
        """Table of a section with an image, with its tissue darkness."""
        if name not in self.tables:
            section = self.section(name)
            sw.tl.tissue_darkness(section, tile_um=self.tile_um, tile_px=48)
            self.tables[name] = _table_alone(section)
        return self.tables[name]

    def unpaired(self, patient_left_out: str) -> list[AnnData]:
        """Annotated sections without an image, except those of a patient."""
        for name in ANNOTATED[1:3] if self.smoke else ANNOTATED[1:]:
            if name not in self.others:
                self.others[name] = _table_alone(sw.datasets.her2st(name, data_dir=self.data, with_image=False))
        return [t for name, t in self.others.items() if name[0] != patient_left_out]

    def features(self, name: str, encoder: str, mpp: float, *, scales: bool) -> str:
        """Key of ``.obsm`` with the image features of a section, which are computed where they are missing.

        Parameters
        ----------
        name
            Section.
        encoder
            "stain_texture", "mobilenet_v1", "mobilenet_v2", "both" (stain_texture and mobilenet_v2), or a timm model.
        mpp
            Microns per pixel of the tiles.
        scales
            Take the tile sizes `SCALES_UM` side by side, where the encoder is "stain_texture".
        """
        key = f"X_{encoder}_{mpp:.2f}" + ("_scales" if scales else "")
        table = self.table(name)
        if key not in table.obsm:
            sizes = (SCALES_UM[1:3] if self.smoke else SCALES_UM) if scales else (self.tile_um,)
            parts = _parts(encoder, sizes, self.tile_um)
            table.obsm[key] = np.concatenate([self._one_size(name, e, um, mpp) for e, um in parts], axis=1)
        return key

    @property
    def _kept(self) -> Path:
        """Folder of features and encoders: a smoke run has others, of few spots and epochs."""
        return self.cache / "smoke" if self.smoke else self.cache

    def _one_size(self, name: str, encoder: str, tile_um: float, mpp: float) -> np.ndarray:
        px = min(LARGEST_PX, round(tile_um / mpp))
        path = self._kept / "features" / f"{name}-{encoder.replace('/', '_')}-{tile_um:g}um-{px}px.npy"
        if not path.is_file():
            inform(f"{name}: {encoder}, tiles of {tile_um:g} µm, {px} px")
            x = sw.pp.embed_images(
                self.section(name), encoder=_encoder(encoder, self.data), tile_um=tile_um, tile_px=px, inplace=False
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.asarray(x))
        return np.load(path, allow_pickle=False)

    def section(self, name: str) -> SpatialData:
        """A section with its image; every second spot of it in a smoke run."""
        section = sw.datasets.her2st(name, data_dir=self.data) if self.read is None else self.read(name)
        return with_rows(section, np.arange(0, section["table"].n_obs, 2)) if self.smoke else section

    def gene_encoder(self, kind: str, fold: Fold, likelihood: str | None = None) -> GeneEncoder:
        """Encoder ("scvi" or "scanvi") of the training sections and of the annotated sections of other patients.

        Parameters
        ----------
        kind, fold
            Which encoder, and for which sections.
        likelihood
            Likelihood of counts; ``None`` takes the default of the encoder.
        """
        named = kind if likelihood is None else f"{kind}-{likelihood}"
        folder = self._kept / "encoders" / f"{named}-{fold.split}-{fold.name.replace(' → ', '-')}-{stamp(fold.train)}"
        if folder.is_dir():
            return sw.models.load_gene_encoder(folder)
        tables = [*(self.table(n) for n in fold.train), *self.unpaired(fold.test[0][0])]
        inform(f"{named} for {fold.split} {fold.name}: {sum(t.n_obs for t in tables)} spots")
        encoder = sw.pp.fit_gene_encoder(
            tables,
            kind,
            batch_key="patient",
            labels_key=LABELS if kind == "scanvi" else None,
            n_latent=10,
            max_epochs=2 if self.smoke else 40,
            options=None if likelihood is None else {"gene_likelihood": likelihood},
        )
        encoder.save(folder)
        return encoder


def with_rows(section: SpatialData, rows: np.ndarray) -> SpatialData:
    """The same section with some of its spots."""
    from spatialdata import SpatialData

    table = section["table"][rows].copy()
    return SpatialData(images=dict(section.images), shapes=dict(section.shapes), tables={"table": table})


def _parts(encoder: str, sizes: Sequence[float], tile_um: float) -> list[tuple[str, float]]:
    """Encoder and tile size of each block of columns."""
    if encoder == "both":
        return [*(("stain_texture", um) for um in sizes), ("mobilenet_v2", tile_um)]
    return [(encoder, um) for um in (sizes if encoder == "stain_texture" else (tile_um,))]


def _encoder(name: str, data: Path) -> str | ImageEncoder:
    if not name.startswith("mobilenet"):
        return name
    from spatialwhisperer.protocols.her2st.mobilenet import mobilenet

    path = data / "weights" / f"{name}_imagenet_u8.npz"
    if not path.is_file():
        raise FileNotFoundError(f"{name} needs {path}. Put the file there, or choose --features stain_texture.")
    return mobilenet(path)


def _table_alone(section: SpatialData) -> AnnData:
    """The table without its section: images are not read again, and spots lie at their array coordinates."""
    table = section["table"].copy()
    table.uns.pop("spatialdata_attrs")
    del table.obsm["spatial"]
    return table
