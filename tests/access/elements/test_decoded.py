"""Images that dask can only compute as a whole are decoded once."""

from __future__ import annotations

import gc
import pickle
from typing import TYPE_CHECKING, Any

import dask
import dask.array as da
import numpy as np
import pytest

from spatialwhisperer._access.elements import decoded
from spatialwhisperer._access.elements.decoded import WholePixels, computed_as_a_whole, decoded_once
from spatialwhisperer._access.images import find_image, read_pixels

if TYPE_CHECKING:
    from pathlib import Path

RGB = np.random.default_rng(0).integers(0, 255, (3, 60, 100), dtype=np.uint8)
CHUNKS = (3, 20, 20)


class File:
    """A picture, as dask-image reads it: one task decodes the file, whose pixels are then divided into chunks."""

    def __init__(self) -> None:
        self.n_decoded = 0

    def decode(self) -> np.ndarray:
        self.n_decoded += 1
        return np.moveaxis(RGB, 0, -1).copy()

    def array(self) -> Any:
        whole = da.from_delayed(dask.delayed(self.decode, pure=False)(), (60, 100, 3), np.uint8)
        return whole.transpose(2, 0, 1).rechunk(CHUNKS)


def test_a_file_is_decoded_once_however_many_parts_are_read(build: Any) -> None:
    file = File()
    element = build.image(file.array(), build.maps(S=1.0), scale_factors=[2])
    level = find_image(build.one(images={"he": element}), "he").levels[0]
    assert level.pixels.dtype == np.uint8
    for threads in (True, False):
        for x, y in ((0, 0), (35, 12), (-4, 41)):
            got = read_pixels(level, x, y, x + 30, y + 19, threads=threads)
            assert np.array_equal(got[:, :, max(0, -x) :], RGB[:, y : y + 19, max(0, x) : x + 30])
    assert file.n_decoded == 1


def test_what_dask_computes_as_a_whole_is_told(tmp_path: Path) -> None:
    chunked = da.from_array(RGB, chunks=CHUNKS)
    stored = {}
    for name, array in {"chunks": chunked, "one": chunked.rechunk(RGB.shape)}.items():
        array.to_zarr(str(tmp_path / f"{name}.zarr"))
        stored[name] = da.from_zarr(str(tmp_path / f"{name}.zarr"))
    yes = {
        "a file that is decoded": File().array(),
        "a part of it": File().array()[:, 10:, :40],
        "stored in one chunk": stored["one"],
        "divided by its maximum": stored["chunks"] / stored["chunks"].max(),
    }
    no = {
        "in memory": RGB,
        "of memory": da.from_array(RGB, chunks=-1),
        "of memory, turned": da.from_array(np.moveaxis(RGB, 0, -1), chunks=-1).transpose(2, 0, 1).rechunk(CHUNKS),
        "of memory in chunks": chunked,
        "persisted": File().array().persist(),
        "stored in chunks": stored["chunks"],
        "computed by chunk": 255 - stored["chunks"],
    }
    assert {name for name, array in (yes | no).items() if computed_as_a_whole(array)} == set(yes)


def test_images_are_forgotten_where_they_are_more_than_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoded, "MOST_BYTES", 2 * RGB.nbytes)
    files = [File() for _ in range(3)]
    images = [decoded_once(file.array(), "he") for file in files]
    for i in (0, 1, 0, 2, 0, 1):
        assert np.array_equal(images[i][:, 3:9, 4:8], RGB[:, 3:9, 4:8])
    # the third took the place of the second, which was not read for longer than the first
    assert [file.n_decoded for file in files] == [1, 2, 1]
    del images
    gc.collect()
    assert not len(decoded._KEPT)


def test_one_that_is_larger_than_what_is_kept_is_read_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoded, "MOST_BYTES", RGB.nbytes - 1)
    array = File().array()
    with pytest.warns(match=r"Image 'he' takes 0\.0 GiB .* Read the file with sw\.io\.read_slide"):
        assert decoded_once(array, "he") is array


def test_another_process_decodes_for_itself() -> None:
    pixels = WholePixels(da.from_array(RGB, chunks=CHUNKS))
    assert len(pixels) == 3
    pixels[:, :1, :1]
    copy = pickle.loads(pickle.dumps(pixels))
    assert copy._decoded is None
    assert np.array_equal(copy[:, 5:, ::-1], RGB[:, 5:, ::-1])
