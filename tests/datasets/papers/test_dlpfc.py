from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

import spatialwhisperer as sw
from spatialwhisperer._messages import SpatialWhispererWarning
from tests.datasets.papers import files

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd


def write(folder: Path, section: str, *, seed: int, space_ranger: bool = False) -> pd.DataFrame:
    """One section as spatialLIBD links it, or in a folder as Space Ranger wrote it; returns the spots under tissue."""
    spots = files.hexagonal(seed)
    under = spots[spots["in_tissue"] == 1]
    own = folder / section if space_ranger else folder / "10X" / section
    (own / "spatial").mkdir(parents=True, exist_ok=True)
    counts = (own / "filtered" if space_ranger else folder / "h5" / f"{section}_filtered").with_name(
        "filtered_feature_bc_matrix.h5" if space_ranger else f"{section}_filtered_feature_bc_matrix.h5"
    )
    files.write_h5(counts, under["barcode"], files.counts_of(under, seed))
    positions = own / ("spatial/tissue_positions_list.csv" if space_ranger else "tissue_positions_list.txt")
    spots.to_csv(positions, header=False, index=False)
    image = own / "spatial/full_image.tif" if space_ranger else folder / f"{section}_full_image.tif"
    tifffile.imwrite(image, files.pixels(seed), photometric="rgb")
    return under


def write_layers(path: Path, spots: pd.DataFrame, section: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        f"{b}\t{section}\t{'WM' if row > 3 else f'L{row + 1}'}\n"
        for b, row in zip(spots["barcode"], spots["row"], strict=True)
    ]
    # the authors left some spots out, and the table holds all sections
    path.write_text("".join([*lines[1:], f"{spots['barcode'].iloc[0]}\t151676\tL1\n"]))


def test_layers_and_donor_of_a_section(tmp_path: Path) -> None:
    spots = write(tmp_path, "151669", seed=1)
    write_layers(tmp_path / "10X" / "barcode_level_layer_map.tsv", spots, "151669")
    sections = sw.datasets.dlpfc(tmp_path)
    table = sections["151669"]["table"]
    assert dict(sections.patients) == {"151669": "Br5595"}
    np.testing.assert_array_equal(table.X.toarray(), files.counts_of(spots, 1))
    assert list(table.obs["layer"].cat.categories) == ["L1", "L2", "L3", "L4", "WM"]
    assert table.obs["layer"].isna().tolist() == [True] + [False] * (len(spots) - 1)
    expected = ["WM" if row > 3 else f"L{row + 1}" for row in spots["row"]]
    assert table.obs["layer"].astype(object).tolist()[1:] == expected[1:]
    np.testing.assert_array_equal(table.obsm["spatial"], spots[["x", "y"]].to_numpy())


def test_a_folder_of_space_ranger_without_layers_warns(tmp_path: Path) -> None:
    write(tmp_path, "151507", seed=2, space_ranger=True)
    with pytest.warns(SpatialWhispererWarning, match="barcode_level_layer_map.tsv"):
        sections = sw.datasets.dlpfc(tmp_path)
    sdata = sections["151507"]
    assert sdata["table"].obs["layer"].isna().all()
    pixels = np.asarray(sdata["151507_image"]["scale0"]["image"])
    np.testing.assert_array_equal(pixels.transpose(1, 2, 0), files.pixels(2))


def test_a_missing_file_and_another_data_set_are_said(tmp_path: Path) -> None:
    files.write_cscc(tmp_path, "P2_ST_rep1", "GSM4284316")
    with pytest.raises(FileNotFoundError, match="151507_filtered_feature_bc_matrix.h5.*not this data set.*spatialLIBD"):
        sw.datasets.dlpfc(tmp_path)
    write(tmp_path, "151507", seed=2)
    (tmp_path / "10X" / "151507" / "tissue_positions_list.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"151507/tissue_positions_list\.txt.*HumanPilot"):
        sw.datasets.dlpfc(tmp_path)
