"""Sections, image features and gene encoders that the comparison of presets works on, computed once and kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

import spatialwhisperer as sw
from spatialwhisperer._messages import inform

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData

FINE_MPP, COARSE_MPP = 154 / 224, 154 / 48
"""Microns per pixel at which tiles are read: that of the full slides, and that of the one slide which is there smaller."""

TILE_UM = 154.0
SCALES_UM = (100.0, 154.0, 300.0, 600.0)
LARGEST_PX = 224
ANNOTATED = ("A1", "B1", "D1", "E1", "F1", "G2", "H1")
"""One section of each patient, with the pathologist's own labels; C has none of its own with an image."""

FEATURES = ("stain_texture", "mobilenet_v2", "both")
LABELS = "pathologist_label"
IGNORED = ("undetermined",)


@dataclass(frozen=True)
class Fold:
    """Sections that train and sections that are measured."""

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
    """What all presets share.

    Attributes
    ----------
    data, cache
        Folder of the data, and of what is computed from it.
    tables
        Tables of the sections with an image.
    others
        Tables of the sections without one that the gene side may learn from.
    smoke
        Do little, to show that everything runs.
    """

    data: Path
    cache: Path
    tables: dict[str, AnnData] = field(default_factory=dict)
    others: dict[str, AnnData] = field(default_factory=dict)
    smoke: bool = False

    def table(self, name: str) -> AnnData:
        """Table of a section with an image, with its tissue darkness."""
        if name not in self.tables:
            sdata = sw.datasets.her2st(name, data_dir=self.data)
            if self.smoke:
                sdata = _fewer(sdata)
            sw.tl.tissue_darkness(sdata, tile_um=TILE_UM, tile_px=48)
            self.tables[name] = _plain(sdata)
        return self.tables[name]

    def unpaired(self, patient_left_out: str) -> list[AnnData]:
        """Annotated sections without an image, none of a patient."""
        for name in ANNOTATED[1:3] if self.smoke else ANNOTATED[1:]:
            if name not in self.others:
                self.others[name] = _plain(sw.datasets.her2st(name, data_dir=self.data, with_image=False))
        return [t for name, t in self.others.items() if name[0] != patient_left_out]

    def features(self, name: str, encoder: str, mpp: float, *, scales: bool) -> str:
        """Slot with the image features of a section, computed where it is not there yet."""
        slot = f"X_{encoder}_{mpp:.2f}" + ("_scales" if scales else "")
        table = self.table(name)
        if slot not in table.obsm:
            parts = _parts(encoder, (SCALES_UM[1:3] if self.smoke else SCALES_UM) if scales else (TILE_UM,))
            table.obsm[slot] = np.concatenate([self._one(name, e, um, mpp) for e, um in parts], axis=1)
        return slot

    def _one(self, name: str, encoder: str, tile_um: float, mpp: float) -> np.ndarray:
        px = min(LARGEST_PX, round(tile_um / mpp))
        path = self.cache / "features" / f"{name}-{encoder.replace('/', '_')}-{tile_um:g}um-{px}px.npy"
        if not path.is_file() or self.smoke:
            inform(f"{name}: {encoder}, tiles of {tile_um:g} µm, {px} px")
            sdata = sw.datasets.her2st(name, data_dir=self.data)
            if self.smoke:
                sdata = _fewer(sdata)
            x = sw.pp.embed_images(
                sdata, encoder=_encoder(encoder, self.data), tile_um=tile_um, tile_px=px, border="pad", inplace=False
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, x)
        return np.load(path, allow_pickle=False)

    def gene_encoder(self, kind: str, fold: Fold) -> Any:
        """Encoder (scVI or scANVI) of the training sections and of the other patients' annotated ones."""
        folder = self.cache / "encoders" / f"{kind}-{fold.split}-{fold.name.replace(' → ', '-')}"
        if folder.is_dir():
            return sw.models.load_gene_encoder(folder)
        tables = [*(self.table(n) for n in fold.train), *self.unpaired(fold.test[0][0])]
        labels = {"labels_key": LABELS} if kind == "scanvi" else {}
        inform(f"{kind} for {fold.split} {fold.name}: {sum(t.n_obs for t in tables)} spots")
        encoder = sw.pp.fit_gene_encoder(
            tables, kind, batch_key="patient", n_latent=10, max_epochs=2 if self.smoke else 40, **labels
        )
        encoder.save(folder)
        return encoder


def _parts(encoder: str, sizes: Sequence[float]) -> list[tuple[str, float]]:
    if encoder == "both":
        return [*(("stain_texture", um) for um in sizes), ("mobilenet_v2", TILE_UM)]
    return [(encoder, um) for um in (sizes if encoder == "stain_texture" else (TILE_UM,))]


def _encoder(name: str, data: Path) -> Any:
    if not name.startswith("mobilenet"):
        return name
    from spatialwhisperer.protocols.mobilenet import mobilenet

    path = data / "weights" / f"{name}_imagenet_u8.npz"
    if not path.is_file():
        raise FileNotFoundError(f"{name} needs {path}; choose --features stain_texture to do without.")
    return mobilenet(path)


def _plain(sdata: Any) -> AnnData:
    """The table alone: a slide whose features are kept is not read again. Spots lie at their array coordinates."""
    table = sdata["table"].copy()
    table.uns.pop("spatialdata_attrs")
    del table.obsm["spatial"]
    return table


def _fewer(sdata: Any) -> Any:
    """Every second spot."""
    import spatialdata as sd

    table = sdata["table"][::2].copy()
    return sd.SpatialData(images=dict(sdata.images), shapes=dict(sdata.shapes), tables={"table": table})
