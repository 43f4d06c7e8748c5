from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

import spatialwhisperer as sw
from spatialwhisperer._settings import settings
from tests.datasets.papers import files

if TYPE_CHECKING:
    from pathlib import Path


def write(folder: Path, stem: str, image: str, *, seed: int, all_spots: bool = False) -> np.ndarray:
    """One section as GEO has it; returns the counts of the spots under tissue, in the order of the counts."""
    spots = files.hexagonal(seed)
    kept = spots if all_spots else spots[spots["in_tissue"] == 1]
    order = kept.sort_values("barcode")
    counts = files.counts_of(order, seed)
    files.write_triplet(folder, stem, order["barcode"], counts)
    spots.to_csv(folder / f"{stem}_tissue_positions_list.csv", header=False, index=False)
    tifffile.imwrite(folder / image, files.pixels(seed), photometric="rgb")
    return counts[(order["in_tissue"] == 1).to_numpy()]


def test_sections_of_both_archives_are_read_as_they_were_published(tmp_path: Path) -> None:
    healthy = write(tmp_path, "GSM7697870_C73C1", "GSM7697870_GEX_C73_C1_Merged.tiff", seed=1)
    packed = tmp_path / "GSE245620_RAW"
    image = "GSM7845914_GEX_PSC011-4_A1_Merged.tif"
    ill = write(packed, "GSM7845914_PSC011_A1_VISIUM", image, seed=2, all_spots=True)
    for path in sorted(packed.iterdir()):
        files.pack(path)
    with settings.override(cache_dir=tmp_path / "cache"):
        sections = sw.datasets.liver(tmp_path)
        assert dict(sections.patients) == {"C73_C1": "C73", "PSC011_A1": "PSC011"}
        for name, expected, seed in (("C73_C1", healthy, 1), ("PSC011_A1", ill, 2)):
            sdata = sections[name]
            table = sdata["table"]
            np.testing.assert_array_equal(table.X.toarray(), expected)
            assert list(table.var_names) == ["ALB", "SNAP25", "DUP", "DUP-1"]
            assert set(table.obs["in_tissue"]) == {1}
            # 20 px are 100 µm, and spots are 55 µm wide
            assert sdata[f"{name}_spots"]["radius"].iloc[0] == pytest.approx(5.5, rel=0.01)
            pixels = np.asarray(sdata[f"{name}_image"]["scale0"]["image"])
            np.testing.assert_array_equal(pixels.transpose(1, 2, 0), files.pixels(seed))
        assert sw.datasets.liver(tmp_path, off_tissue=True)["PSC011_A1"]["table"].n_obs == 80
        assert list((tmp_path / "cache" / "liver").glob(f"*/{image}"))


def test_a_missing_file_names_itself_and_its_page(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="GSM7697868.*GSE240429"):
        sw.datasets.liver(tmp_path)
    write(tmp_path, "GSM7697868_C73A1", "GSM7697868_GEX_C73_A1_Merged.tiff", seed=1)
    (tmp_path / "GSM7697868_C73A1_features.tsv").rename(tmp_path / "features.tsv")
    with pytest.raises(FileNotFoundError, match=r"C73_A1 needs GSM7697868_\*features\.tsv"):
        sw.datasets.liver(tmp_path)


def test_counts_of_another_section_are_noticed_by_the_tissue(tmp_path: Path) -> None:
    stem = "GSM7697868_C73A1"
    write(tmp_path, stem, "GSM7697868_GEX_C73_A1_Merged.tiff", seed=1)
    spots = files.hexagonal(0)
    spots["in_tissue"] = (spots["col"] < 12).astype(int)
    spots.to_csv(tmp_path / f"{stem}_tissue_positions_list.csv", header=False, index=False)
    with pytest.raises(ValueError, match="Counts and positions of C73_A1 are not of one section"):
        sw.datasets.liver(tmp_path)["C73_A1"]
