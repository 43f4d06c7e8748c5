"""From a file to labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from PIL import Image

import spatialwhisperer as sw
from tests.io.conftest import mpp_of, pixels_of, some_tissue

if TYPE_CHECKING:
    from pathlib import Path


def test_a_slide_is_annotated_in_one_call(slide_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sdata = sw.io.read_slide(slide_file)
    with sw.settings.override(verbose=True):
        sw.tl.zero_shot_annotate(sdata)
    said = [line for line in capsys.readouterr().err.splitlines() if "no table" in line]
    assert len(said) == 1
    assert "100 µm apart" in said[0]
    table = sdata["sw_tiles"]
    assert set(sdata.shapes) == {"slide_tiles"}
    assert table.n_obs > 5
    assert table.obsm["sw_label_scores"].shape[0] == table.n_obs
    assert sdata["slide_tiles"].area.to_numpy() == pytest.approx(200.0**2)
    before = table.obsm["sw_label_scores"].copy()
    sw.tl.zero_shot_annotate(sdata)
    np.testing.assert_array_equal(sdata["sw_tiles"].obsm["sw_label_scores"], before)


def test_nothing_is_written_where_nothing_shall_be_or_the_call_fails(slide_file: Path) -> None:
    sdata = sw.io.read_slide(slide_file)
    scores = sw.tl.zero_shot_annotate(sdata, ["fat", "tumour"], inplace=False)
    assert scores is not None
    assert len(scores) > 5
    with pytest.raises(KeyError):
        sw.tl.zero_shot_annotate(sdata, ["fat", "tumour"], group_key="misspelt")
    assert not sdata.tables
    assert not sdata.shapes


def test_a_search_and_an_embedding_lay_the_same_tiles(slide_file: Path) -> None:
    sdata = sw.io.read_slide(slide_file)
    sw.tl.embed(sdata)
    other = sw.io.read_slide(slide_file)
    sw.tl.query(other, "fat")
    np.testing.assert_array_equal(sdata["sw_tiles"].obsm["X_sw_image"], other["sw_tiles"].obsm["X_sw_image"])


def test_a_slide_without_a_scale_asks_for_it(tmp_path: Path) -> None:
    Image.fromarray(some_tissue(900, 1200)).save(tmp_path / "a.png")
    sdata = sw.io.read_slide(tmp_path / "a.png")
    with pytest.raises(ValueError, match="microns per pixel of section 'a' are not known"):
        sw.tl.zero_shot_annotate(sdata)
    sw.tl.zero_shot_annotate(sdata, mpp=0.5)
    assert sdata["sw_tiles"].n_obs > 5


@pytest.mark.parametrize("data", ["slide.tif", np.zeros((40, 40, 3), np.uint8)], ids=["path", "array"])
def test_a_path_or_pixels_in_the_place_of_an_object_name_the_reader(data: Any) -> None:
    for call in (sw.tl.zero_shot_annotate, sw.tl.embed, sw.pp.embed_images):
        with pytest.raises(TypeError, match=r"sw\.io\.read_slide"):
            call(data)


@pytest.mark.slow
def test_a_slide_survives_zarr(slide_file: Path, tmp_path: Path) -> None:
    import spatialdata as sd

    sdata = sw.io.read_slide(slide_file)
    sw.tl.zero_shot_annotate(sdata)
    sdata.write(tmp_path / "a.zarr")
    back = sd.read_zarr(tmp_path / "a.zarr")
    np.testing.assert_array_equal(pixels_of(back), pixels_of(sdata))
    assert mpp_of(back) == pytest.approx(0.5)
    np.testing.assert_array_equal(back["sw_tiles"].obsm["sw_label_scores"], sdata["sw_tiles"].obsm["sw_label_scores"])


def test_a_real_jpeg_is_read(data_folder: Path) -> None:
    sdata = sw.io.read_slide(data_folder / "her2st" / "A1" / "image.jpg", mpp=3.19)
    assert mpp_of(sdata) == pytest.approx(3.19)


def test_a_real_ome_tiff_states_its_scale(data_folder: Path) -> None:
    path = data_folder / "he_patches" / "instanseg_HE_example.tif"
    if not path.is_file():
        pytest.skip("needs he_patches")
    sdata = sw.io.read_slide(path)
    assert mpp_of(sdata) == pytest.approx(0.5, rel=1e-2)
    np.testing.assert_array_equal(pixels_of(sdata), tifffile.imread(path))
