"""Lizard: nuclei of six classes in H&E images of the colon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spatialwhisperer._checks.checked import checked
from spatialwhisperer._messages import listing
from spatialwhisperer._settings import settings
from spatialwhisperer.datasets._nuclei.assemble import assemble
from spatialwhisperer.datasets._nuclei.layout import LabelledImage, Layout, choose, folder_of
from spatialwhisperer.datasets.cells import TILE_PX, CellImages

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

URL = "https://warwick.ac.uk/fac/cross_fac/tia/data/lizard"
PAGE = "https://warwick.ac.uk/lizard-dataset"
CLASSES = ("Background", "Neutrophil", "Epithelial", "Lymphocyte", "Plasma", "Eosinophil", "Connective tissue")
ARCHIVES = {
    "lizard_images1.zip": "d2c4e7c83dff634624c9c14d4a1a0b821d4e9ac41e05e3b36303d8f0c510113d",
    "lizard_images2.zip": "9f529f30d9de66587167991a8bf75aaad07ce1d518b72e825c868ac7c33015ed",
    "lizard_labels.zip": "79f22ca83ca535682fba340cbc8bb66b74abd1ead4151ffc8593f204fcb97dec",
}
"""SHA-256 of the authors' archives as the data set loader of torch-em states them; the authors publish none."""


@checked
def lizard(
    *,
    data_dir: str | Path | None = None,
    images: str | Sequence[str] | None = None,
    split: int | None = None,
    mpp: float = 0.5,
    tile_px: int = TILE_PX,
    base_url: str = URL,
) -> CellImages:
    """Read Lizard: 238 H&E images of the colon at 20x with nuclei of six classes.

    Image ``S`` becomes ``S_image`` (c, y, x uint8 pyramid), the squares ``S_tiles`` and the circles ``S_nuclei``, all
    registered to the coordinate systems ``S`` (pixels) and ``microns``; ``table`` annotates the tiles, ``nuclei`` the nuclei.

    Parameters
    ----------
    data_dir
        Folder with ``Lizard_Images1``, ``Lizard_Images2`` and ``Lizard_Labels`` (each also one level deeper, as the archives
        unpack), or with files ``<image>.hdf`` (arrays ``img``, ``gt_inst``, ``gt_ct``) as the published benchmark makes them.
        ``None`` downloads the authors' archives once into ``settings.cache_dir / "lizard"``.
    images
        Names such as ``"crag_11"``; ``None`` takes all.
    split
        1, 2 or 3: only the images of that split in the authors' ``info.csv``; ``None`` takes all.
    mpp
        Microns per pixel.
    tile_px
        Edge of the tiles.
    base_url
        Where the archives are downloaded from.

    Returns
    -------
    Mapping from name to SpatialData, read when asked for. ``table`` has one row per tile with a nucleus:

    - ``obs``: ``section``, ``x_array``, ``y_array`` (column and row of the grid), ``n_cells``, ``cell_type`` (most frequent);
    - ``obsm["cell_counts"]``: nuclei by class, int32 (n, 7), names in ``uns["cell_counts"]["classes"]``. The first of the seven columns
      is "Background", the class 0 of the files, which is no class of nuclei; the six others are;
    - ``obsm["spatial"]``: centre of the tile in pixels.

    ``nuclei`` has ``cell_type``, ``area_px`` and the centre of each nucleus.

    Raises
    ------
    FileNotFoundError
        A folder or file is missing, or ``settings.offline`` forbids to download it.
    ValueError
        Unknown image or split, masks that do not fit an image, or an archive that is not the one known.
    ConnectionError
        The download failed.

    Notes
    -----
    Established from the authors' read-me and from public readers: folders and file names; the keys ``inst_map``, ``id``,
    ``class``, ``bbox`` and ``centroid`` of a ``.mat`` file, whose i-th class belongs to the i-th ``id`` (not to the i-th label of
    the mask); columns ``Filename``, ``Source``, ``Split`` of ``info.csv``. The read-me calls class 5 neutrophil like class 1; it is
    eosinophil in the paper and in every reader. 20x is taken as 0.5 microns per pixel.

    A nucleus belongs to the tile that its centroid is in; nuclei in the last occupied row and column of the grid are left
    out if there is more than one of both. The published benchmark cut the same images into tiles before it counted, so its
    tiles are shifted by a few pixels; pass its ``.hdf`` files to get them.

    References
    ----------
    Graham et al., ICCV Workshops 2021. Data: CC BY-NC-SA 4.0, https://warwick.ac.uk/lizard-dataset.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> images = sw.datasets.lizard(data_dir="lizard", images=["crag_11"])  # doctest: +SKIP
    >>> images["crag_11"]["table"].obsm["cell_counts"].shape  # doctest: +SKIP
    (36, 7)
    """
    from spatialwhisperer.datasets._nuclei.hdf import hdf_files, read_hdf

    if data_dir is None:
        from spatialwhisperer.datasets._files.archives import fetch_archives

        root = settings.cache_dir / "lizard"
        suffixes = (".png", ".mat", ".csv")
        fetch_archives(ARCHIVES, base_url=base_url, folder=root, suffixes=suffixes, page=PAGE)
    else:
        root = folder_of(data_dir)
    layout = Layout("lizard", PAGE, "CC BY-NC-SA 4.0", CLASSES, mpp, tile_px, always_drop=False)
    stored = hdf_files(root)
    if stored:
        if split is not None:
            raise ValueError(f"{root} holds .hdf files and no info.csv, so split={split} is not known. Leave it out.")
        names = choose(images, list(stored), str(root))
        return CellImages(names, lambda name: assemble(name, read_hdf(stored[name], ["gt_ct"]), layout), CLASSES)
    files = _files(root)
    kept = list(files) if split is None else _of_split(root, files, split)
    names = choose(images, kept, str(root) if split is None else f"split {split} of {root}")
    return CellImages(names, lambda name: assemble(name, _read(*files[name]), layout), CLASSES)


def _below(root: Path, name: str) -> list[Path]:
    """A folder of the archives, whether they were unpacked side by side or each into a folder of its own."""
    return [path for pattern in (name, f"*/{name}") for path in sorted(root.glob(pattern))]


def _files(root: Path) -> dict[str, tuple[Path, Path]]:
    """Image and label file by name."""
    pngs = [p for n in (1, 2) for folder in _below(root, f"Lizard_Images{n}") for p in folder.glob("*.png")]
    labels = {p.stem: p for folder in _below(root, "Lizard_Labels/Labels") for p in folder.glob("*.mat")}
    if not pngs or not labels:
        raise FileNotFoundError(
            f"{root} must hold Lizard_Images1/*.png, Lizard_Images2/*.png and Lizard_Labels/Labels/*.mat; found {len(pngs)} images "
            f"and {len(labels)} labels ({root} holds {listing(sorted(p.name for p in root.iterdir()))}). Get them from {PAGE}, "
            "or pass data_dir=None to download them."
        )
    alone = sorted(p.stem for p in pngs if p.stem not in labels)
    if alone:
        raise FileNotFoundError(f"No file Lizard_Labels/Labels/<name>.mat for {listing(alone)} in {root}.")
    return {p.stem: (p, labels[p.stem]) for p in sorted(pngs, key=lambda p: p.stem)}


def _of_split(root: Path, files: dict[str, tuple[Path, Path]], split: int) -> list[str]:
    paths = _below(root, "Lizard_Labels/info.csv")
    if not paths:
        raise FileNotFoundError(f"split={split} needs Lizard_Labels/info.csv, which is not in {root}.")
    info = pd.read_csv(paths[0])
    if not {"Filename", "Split"} <= set(info):
        raise ValueError(f"{paths[0]} must have the columns Filename and Split; it has {listing(info)}.")
    if split not in set(info["Split"]):
        raise ValueError(f"{paths[0]} has no split {split!r}; it has {listing(sorted(set(info['Split'])))}.")
    chosen = set(info.loc[info["Split"] == split, "Filename"].astype(str).str.removesuffix(".png"))
    return [name for name in files if name in chosen]


def _read(png: Path, mat: Path) -> LabelledImage:
    from scipy.io import loadmat

    from spatialwhisperer.datasets._files import jpeg
    from spatialwhisperer.datasets._sections.elements import CHUNK_PX

    label = loadmat(mat, variable_names=["inst_map", "id", "class"])
    missing = [key for key in ("inst_map", "id", "class") if key not in label]
    if missing:
        raise ValueError(f"{mat} lacks {listing(missing)}.")
    instances = np.asarray(label["inst_map"]).astype(np.int64)
    ids, codes = (np.asarray(label[key]).ravel().astype(np.int64) for key in ("id", "class"))
    if len(ids) != len(codes):
        raise ValueError(f"{mat} has {len(ids)} ids and {len(codes)} classes.")
    present = np.unique(instances[instances > 0])
    unknown = np.setdiff1d(present, ids)
    if len(unknown):
        raise ValueError(f"{len(unknown)} nuclei of {mat} have no class (first: {listing(unknown, 3)}).")
    lookup = np.zeros(int(max(instances.max(initial=0), ids.max(initial=0))) + 1, np.int64)
    lookup[ids] = codes
    return LabelledImage(jpeg.lazy(png, chunk_px=CHUNK_PX), instances, lookup[instances])
