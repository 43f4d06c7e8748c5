"""Small files in the published layouts: tiny images, few spots, the quirks of the real ones."""

from __future__ import annotations

import gzip
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

PITCH_PX = 20.0
GENES = [("ENSG01", "ALB"), ("ENSG02", "SNAP25"), ("ENSG03", "DUP"), ("ENSG04", "DUP")]


def pack(path: Path) -> None:
    """Leave a file as GEO has it."""
    with path.open("rb") as plain, gzip.open(f"{path}.gz", "wb") as packed:
        shutil.copyfileobj(plain, packed)
    path.unlink()


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (200, 260, 3), dtype=np.uint8)


def hexagonal(seed: int) -> pd.DataFrame:
    """All spots of a small Visium array; those of the last two rows lie beside the tissue."""
    rows, columns = (a.ravel() for a in np.mgrid[0:8, 0:20])
    keep = (rows + columns) % 2 == 0
    rows, columns = rows[keep], columns[keep]
    x, y = 20 + columns * PITCH_PX / 2, 15 + rows * PITCH_PX * 3**0.5 / 2
    table = pd.DataFrame({"barcode": [f"AC{i:03d}-1" for i in range(len(rows))], "in_tissue": (rows < 6).astype(int)})
    table = table.assign(row=rows, col=columns, y=np.rint(y).astype(int), x=np.rint(x).astype(int))
    return table.sample(frac=1, random_state=seed)


def counts_of(barcodes: Any, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).poisson(2.0, (len(barcodes), len(GENES)))


def write_triplet(folder: Path, stem: str, barcodes: Any, counts: np.ndarray) -> list[Path]:
    from scipy.io import mmwrite

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{stem}_{name}" for name in ("matrix.mtx", "barcodes.tsv", "features.tsv")]
    mmwrite(paths[0], sp.csc_matrix(counts.T), field="integer")
    paths[1].write_text("".join(f"{b}\n" for b in barcodes))
    paths[2].write_text("".join(f"{i}\t{s}\tGene Expression\n" for i, s in GENES))
    return paths


def write_h5(path: Path, barcodes: Any, counts: np.ndarray) -> None:
    """As Space Ranger does: the matrix is genes by spots, in columns."""
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    matrix = sp.csc_matrix(counts.T.astype(np.int32))
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(matrix, name)
        group["shape"] = np.array(matrix.shape)
        group["barcodes"] = np.array(list(barcodes), dtype="S")
        for name, values in {
            "id": [i for i, _ in GENES],
            "name": [s for _, s in GENES],
            "feature_type": ["Gene Expression"] * len(GENES),
            "genome": ["GRCh38"] * len(GENES),
        }.items():
            group[f"features/{name}"] = np.array(values, dtype="S")


def write_cscc(folder: Path, name: str, sample: str, *, seed: int = 0) -> pd.DataFrame:
    """Counts, spots and image of one section; returns the counts of the spots under tissue."""
    folder.mkdir(parents=True, exist_ok=True)
    x, y = (a.ravel() for a in np.meshgrid(np.arange(4, 10), np.arange(20, 25)))
    ids = [f"{a}x{b}" for a, b in zip(x, y, strict=True)]
    rng = np.random.default_rng(seed)
    counts = pd.DataFrame(
        rng.poisson(2.0, (len(ids) + 2, 3)), index=[*ids[::-1], "1x1", "2x2"], columns=["KRT5", "SBSN", "A-B"]
    )
    counts.to_csv(folder / f"{sample}_{name}_stdata.tsv", sep="\t")
    spots = pd.DataFrame({"x": x, "y": y, "new_x": x + 0.01, "new_y": y - 0.01})
    spots["pixel_x"], spots["pixel_y"] = (x - 3.5) * 30.0, (y - 19.5) * 30.0
    # one spot without counts
    extra = pd.DataFrame([{"x": 30, "y": 30, "new_x": 30, "new_y": 30, "pixel_x": 200, "pixel_y": 160}])
    pd.concat([spots, extra]).to_csv(folder / f"{sample}_spot_data-selection-{name}.tsv", sep="\t", index=False)
    Image.fromarray(pixels(seed)).save(folder / f"{sample}_{name}.jpg", quality=95, subsampling=0)
    return counts.loc[ids]
