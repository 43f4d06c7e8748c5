from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.tiles.plan import plan_tiles
from spatialwhisperer.pp.features.tile_features import read_tiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from anndata import AnnData

MPP, PATCH_UM, PATCH_PX = 2.0, 112.0, 56


def write_section(folder: Path, name: str, table: AnnData, patches: np.ndarray | None, barcodes: Any = None) -> None:
    """Counts and patches of a section, as HEST-1k stores them."""
    import h5py

    for part in ("st", "patches"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    table.write_h5ad(folder / "st" / f"{name}.h5ad")
    if patches is None:
        return
    names = table.obs_names if barcodes is None else barcodes
    with h5py.File(folder / "patches" / f"{name}.h5", "w") as h5:
        h5["img"] = np.ascontiguousarray(np.moveaxis(patches, 1, 3))
        h5["barcode"] = np.array([[str(n).encode()] for n in names])
        h5["coords"] = np.asarray(table.obsm["spatial"])[: len(patches)]


def write_metadata(folder: Path, patients: Mapping[str, str | None], **columns: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame({"id": list(patients), "patient": list(patients.values()), **columns})
    table.to_csv(folder / "HEST_v1_1_0.csv", index=False)


def patches_of(section: Any, tile_um: float = PATCH_UM, tile_px: int = PATCH_PX) -> np.ndarray:
    """Tiles around the rows, read from the image, uint8 (n, 3, p, p)."""
    return np.asarray(read_tiles(plan_tiles(Slide.open(section), "nan"), tile_um, tile_px))


def plain(table: Any) -> AnnData:
    """Counts and positions, with barcodes that other sections have too."""
    import anndata as ad

    out = ad.AnnData(table.X.copy(), var=pd.DataFrame(index=table.var_names))
    out.obs_names = [f"AAAC{i:04d}-1" for i in range(out.n_obs)]
    out.obsm["spatial"] = np.asarray(table.obsm["spatial"])
    return out


@pytest.fixture(scope="session")
def three_patients() -> dict[str, tuple[AnnData, np.ndarray]]:
    """Counts and patches of a simulated section of each of three patients. Read only."""
    data = sw.datasets.simulate_sections(3, 90, n_genes=80, n_reference_cells=30, mpp=MPP, random_state=1)
    return {f"SIM{name}": (plain(s["table"]), patches_of(s)) for name, s in data.sections.items()}


@pytest.fixture(scope="session")
def hest(three_patients: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the layout of HEST-1k. Read only."""
    folder = tmp_path_factory.mktemp("hest")
    for name, (table, patches) in three_patients.items():
        write_section(folder, name, table, patches)
    write_metadata(
        folder,
        {name: f"Patient {i}" for i, name in enumerate([*three_patients, "NOT_HERE"])},
        organ=["Breast", "Breast", "Lung", "Breast"],
        pixel_size_um_estimated=MPP,
        inter_spot_dist=100.0,
    )
    return folder


@pytest.fixture(scope="session")
def write() -> Callable[..., None]:
    return write_section


@pytest.fixture(scope="session")
def metadata() -> Callable[..., None]:
    return write_metadata


@pytest.fixture(scope="session")
def patches() -> Callable[..., np.ndarray]:
    return patches_of


@pytest.fixture
def corner_colour() -> Iterator[str]:
    """Name of a registered encoder that sees tiles alone: the mean colour of their four quarters."""
    from spatialwhisperer.encoders.registry import ENTRIES

    @sw.models.register_encoder(sw.models.EncoderSpec("corner_colour", "image", 12))
    class CornerColour(sw.models.ImageEncoder):
        def encode(self, inputs: np.ndarray, *, mpp: float, device: str | None = None) -> np.ndarray:  # noqa: ARG002
            half = inputs.shape[-1] // 2
            parts = [inputs[:, :, i : i + half, j : j + half] for i in (0, half) for j in (0, half)]
            return np.concatenate([q.mean(axis=(2, 3)) for q in parts], axis=1).astype(np.float32)

    yield "corner_colour"
    # what lists all encoders must not find it
    del ENTRIES["image", "corner_colour"]
