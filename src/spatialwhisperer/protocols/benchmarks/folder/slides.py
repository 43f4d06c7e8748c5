"""Sections of her2st, whose tiles are read from the image around each spot."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

import spatialwhisperer as sw
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._messages import listing
from spatialwhisperer.pp.features.encoder_choice import why_unfit
from spatialwhisperer.protocols.benchmarks.folder.sections import BenchmarkSection, bare_table, even_rows, pitch_of
from spatialwhisperer.protocols.her2st.folds import with_rows

if TYPE_CHECKING:
    from pathlib import Path

    from spatialdata import SpatialData

    from spatialwhisperer.encoders.image.base import ImageEncoder
    from spatialwhisperer.protocols.benchmarks.folder.sections import FolderOptions

LARGEST_PX = 224
_ALIGNED = ("warped_x", "warped_y")


class SlideTiles:
    """Tiles of a section that are read from its image.

    Parameters
    ----------
    section
        The section with its image.
    tile_um, tile_px
        Edge of a tile in microns and in pixels.
    stamp
        What tells the image from others.
    """

    def __init__(self, section: SpatialData, tile_um: float, tile_px: int, stamp: str) -> None:
        self.section, self.tile_um, self.tile_px, self.stamp = section, tile_um, tile_px, stamp

    def features(self, encoder: ImageEncoder) -> np.ndarray:
        """Features of the tile of each row.

        Raises
        ------
        ValueError
            If the image is too coarse for the encoder.
        """
        if problem := why_unfit(Slide.open(self.section), encoder.spec):
            raise ValueError(f"{problem}. Leave the section out with --sections, or choose another encoder.")
        own = bool(encoder.spec.windows_um)
        found = sw.pp.embed_images(
            self.section,
            encoder=encoder,
            tile_um=None if own else self.tile_um,
            tile_px=None if own else self.tile_px,
            off_slide="nan",
            inplace=False,
        )
        return np.asarray(found, np.float32)

    def darkness(self) -> np.ndarray:
        """Mean optical density of the tile of each row."""
        found = sw.tl.tissue_darkness(
            self.section, tile_um=self.tile_um, tile_px=self.tile_px, off_slide="nan", inplace=False
        )
        return np.asarray(found)


def her2st_names(folder: Path) -> list[str]:
    """Names of the sections in a folder that :func:`spatialwhisperer.datasets.her2st` reads; none where it has another layout."""
    for root in (folder, folder / "her2st"):
        for data in (root / "data", root):
            if (data / "ST-cnts").is_dir():
                return sorted({path.name.split(".")[0] for path in (data / "ST-cnts").glob("*.tsv*")})
        if found := sorted(path.parent.name for path in root.glob("*/counts.h5ad")):
            return found
    return []


def read_her2st(folder: Path, options: FolderOptions) -> list[BenchmarkSection]:
    """Read sections; their tiles have the resolution of the coarsest image among them, and at most 224 pixels.

    Raises
    ------
    FileNotFoundError
        If there is no section that is asked for.
    ValueError
        If rows are asked for by metadata, which this layout has not.
    """
    if options.where:
        raise ValueError("--where reads the metadata of HEST; sections of her2st are named with --sections.")
    there = her2st_names(folder)
    if absent := [name for name in options.only if name not in there]:
        raise FileNotFoundError(f"{folder} has no section {listing(absent)}; it has {listing(there, 36)}.")
    read = {name: _read(folder, name, options) for name in options.only or there}
    coarsest = max((mpp for section, mpp, _ in read.values() if section.images), default=1.0)
    tile_px = max(1, min(LARGEST_PX, int(options.tile_um / coarsest)))
    return [_section(name, *found, options.tile_um, tile_px) for name, found in read.items()]


def _read(folder: Path, name: str, options: FolderOptions) -> tuple[SpatialData, float, float | None]:
    """Section with the rows that are taken, its microns per pixel, and the pitch of all its rows in pixels."""
    with_image = _has_image(folder, name)
    section = sw.datasets.her2st(name, data_dir=folder, with_image=with_image)
    n, pitch = section["table"].n_obs, pitch_of(np.asarray(section["table"].obsm["spatial"]))
    rows = even_rows(n, options.rows)
    return (section if len(rows) == n else with_rows(section, rows)), _mpp(section, name), pitch


def _has_image(folder: Path, name: str) -> bool:
    """Whether an image is named; the reader warns where there is none."""
    for root in (folder, folder / "her2st"):
        if (path := root / name / "meta.json").is_file():
            return bool(json.loads(path.read_text()).get("image"))
    return True


def _mpp(section: SpatialData, name: str) -> float:
    """Microns per pixel by the spots, whose pitch is 200 µm: their diameter is 100 µm."""
    return 50.0 / float(section.shapes[f"{name}_spots"]["radius"].median())


def _section(
    name: str, section: SpatialData, mpp: float, pitch: float | None, tile_um: float, tile_px: int
) -> BenchmarkSection:
    table = section["table"]
    patient = str(table.obs["patient"].iloc[0])
    pixels = None
    if section.images:
        pixels = SlideTiles(section, tile_um, tile_px, f"{name} {mpp:.6g} {tile_um:g} {tile_px}")
    facts = {"organ": "Breast", "species": "Homo sapiens", "st_technology": "Spatial Transcriptomics"}
    bare = bare_table(table, section=name, patient=patient, keep=_ALIGNED)
    return BenchmarkSection(name, patient, bare, pixels, {**facts, "inter_spot_dist": 200.0}, mpp, pitch)
