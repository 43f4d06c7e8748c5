"""Time of the encoders nuclei and stain_texture per row, and of the steps of nuclei in SciPy and scikit-image.

usage: python benchmarks/nuclei_encoder.py [--tiles 16] [--rounds 5] [--density 2000] [--data FOLDER]

Tiles are drawn, with --density nuclei per mm²; or, with --data, those around evenly chosen spots of section C3 in FOLDER/her2st. A row
is one tile of 320 µm for nuclei, and one of each size of the preset whisperer in 224 px for stain_texture. The encoders run in turn in
one process, several rounds, and the best round counts. "one core" is the time of one thread; "all cores" that of a call.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from skimage.measure import label, regionprops_table
from skimage.morphology import disk
from skimage.segmentation import expand_labels, watershed

import spatialwhisperer as sw
from spatialwhisperer.encoders.image.nuclei import TILE_PX, TILE_UM, NucleiEncoder
from spatialwhisperer.encoders.image.stain import BLANK, REFERENCE_STAINS, REFERENCE_STRENGTHS, unmixing_matrix

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES_UM, TEXTURE_PX = sw.models.get_preset("whisperer").tile_um, 224
MPP = TILE_UM / TILE_PX


def drawn(n: int, density: float) -> np.ndarray:
    """Tiles of discs at random places, with grain."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:TILE_PX, :TILE_PX]
    units = np.array(REFERENCE_STAINS) * np.array(REFERENCE_STRENGTHS)[:, None]
    out = []
    for _ in range(n):
        stain = np.zeros((TILE_PX, TILE_PX))
        for cy, cx, r in rng.uniform([0, 0, 5], [TILE_PX, TILE_PX, 12], (round(density * (TILE_UM / 1000) ** 2), 3)):
            rows, columns = (slice(max(int(c - r) - 1, 0), int(c + r) + 2) for c in (cy, cx))
            inside = (y[rows, columns] - cy) ** 2 + (x[rows, columns] - cx) ** 2 <= r * r
            stain[rows, columns][inside] = rng.uniform(0.5, 1)
        od = stain * units[0][:, None, None] + 0.3 * units[1][:, None, None]
        out.append((256 * 10**-od - 1 + rng.normal(0, 4, od.shape)).clip(0, 255).astype(np.uint8))
    return np.stack(out)


def real(folder: Path, n: int) -> np.ndarray:
    """Tiles around evenly chosen spots of C3."""
    from spatialwhisperer._access.slide import Slide
    from spatialwhisperer._access.tiles.plan import plan_tiles
    from spatialwhisperer.pp.features.tile_features import read_tiles

    tiles = read_tiles(plan_tiles(Slide.open(sw.datasets.her2st("C3", data_dir=folder))), TILE_UM, TILE_PX)
    return np.array(tiles[np.linspace(0, len(tiles) - 1, n).astype(int)])


def plain(tile: np.ndarray) -> int:
    """The same steps for one tile with SciPy and scikit-image, without the features of windows; returns the number of nuclei."""
    rgb = np.where(tile.max(axis=0) <= BLANK, 255, tile).astype(np.float32)
    od = np.maximum(-np.log10((rgb + 1) / 256), 0)
    h, e = np.einsum("cij,ck->kij", od, unmixing_matrix(*REFERENCE_STAINS)[:, :2] / np.array(REFERENCE_STRENGTHS))
    smooth = ndimage.gaussian_filter(h, 0.8 / MPP, truncate=3)
    around = ndimage.gaussian_filter(h.reshape(TILE_PX // 8, 8, TILE_PX // 8, 8).mean(axis=(1, 3)), 25 / MPP / 8)
    mask = smooth > np.kron(np.maximum(0.22, 0.7 * around + 0.126), np.ones((8, 8)))
    mask = ndimage.binary_opening(mask)
    holes = label(~mask, connectivity=1)
    small = np.bincount(holes.ravel()) < 20 / MPP**2
    small[0] = False
    mask |= small[holes]
    depth = np.minimum(ndimage.distance_transform_edt(mask), 5 / MPP)
    blobs = -ndimage.gaussian_laplace(h, 2.2 / MPP, truncate=3) * (2.2 / MPP) ** 2
    height = ndimage.gaussian_filter(depth * MPP / 5, 0.8 / MPP, truncate=3) + 2.5 * blobs.clip(0)
    peaks = (height == ndimage.maximum_filter(height, footprint=disk(6))) & mask & (depth > 0.9 / MPP)
    labels = watershed(-height, ndimage.label(peaks, np.ones((3, 3)))[0], mask=mask)
    area = np.bincount(labels.ravel()) * MPP**2
    labels *= ((area >= 12) & (area <= 350))[labels]
    ring = expand_labels(labels, 3 / MPP) * (labels == 0)
    planes = np.stack([h, e, od.mean(axis=0)], axis=-1)
    names = (
        "area",
        "centroid",
        "axis_major_length",
        "axis_minor_length",
        "perimeter",
        "intensity_mean",
        "intensity_std",
    )
    table = regionprops_table(labels, planes, properties=names)
    regionprops_table(ring, planes, properties=("intensity_mean", "intensity_std"))
    return len(table["area"])


def best(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--density", type=float, default=2000.0, help="nuclei per mm² of drawn tiles")
    parser.add_argument("--data", type=Path, help="folder that holds her2st/")
    arguments = parser.parse_args()
    tiles = (
        drawn(arguments.tiles, arguments.density) if arguments.data is None else real(arguments.data, arguments.tiles)
    )
    small = np.ascontiguousarray(tiles[:, :, :TEXTURE_PX, :TEXTURE_PX])
    nuclei, texture = NucleiEncoder(), sw.models.image_encoder("stain_texture")

    def one_by_one() -> None:
        for tile in tiles:
            nuclei.encode(tile[None], mpp=MPP)

    calls: dict[str, Callable[[], object]] = {
        "nuclei, one core": one_by_one,
        "nuclei, all cores": lambda: nuclei.encode(tiles, mpp=MPP),
        "stain_texture": lambda: [texture.encode(small, mpp=um / TEXTURE_PX) for um in SIZES_UM],
        "SciPy and scikit-image": lambda: [plain(tile) for tile in tiles],
    }
    nuclei.encode(tiles[:1], mpp=MPP)  # compile before the clock starts
    texture.encode(small[:1], mpp=0.5)
    found = {
        name: min(best(call) for _ in range(1 if "SciPy" in name else arguments.rounds)) for name, call in calls.items()
    }
    counts = [len(n.places) for n in nuclei.measure(tiles, mpp=MPP)]
    print(
        f"{len(tiles)} tiles, {np.mean(counts):.0f} nuclei each ({np.mean([plain(t) for t in tiles]):.0f} by SciPy), {os.cpu_count()} cores"
    )
    for name, seconds in found.items():
        print(
            f"{name}: {1e3 * seconds / len(tiles):.1f} ms per row, {seconds / found['stain_texture']:.2f} x stain_texture"
        )


if __name__ == "__main__":
    main()
