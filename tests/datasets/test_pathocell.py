from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from spatialwhisperer.datasets.pathocell import pathocell

if TYPE_CHECKING:
    from pathlib import Path

COARSE = ("Background", "B cells", "T cells", "Tumor cells", "Other cells")


def write_pathocell(root: Path) -> None:
    folder = root / "pathocell_hdf"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "CT_coarse_mapping.txt").write_text(
        "coarse_mapping = {\n" + ",\n".join(f"    {i}: '{c}'" for i, c in enumerate(COARSE)) + "\n}\n"
    )
    (folder / "CT_mapping.txt").write_text("{" + ", ".join(f'{i}: "fine {i}"' for i in range(5)) + "}")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_pathocell_layout(tmp_path, dtype, naive_tiles, assert_same, write_hdf) -> None:
    write_pathocell(tmp_path)
    instances, code, pixels = write_hdf(tmp_path / "pathocell_hdf/reg001_A.hdf", dtype=dtype)
    images = pathocell(data_dir=tmp_path, tile_px=30)
    assert images.classes == list(COARSE)
    sdata = images["reg001_A"]
    assert_same(sdata["table"], naive_tiles(instances, lambda _, y, x: code[y, x], 5, 30, always=True))
    read = np.asarray(sdata["reg001_A_image"]["scale0"]["image"])
    np.testing.assert_allclose(read, pixels, atol=1 if dtype is np.float32 else 0)
    assert pathocell(data_dir=tmp_path / "pathocell_hdf", level="fine").classes[4] == "fine 4"


def test_pathocell_says_how_to_get_it(tmp_path, write_hdf) -> None:
    with pytest.raises(FileNotFoundError, match="hf download Kainmueller-Lab/PathoCell"):
        pathocell()
    with pytest.raises(FileNotFoundError, match="pathocell_hdf"):
        pathocell(data_dir=tmp_path)
    write_hdf(tmp_path / "reg001_A.hdf")
    with pytest.raises(FileNotFoundError, match="CT_coarse_mapping.txt"):
        pathocell(data_dir=tmp_path)
    write_pathocell(tmp_path)
    write_hdf(tmp_path / "pathocell_hdf/reg002_A.hdf", coarse=False)
    with pytest.raises(KeyError, match="gt_ct_coarse"):
        pathocell(data_dir=tmp_path)["reg002_A"]


def test_unknown_class_codes_are_refused(tmp_path, write_hdf) -> None:
    write_pathocell(tmp_path)
    write_hdf(tmp_path / "pathocell_hdf/reg001_A.hdf", n_classes=9)
    with pytest.raises(ValueError, match="known are 0 to 4"):
        pathocell(data_dir=tmp_path, tile_px=30)["reg001_A"]
