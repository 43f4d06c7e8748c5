"""Images that the embedded model was not made for: other tissue, other stains, and breast sections that were spoilt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.tiles.plan import plan_tiles
from spatialwhisperer._access.tiles.sample import image_sample
from spatialwhisperer.encoders.image.stain import EOSIN, HAEMATOXYLIN
from spatialwhisperer.pp.features.encoder_choice import choose_encoder
from spatialwhisperer.pp.features.images import compute_image_features, image_looks, image_recipe
from spatialwhisperer.pp.features.tile_features import read_tiles
from spatialwhisperer.protocols.annotation.splits import COARSE, SEVERAL_UM, WITH_IMAGE
from spatialwhisperer.protocols.her2st.folds import with_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from anndata import AnnData

    from spatialwhisperer.models import ImageEncoder

    Change = Callable[[np.ndarray, float], np.ndarray]


class Tissue(NamedTuple):
    """Image features of the rows of a section, and what the encoder saw of its image."""

    features: np.ndarray
    look: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.features)


Features = dict[str, dict[str, Tissue]]
"""Tissue by set and section."""

ASSUMED_MPP = 0.5
"""Microns per pixel of images that do not state them."""

IHC = "skimage_ihc"
FADED, INK = 0.2, (20, 60, 150)


def breast(data: Path, *, smoke: bool = False) -> dict[str, Tissue]:
    """Features of the sections with an image, as the embedded model reads them."""
    names = ("A1", "C2", "C3") if smoke else WITH_IMAGE
    found = {name: _features(_rows(sw.datasets.her2st(name, data_dir=data), smoke)) for name in names}
    return {name: Tissue(x[np.isfinite(x).all(axis=1)], look) for name, (x, look) in found.items()}


def foreign(data: Path, *, smoke: bool = False) -> Features:
    """Features of other tissue, as far as it lies in the folder.

    Parameters
    ----------
    data
        Folder that holds any of ``mob_regions/``, ``mob/``, ``visium_cytassist/``, ``he_patches/`` and ``nuclei/``.
    smoke
        Read some rows of the first section of each set.
    """
    readers: dict[str, Callable[[Path], Iterator[tuple[str, AnnData]]]] = {
        "mouse olfactory bulb, 5 animals": _bulb_regions,
        "mouse olfactory bulb, 2 animals": _bulb,
        "mouse embryo, eosin": _eosin,
        "H&E of other organs": _patches,
        "immunohistochemistry": _ihc,
        "nuclei": _nuclei,
    }
    out: Features = {}
    for name, read in readers.items():
        for section, table in read(data):
            out.setdefault(name, {})[section] = _features(_rows(table, smoke))
            if smoke:
                break
    return out


def changed(data: Path, *, smoke: bool = False) -> Features:
    """Features of breast sections whose tiles were changed."""
    encoder = sw.models.image_encoder("stain_texture")
    out: Features = {name: {} for name in CHANGES}
    for section in ("C2",) if smoke else ("C2", "A1"):
        plan = plan_tiles(Slide.open(_rows(sw.datasets.her2st(section, data_dir=data), smoke)))
        sample, mpp = image_sample(plan.sections[0])
        tiles = {um: read_tiles(plan, um, COARSE) for um in SEVERAL_UM}
        for name, change in CHANGES.items():
            bound = encoder.on_image(change(sample, mpp), mpp=mpp)
            out[name][section] = Tissue(_encoded(bound, tiles, change), bound.look)
    return out


def _encoded(encoder: ImageEncoder, tiles: dict[float, np.ndarray], change: Change) -> np.ndarray:
    return np.hstack([encoder.encode(change(t, um / COARSE), mpp=um / COARSE) for um, t in tiles.items()])


def _rows(data: Any, smoke: bool) -> Any:
    """The data, or every fifth row of them."""
    if not smoke:
        return data
    if hasattr(data, "tables"):
        return with_rows(data, np.arange(0, data["table"].n_obs, 5))
    return data[::5].copy()


def _features(data: Any) -> Tissue:
    slide = Slide.open(data)
    recipe = image_recipe(slide, choose_encoder("stain_texture"), tile_um=SEVERAL_UM, tile_px=COARSE)
    found = compute_image_features(slide, recipe, sw.models.image_encoder("stain_texture"))
    return Tissue(found.values, next(iter(image_looks(slide, recipe.key, found.results).values()), ()))


# ------------------------------------------------------------------------------------------------- files


def _table(name: str, pixels: np.ndarray, xy: np.ndarray, mpp: float) -> AnnData:
    from anndata import AnnData

    table = AnnData(np.zeros((len(xy), 1), np.float32))
    table.obsm["spatial"] = np.asarray(xy, dtype=np.float64)
    scale = {"microns_per_pixel": float(mpp)}
    table.uns["spatial"] = {name: {"images": {"fullres": pixels}, "scalefactors": scale}}
    return table


def _rgb(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _bulb_regions(data: Path) -> Iterator[tuple[str, AnnData]]:
    for path in sorted((data / "mob_regions" / "images").glob("*.jpg")):
        pixels = _rgb(path)
        spots = pd.read_csv(data / "mob_regions" / "annotations" / f"{path.stem}_01.tsv", sep="\t", index_col=0).columns
        xy = np.array([[float(v) for v in spot.split("_")] for spot in spots])
        # the array of 33 × 35 spots spans the image, 200 µm apart
        pitch = np.array([pixels.shape[1] / 32, pixels.shape[0] / 34])
        yield path.stem, _table(path.stem, pixels, (xy - 1) * pitch, 200 / pitch.mean())


def _bulb(data: Path) -> Iterator[tuple[str, AnnData]]:
    for path in sorted((data / "mob").glob("*.jpg")):
        spots = pd.read_csv(data / "mob" / f"alignment_table_{path.stem}.tsv", sep="\t")
        xy = spots.loc[spots["selected"] == 1, ["pixel_x", "pixel_y"]].to_numpy()
        yield path.stem, _table(path.stem, _rgb(path), xy, 200 / 48)


def _eosin(data: Path) -> Iterator[tuple[str, AnnData]]:
    folder = data / "visium_cytassist" / "spatial"
    if folder.is_dir():
        spots = pd.read_csv(folder / "tissue_positions.csv")
        xy = spots.loc[spots["in_tissue"] == 1, ["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy()
        # its only image has a fifth of the full resolution of 4.678 µm per pixel
        yield "embryo", _table("embryo", _rgb(folder / "tissue_lowres_image.png"), 0.2 * xy, 4.678 / 0.2)


def _patches(data: Path) -> Iterator[tuple[str, AnnData]]:
    for path in sorted((data / "he_patches").glob("*")):
        if path.suffix in (".tif", ".jpg", ".png") and path.stem != IHC:
            yield path.stem, _gridded(path)


def _ihc(data: Path) -> Iterator[tuple[str, AnnData]]:
    path = data / "he_patches" / f"{IHC}.png"
    if path.is_file():
        yield path.stem, _gridded(path)


def _gridded(path: Path) -> AnnData:
    """An image with a row every 100 µm, and at least one."""
    pixels = _rgb(path)
    centres = [
        (np.arange(n) + 0.5) * edge / n for edge in pixels.shape[:2] if (n := max(1, int(edge * ASSUMED_MPP / 100)))
    ]
    y, x = np.meshgrid(*centres, indexing="ij")
    return _table(path.stem, pixels, np.column_stack([x.ravel(), y.ravel()]), ASSUMED_MPP)


def _nuclei(data: Path) -> Iterator[tuple[str, AnnData]]:
    """All images of 320 × 256 pixels side by side, with two rows on each."""
    paths = sorted(p for p in (data / "nuclei" / "dsb2018_he").glob("*.png") if not p.stem.endswith("_labels"))
    images = [image for image in map(_rgb, paths) if image.shape[:2] == (256, 320)]
    if images:
        blank = [np.full((256, 320, 3), 255, np.uint8)] * (-len(images) % 10)
        lines = [np.hstack((images + blank)[i : i + 10]) for i in range(0, len(images), 10)]
        corner = np.array([[320 * (i % 10), 256 * (i // 10)] for i in range(len(images))])
        xy = np.concatenate([corner + [x, 128] for x in (81, 240)])
        yield "mosaic", _table("mosaic", np.vstack(lines), xy, ASSUMED_MPP)


# ------------------------------------------------------------------------------------------------- changes


def _blur(um: float) -> Change:
    def blurred(tiles: np.ndarray, mpp: float) -> np.ndarray:
        from scipy.ndimage import gaussian_filter

        return np.stack([gaussian_filter(t, (0, um / mpp, um / mpp)) for t in tiles])

    return blurred


def _empty(tiles: np.ndarray, _mpp: float) -> np.ndarray:
    return np.random.default_rng(0).normal(243, 2, tiles.shape).clip(0, 255).astype(np.uint8)


def _pen(tiles: np.ndarray, mpp: float) -> np.ndarray:
    """A line of blue ink through the middle, 40 µm wide."""
    out, half, middle = tiles.astype(float), round(20 / mpp), tiles.shape[-1] // 2
    line = out[..., middle - half : middle + half]
    out[..., middle - half : middle + half] = FADED * line + (1 - FADED) * np.reshape(INK, (1, 3, 1, 1))
    return out.astype(np.uint8)


def _grey(tiles: np.ndarray, _mpp: float) -> np.ndarray:
    return np.repeat(tiles.mean(axis=1, keepdims=True), 3, axis=1).round().astype(np.uint8)


def _fluorescence(tiles: np.ndarray, _mpp: float) -> np.ndarray:
    """Haematoxylin as blue and eosin as green light on black."""
    density = -np.log((tiles.astype(np.float32) + 1) / 256)
    stains = np.array([np.asarray(s) / np.linalg.norm(s) for s in (HAEMATOXYLIN, EOSIN)])
    amount = np.einsum("nchw,cs->nshw", density, np.linalg.pinv(stains)).clip(0, 1.2) / 1.2
    out = np.zeros(tiles.shape)
    out[:, 2], out[:, 1] = 255 * amount[:, 0], 180 * amount[:, 1]
    return out.astype(np.uint8)


CHANGES: dict[str, Change] = {
    "immunofluorescence-like": _fluorescence,
    "empty slide": _empty,
    "pen mark in each tile": _pen,
    "blur of 4 µm": _blur(4.0),
    "blur of 8 µm": _blur(8.0),
    "grey": _grey,
    "inverted": lambda tiles, _mpp: 255 - tiles,
    "red and blue exchanged": lambda tiles, _mpp: tiles[:, ::-1].copy(),
    "pixels × 0.6": lambda tiles, _mpp: (0.6 * tiles).astype(np.uint8),
}
"""Changes of the tiles (n, 3, p, p) at some microns per pixel."""
