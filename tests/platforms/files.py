"""Output folders of platforms, small, in their real layout: the pages of docs/platforms read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pandas as pd

from tests.io.conftest import some_tissue

if TYPE_CHECKING:
    from collections.abc import Sequence

GENES = ("EPCAM", "KRT8", "KRT18", "CD3E", "CD3D", "MS4A1", "COL1A1", "COL1A2", "PTPRC", "PECAM1", "ACTA2", "ADIPOQ")
HEIGHT, WIDTH = 600, 800
XENIUM_UM = 0.2125
HE_UM = 0.5


def image_file(path: str | Path, *, mpp: float | None = HE_UM, pixels: np.ndarray | None = None) -> np.ndarray:
    """Write a TIFF, of pink tissue with nuclei where no pixels are given, and its resolution where it is known."""
    import tifffile

    pixels = _tissue(HEIGHT, WIDTH) if pixels is None else pixels
    stated: dict[str, Any] = {} if mpp is None else {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": 3}
    tifffile.imwrite(path, pixels, photometric="rgb", **stated)
    return pixels


def matrix_file(path: Path, barcodes: list[str], genes: Sequence[str] = GENES, counts: Any = None) -> None:
    """Write counts as Cell Ranger, Space Ranger and Xenium write them: HDF5, one column for each barcode."""
    import scipy.sparse as sp

    if counts is None:
        counts = np.random.default_rng(1).poisson(2, (len(genes), len(barcodes)))
    counts = sp.csc_matrix(counts).astype(np.int32)
    features = {
        "id": [f"ENSG{i:011d}" for i in range(len(genes))],
        "name": list(genes),
        "feature_type": ["Gene Expression"] * len(genes),
        "genome": ["GRCh38"] * len(genes),
    }
    with h5py.File(path, "w") as h5:
        h5.attrs["library_ids"] = np.array(["breast"], "S")
        h5.attrs["software_version"] = "spaceranger-3.0.0"
        group = h5.create_group("matrix")
        group["barcodes"] = np.array(barcodes, "S")
        group["data"], group["indices"], group["indptr"] = counts.data, counts.indices, counts.indptr
        group["shape"] = np.array(counts.shape, np.int32)
        for name, values in features.items():
            group[f"features/{name}"] = np.array(values, "S")


def space_ranger(folder: str, *, version: int = 2, image: str = "tissue.tif") -> pd.DataFrame:
    """A Visium section of 55 µm spots, 100 µm apart, 1 µm per pixel: the folder and the full-resolution image beside it."""
    spots = _visium_spots()
    spots.index = pd.Index([f"{_barcode(i)}-1" for i in range(len(spots))], name="barcode")
    root = Path(folder)
    (root / "spatial").mkdir(parents=True)
    matrix_file(root / "filtered_feature_bc_matrix.h5", list(spots.index))
    if version == 1:
        spots.to_csv(root / "spatial" / "tissue_positions_list.csv", header=False)
    else:
        spots.to_csv(root / "spatial" / "tissue_positions.csv")
    pixels = image_file(image, mpp=None)
    factors = {"tissue_hires_scalef": 0.5, "tissue_lowres_scalef": 0.125}
    _images(root / "spatial", pixels, {"hires": 2, "lowres": 8})
    _json(
        root / "spatial" / "scalefactors_json.json",
        {**factors, "spot_diameter_fullres": 55.0, "fiducial_diameter_fullres": 105.0},
    )
    return spots


def visium_hd(folder: str, *, image: str = "tissue.tif") -> None:
    """A Visium HD section of Space Ranger 4: bins of 8 and 16 µm, and segmented cells; 0.5 µm per pixel."""
    root = Path(folder)
    root.mkdir()
    pixels = image_file(image)
    factors = {"tissue_hires_scalef": 0.5, "tissue_lowres_scalef": 0.125, "microns_per_pixel": HE_UM}
    with h5py.File(root / "feature_slice.h5", "w") as h5:
        h5.attrs["metadata_json"] = json.dumps({"hd_layout_json": json.dumps({"file_format": "1.0"})})
    _images(_made(root / "spatial"), pixels, {"hires": 2, "lowres": 8})
    for size in (8, 16):
        _bins(root / "binned_outputs" / f"square_{size:03}um", size, factors)
    _segmented(root / "segmented_outputs", factors)


def xenium(folder: str, *, pixels: np.ndarray | None = None, xy_px: np.ndarray | None = None) -> np.ndarray:
    """A Xenium section (version 3), its H&E image, and the matrix that aligns them. Returns the cells in pixels of the H&E image."""
    import zarr

    root = Path(folder)
    root.mkdir()
    height, width = image_file("he.tif", pixels=pixels).shape[:2]
    factor = HE_UM / XENIUM_UM
    # the H&E image lies upside down, as it often does
    matrix = np.array([[-factor, 0, factor * width], [0, -factor, factor * height], [0, 0, 1]])
    np.savetxt("matrix.csv", matrix, delimiter=",")
    xy_px = _cells() if xy_px is None else xy_px
    xy_um = (xy_px @ matrix[:2, :2].T + matrix[:2, 2]) * XENIUM_UM
    n = len(xy_um)
    names = [f"{''.join(chr(97 + int(c, 16)) for c in f'{i:08x}')}-1" for i in range(n)]
    _json(root / "experiment.xenium", {"analysis_sw_version": "xenium-3.0.0.15", "pixel_size": XENIUM_UM})
    matrix_file(root / "cell_feature_matrix.h5", names)
    cells = {
        "cell_id": names,
        "x_centroid": xy_um[:, 0],
        "y_centroid": xy_um[:, 1],
        "cell_area": 80.0,
        "nucleus_area": 30.0,
    }
    pd.DataFrame(cells).to_parquet(root / "cells.parquet")
    size = (int(height * factor), int(width * factor))
    with zarr.storage.ZipStore(root / "cells.zarr.zip", mode="w") as store:
        group = zarr.open_group(store, mode="w", zarr_format=2)
        group["cell_id"] = np.column_stack([np.arange(n), np.ones(n)]).astype(np.uint32)
        columns = ["cell_centroid_x", "cell_centroid_y", "cell_area", "nucleus_centroid_x", "nucleus_centroid_y"]
        names_of_columns = [*columns, "nucleus_area", "z_level", "nucleus_count"]
        summary = np.column_stack([xy_um, np.ones((n, 6))])
        group.create_array("cell_summary", data=summary, attributes={"column_names": names_of_columns})
        for kind, (name, radius) in enumerate({"nucleus": 3.0, "cell": 5.0}.items()):
            group[f"masks/{kind}"] = _mask(xy_um / XENIUM_UM, radius / XENIUM_UM, size)
            group[f"polygon_sets/{kind}/cell_index"] = np.arange(n, dtype=np.uint32)
            _outlines(xy_um, radius, names).to_parquet(root / f"{name}_boundaries.parquet")
    places = {
        "x_location": xy_um[:, 0],
        "y_location": xy_um[:, 1],
        "z_location": 1.0,
        "qv": 30.0,
        "feature_name": "EPCAM",
    }
    pd.DataFrame({"cell_id": names, **places}).to_parquet(root / "transcripts.parquet")
    _focus(_made(root / "morphology_focus"), size)
    return xy_px


def spatial_transcriptomics(image: str = "HE.tif", counts: str = "counts.tsv", spots: str = "spots.tsv") -> None:
    """The files of a first Spatial Transcriptomics array: counts by spot, pixels by spot, image. 200 µm are 100 pixels."""
    image_file(image, mpp=None)
    columns, rows = (c.ravel() for c in np.meshgrid(np.arange(1, 8), np.arange(1, 6)))
    names = [f"{x}x{y}" for x, y in zip(columns, rows, strict=True)]
    table = np.random.default_rng(1).poisson(2, (len(names), len(GENES)))
    pd.DataFrame(table, index=names, columns=list(GENES)).to_csv(counts, sep="\t")
    pixels = {"x": columns, "y": rows, "pixel_x": 50.0 + 100 * columns, "pixel_y": 50.0 + 100 * rows}
    pd.DataFrame(pixels).to_csv(spots, sep="\t", index=False)


# ------------------------------------------------------------------------------------------------------- parts


def _tissue(height: int, width: int) -> np.ndarray:
    pixels = some_tissue(height, width)
    y, x = np.mgrid[:height, :width]
    for left, top in np.random.default_rng(0).integers(
        (width // 4, height // 4), (3 * width // 4, 3 * height // 4), (20, 2)
    ):
        pixels[(y - top) ** 2 + (x - left) ** 2 < 64] = (70, 40, 120)
    return pixels


def _visium_spots() -> pd.DataFrame:
    rows, columns = (c.ravel() for c in np.mgrid[:6, :14])
    here = (rows + columns) % 2 == 0
    rows, columns = rows[here], columns[here]
    y, x = np.rint(100 + rows * 100 * np.sqrt(3) / 2), np.rint(75 + columns * 50)
    places = {"array_row": rows, "array_col": columns, "pxl_row_in_fullres": y, "pxl_col_in_fullres": x}
    return pd.DataFrame({"in_tissue": 1, **places}).astype(int)


def _barcode(number: int) -> str:
    return "".join("ACGT"[number // 4**k % 4] for k in range(16))


def _bins(root: Path, size_um: int, factors: dict[str, float]) -> None:
    spatial = _made(root / "spatial")
    edge = size_um / HE_UM
    # the middle of the tissue alone, so that few bins are read
    columns, rows = (c.ravel() for c in np.meshgrid(np.arange(320 // edge), np.arange(224 // edge)))
    names = [f"s_{size_um:03}um_{int(y):05}_{int(x):05}-1" for x, y in zip(columns, rows, strict=True)]
    places = {"barcode": names, "in_tissue": 1, "array_row": rows.astype(int), "array_col": columns.astype(int)}
    pixels = {"pxl_row_in_fullres": 190 + edge * (rows + 0.5), "pxl_col_in_fullres": 240 + edge * (columns + 0.5)}
    pd.DataFrame({**places, **pixels}).to_parquet(spatial / "tissue_positions.parquet")
    matrix_file(root / "filtered_feature_bc_matrix.h5", names)
    stated = {"bin_size_um": float(size_um), "spot_diameter_fullres": edge, "fiducial_diameter_fullres": 330.0}
    _json(spatial / "scalefactors_json.json", {**factors, **stated})
    _images(spatial, some_tissue(HEIGHT, WIDTH), {"hires": 2, "lowres": 8})


def _segmented(root: Path, factors: dict[str, float]) -> None:
    spatial = _made(root / "spatial")
    _json(spatial / "scalefactors_json.json", {**factors, "fiducial_diameter_fullres": 330.0})
    xy = _cells()
    corners = _circle(10.0)
    features = [
        {
            "type": "Feature",
            "properties": {"cell_id": i + 1},
            "geometry": {"type": "Polygon", "coordinates": [(place + corners).tolist()]},
        }
        for i, place in enumerate(xy)
    ]
    _json(root / "cell_segmentations.geojson", {"type": "FeatureCollection", "features": features})
    matrix_file(root / "filtered_feature_cell_matrix.h5", [f"cellid_{i + 1:09d}-1" for i in range(len(xy))])


def _cells() -> np.ndarray:
    """Cells in pixels of the H&E image, far from its border: shape (n, 2)."""
    columns, rows = np.meshgrid(np.arange(250, 551, 50), np.arange(200, 401, 50))
    return np.column_stack([columns.ravel(), rows.ravel()]).astype(float)


def _circle(radius: float) -> np.ndarray:
    turn = np.linspace(0, 2 * np.pi, 13)
    return radius * np.column_stack([np.cos(turn), np.sin(turn)])


def _outlines(xy_um: np.ndarray, radius: float, names: list[str]) -> pd.DataFrame:
    corners = (xy_um[:, None] + _circle(radius)).reshape(-1, 2)
    each = len(corners) // len(names)
    columns = {
        "vertex_x": corners[:, 0],
        "vertex_y": corners[:, 1],
        "label_id": np.repeat(np.arange(1, len(names) + 1), each),
    }
    return pd.DataFrame({"cell_id": np.repeat(names, each), **columns})


def _mask(xy: np.ndarray, radius: float, size: tuple[int, int]) -> np.ndarray:
    out = np.zeros(size, np.uint32)
    reach = np.arange(-int(radius), int(radius) + 1)
    dy, dx = (c.ravel() for c in np.meshgrid(reach, reach, indexing="ij"))
    inside = dx**2 + dy**2 <= radius**2
    for i, (x, y) in enumerate(np.rint(xy).astype(int)):
        rows, columns = y + dy[inside], x + dx[inside]
        there = (rows >= 0) & (rows < size[0]) & (columns >= 0) & (columns < size[1])
        out[rows[there], columns[there]] = i + 1
    return out


def _focus(folder: Path, size: tuple[int, int]) -> None:
    import tifffile

    tifffile.imwrite(
        folder / "morphology_focus_0000.ome.tif",
        np.zeros(size, np.uint16),
        metadata={"axes": "YX", "PhysicalSizeX": XENIUM_UM, "PhysicalSizeY": XENIUM_UM},
        compression="zlib",
    )


def _images(folder: Path, pixels: np.ndarray, steps: dict[str, int]) -> None:
    from PIL import Image

    for name, step in steps.items():
        Image.fromarray(pixels).reduce(step).save(folder / f"tissue_{name}_image.png")


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
