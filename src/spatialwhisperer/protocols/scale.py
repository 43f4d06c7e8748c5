"""How often the check of the scale against the spots warns, where the scale is correct and where it is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spatialwhisperer._access.sections.lattice import scale_differs
from spatialwhisperer.protocols.output import markdown, write_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
_VISIUM = ["barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"]


def run(data: Path, out: Path, *, smoke: bool = False) -> pd.DataFrame:
    """Multiply the scale of each section by a factor, and write how many are warned of: ``scale.csv`` and ``scale.md``.

    The scale is that of the array by its indices, which the check does not use: 200 µm for two rows of HER2-positive breast cancer and
    olfactory bulb, 100 µm for Visium.

    Parameters
    ----------
    data
        Folder with any of ``her2st``, ``mob_regions``, ``mob``, ``visium_cytassist`` and ``xenium_lung_ncbi858``.
    out
        Folder of the results.
    smoke
        Take two sections of each, to show that everything runs.
    """
    rows = []
    for name, read in (
        ("her2st", _her2st),
        ("mob_regions", _bulb),
        ("mob", _bulb_pixels),
        ("visium_cytassist", _visium),
        ("xenium_lung_ncbi858", _cells),
    ):
        sections = list(read(data / name)) if (data / name).is_dir() else []
        for xy, mpp in sections[:2] if smoke else sections:
            rows.append(
                {"data": name, "n": 1} | {f"x {f:g}": int(scale_differs(xy, f * mpp) is not None) for f in FACTORS}
            )
    if not rows:
        raise FileNotFoundError(f"There are none of the data in {data}.")
    result = pd.DataFrame(rows).groupby("data", sort=False).sum()
    write_text(out / "scale.csv", result.to_csv())
    text = markdown(result.astype(str)) + "\n"
    write_text(out / "scale.md", text)
    print(text)
    return result


def _her2st(folder: Path) -> Iterator[tuple[np.ndarray, float]]:
    import anndata as ad

    for file in sorted(folder.glob("*/counts.h5ad")):
        section = ad.read_h5ad(file, backed="r")
        xy = np.asarray(section.obsm["spatial"], float)
        yield xy, 200 / _step(np.asarray(section.obs[["array_col", "array_row"]], float), xy)


def _bulb(folder: Path) -> Iterator[tuple[np.ndarray, float]]:
    from PIL import Image

    for file in sorted((folder / "annotations").glob("*_01.tsv")):
        names = pd.read_csv(file, sep="\t", index_col=0, nrows=0).columns
        array = np.array([[float(v) for v in name.split("_")] for name in names])
        with Image.open(folder / "images" / f"{file.stem[:2]}.jpg") as image:
            xy = (array - 1) / [32, 34] * image.size
        yield xy, 200 / _step(array, xy)


def _bulb_pixels(folder: Path) -> Iterator[tuple[np.ndarray, float]]:
    for file in sorted(folder.glob("alignment_table_*.tsv")):
        spots = pd.read_csv(file, sep="\t").query("selected == 1")
        xy = spots[["pixel_x", "pixel_y"]].to_numpy(float)
        # an index counts the rows of both arrays, one of which lies between those of the other
        yield xy, 100 / _step(spots[["x", "y"]].to_numpy(float), xy)


def _visium(folder: Path) -> Iterator[tuple[np.ndarray, float]]:
    spots = pd.read_csv(folder / "spatial" / "tissue_positions.csv", header=0, names=_VISIUM).query("in_tissue == 1")
    xy = spots[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(float)
    # columns go by twos
    yield xy, 50 / _step(spots[["array_col", "array_row"]].to_numpy(float), xy)


def _cells(folder: Path) -> Iterator[tuple[np.ndarray, float]]:
    import anndata as ad

    for file in sorted(folder.glob("*.h5ad")):
        # the scale is not stated, and cells lie on no lattice at any
        yield np.asarray(ad.read_h5ad(file).obs[["y_pixel", "x_pixel"]], float), 0.5


def _step(array: np.ndarray, xy: np.ndarray) -> float:
    """Pixels for one column of an array."""
    fitted = np.linalg.lstsq(np.column_stack([np.ones(len(array)), array]), xy)[0]
    return float(np.linalg.norm(fitted[1]))
