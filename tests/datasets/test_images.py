from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import tifffile
from PIL import Image

from spatialwhisperer.datasets._files import images

if TYPE_CHECKING:
    from pathlib import Path


def test_jpeg_and_tiff_have_one_size_and_levels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (90, 130, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    Image.fromarray(pixels).save(tmp_path / "a.jpg")
    for name in ("a.tif", "a.jpg"):
        assert images.size(tmp_path / name) == (130, 90)
        assert images.levels(tmp_path / name)[0].shape == (3, 90, 130)
    np.testing.assert_array_equal(np.asarray(images.levels(tmp_path / "a.tif")[0]).transpose(1, 2, 0), pixels)
