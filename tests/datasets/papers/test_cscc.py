from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

import spatialwhisperer as sw
from spatialwhisperer._settings import settings
from tests.datasets.papers import files

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("packed", [True, False])
def test_a_section_is_read_as_it_was_published(tmp_path: Path, packed: bool) -> None:
    folder = tmp_path / "GSE144240_RAW"
    counts = files.write_cscc(folder, "P2_ST_rep1", "GSM4284316")
    files.write_cscc(folder, "P10_ST_rep3", "GSM4284327", seed=1)
    if packed:
        for path in sorted(folder.iterdir()):
            files.pack(path)
    with settings.override(cache_dir=tmp_path / "cache"):
        sections = sw.datasets.cscc(folder)
        assert dict(sections.patients) == {"P2_ST_rep1": "P2", "P10_ST_rep3": "P10"}
        sdata = sections["P2_ST_rep1"]
        table = sdata["table"]
        np.testing.assert_array_equal(table.X.toarray(), counts.to_numpy())
        assert list(table.var_names) == ["KRT5", "SBSN", "A-B"]
        assert list(table.obs_names) == [f"P2_ST_rep1_{spot}" for spot in counts.index]
        # neighbours lie 30 px apart, which is 150 µm
        assert sw.datasets.cscc(folder)["P2_ST_rep1"]["P2_ST_rep1_spots"]["radius"].iloc[0] == pytest.approx(11)
        np.testing.assert_allclose(table.obsm["spatial"][0], [15, 15])
        image = np.asarray(sdata["P2_ST_rep1_image"]["scale0"]["image"])
    assert image.shape == (3, 200, 260)
    assert abs(image.astype(float) - files.pixels(0).transpose(2, 0, 1)).mean() < 10
    assert "P2_ST_rep1_spots" in set(table.obs["region"])


def test_without_images_none_is_needed(tmp_path: Path) -> None:
    files.write_cscc(tmp_path / "P5", "P5_ST_rep2", "GSM4284320")
    (tmp_path / "P5" / "GSM4284320_P5_ST_rep2.jpg").unlink()
    assert not sw.datasets.cscc(tmp_path, with_image=False)["P5_ST_rep2"].images
    with pytest.raises(FileNotFoundError, match=r"P5_ST_rep2 needs GSM\*_P5_ST_rep2\.jpg .*GSE144240"):
        sw.datasets.cscc(tmp_path)


def test_a_missing_file_and_another_data_set_are_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no file GSM.*not this data set.*GSE144240"):
        sw.datasets.cscc(tmp_path)
    with pytest.raises(FileNotFoundError, match="not a folder"):
        sw.datasets.cscc(tmp_path / "absent")
    files.write_cscc(tmp_path, "P9_ST_rep1", "GSM4284322")
    (tmp_path / "GSM4284322_spot_data-selection-P9_ST_rep1.tsv").unlink()
    with pytest.raises(FileNotFoundError, match="the spots under tissue"):
        sw.datasets.cscc(tmp_path)


def test_files_of_two_sections_are_noticed(tmp_path: Path) -> None:
    files.write_cscc(tmp_path, "P2_ST_rep1", "GSM4284316")
    counts = tmp_path / "GSM4284316_P2_ST_rep1_stdata.tsv"
    text = counts.read_text()
    counts.write_text(text.replace("x2", "x7"))
    with pytest.raises(ValueError, match="not of one section"):
        sw.datasets.cscc(tmp_path)["P2_ST_rep1"]
    counts.write_text(text.replace("\t2\t", "\t2.5\t"))
    with pytest.raises(ValueError, match="whole numbers"):
        sw.datasets.cscc(tmp_path)["P2_ST_rep1"]
    counts.write_text(text)
    Image.new("RGB", (100, 100)).save(tmp_path / "GSM4284316_P2_ST_rep1.jpg")
    with pytest.raises(ValueError, match="lie outside"):
        sw.datasets.cscc(tmp_path)["P2_ST_rep1"]
