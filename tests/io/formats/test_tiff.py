"""Files of TIFF that are read lazily."""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import spatialwhisperer as sw
from tests.io.conftest import pixels_of, some_tissue

if TYPE_CHECKING:
    from pathlib import Path

HANDLES = "/proc/self/fd"


def is_open(path: Path) -> bool:
    """Whether this process holds the file open."""
    found = (f"{HANDLES}/{name}" for name in os.listdir(HANDLES))
    return str(path) in [os.readlink(one) for one in found if os.path.islink(one)]


@pytest.mark.skipif(not os.path.isdir(HANDLES), reason="needs the open files of a process as a folder")
@pytest.mark.filterwarnings("error::ResourceWarning", "error::pytest.PytestUnraisableExceptionWarning")
def test_the_file_is_closed_when_the_slide_is_gone(slide_file: Path) -> None:
    sdata = sw.io.read_slide(slide_file)
    pixels_of(sdata)
    assert is_open(slide_file)
    del sdata
    gc.collect()
    assert not is_open(slide_file)


def with_channels(folder: Path, planes: np.ndarray, names: list[str] | None) -> Path:
    """An OME-TIFF of channels that are stored one by one, in tiles and with a coarser level."""
    import tifffile

    path = folder / "a.ome.tif"
    metadata: dict[str, Any] = {"axes": "CYX"} | ({} if names is None else {"Channel": {"Name": names}})
    options: dict[str, Any] = {"photometric": "minisblack", "tile": (64, 64)}
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(planes, subifds=1, metadata=metadata, **options)
        file.write(planes[:, ::2, ::2], subfiletype=1, **options)
    return path


@pytest.mark.parametrize("names", ["Red Green Blue", "Blue Green Red", "g b r", "B r G", "GREEN RED blue"])
def test_channels_of_an_ome_tiff_are_put_in_order_by_their_names(names: str, tmp_path: Path) -> None:
    tissue = some_tissue()
    stored = ["rgb".index(name[0].lower()) for name in names.split()]
    path = with_channels(tmp_path, np.moveaxis(tissue, -1, 0)[stored], names.split())
    sdata = sw.io.read_slide(path)
    assert np.array_equal(pixels_of(sdata), tissue)
    coarse: Any = sdata["a"]["scale1"]["image"]
    assert np.array_equal(np.moveaxis(coarse.to_numpy(), 0, -1), tissue[::2, ::2])


@pytest.mark.parametrize(
    "names",
    [None, ["", "", ""], ["Channel 0", "Channel 1", "Channel 2"], ["C1", "C2", "C3"], ["0", "1", "2"], ["RGB"] * 3],
)
def test_channels_without_names_of_their_own_are_in_order(names: list[str] | None, tmp_path: Path) -> None:
    tissue = some_tissue()
    assert np.array_equal(
        pixels_of(sw.io.read_slide(with_channels(tmp_path, np.moveaxis(tissue, -1, 0), names))), tissue
    )


@pytest.mark.parametrize(
    "names", [["TL Brightfield-B", "TL Brightfield-G", "TL Brightfield-R"], ["Blue channel", "Green channel", ""]]
)
def test_colours_are_found_beside_other_words_and_beside_no_name(names: list[str], tmp_path: Path) -> None:
    tissue = some_tissue()
    path = with_channels(tmp_path, np.moveaxis(tissue, -1, 0)[::-1], names)
    assert np.array_equal(pixels_of(sw.io.read_slide(path)), tissue)


@pytest.mark.parametrize("name", [None, "H&E", "DAPI"])
def test_samples_of_one_channel_are_rgb_whatever_its_name(name: str | None, tmp_path: Path) -> None:
    import tifffile

    metadata: dict[str, Any] = {"axes": "YXS"} | ({} if name is None else {"Channel": {"Name": [name]}})
    tifffile.imwrite(tmp_path / "a.ome.tif", some_tissue(), photometric="rgb", metadata=metadata)
    assert np.array_equal(pixels_of(sw.io.read_slide(tmp_path / "a.ome.tif")), some_tissue())


@pytest.mark.parametrize("names", [["DAPI", "FITC", "TRITC"], ["Red", "Green", "DAPI"], ["Red", "Green", "Green"]])
def test_channels_that_are_named_after_stains_are_refused(names: list[str], tmp_path: Path) -> None:
    path = with_channels(tmp_path, np.moveaxis(some_tissue(), -1, 0), names)
    with pytest.raises(
        ValueError, match=rf"not named as colours \({names[0]}, {names[1]}, {names[2]}\).*like fluorescence"
    ):
        sw.io.read_slide(path)


def test_a_channel_of_alpha_is_known_by_its_name(tmp_path: Path) -> None:
    tissue = some_tissue()
    alpha = np.full(tissue.shape[:2], 255, np.uint8)
    alpha[:150] = 0
    path = with_channels(tmp_path, np.stack([alpha, *np.moveaxis(tissue, -1, 0)]), ["Alpha", "Red", "Green", "Blue"])
    got = pixels_of(sw.io.read_slide(path))
    assert (got[:150] == 255).all()
    assert np.array_equal(got[150:], tissue[150:])
    path = with_channels(tmp_path, np.stack([alpha, *np.moveaxis(tissue, -1, 0)]), ["0", "1", "2", "3"])
    with pytest.raises(ValueError, match="four channels that are not said to be colours"):
        sw.io.read_slide(path)
