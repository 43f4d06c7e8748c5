"""HDF5 files of images and masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest

from spatialwhisperer.datasets._nuclei.hdf import read_hdf

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("factor", [1, 256])
def test_sixteen_bits_may_hold_pixels_of_eight(factor: int, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 30)).astype(np.uint8)
    with h5py.File(tmp_path / "x.hdf", "w") as file:
        file["img"] = pixels.astype(np.uint16) * factor
        file["gt_inst"] = file["gt_ct"] = np.zeros((1, 20, 30), np.uint16)
    assert np.array_equal(read_hdf(tmp_path / "x.hdf", ["gt_ct"]).pixels, pixels)
