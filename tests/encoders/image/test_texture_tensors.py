from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy import ndimage

from spatialwhisperer.encoders.image import stain_texture
from spatialwhisperer.encoders.image._texture import kernels, tensors
from spatialwhisperer.encoders.image.stain import SlideStain
from spatialwhisperer.encoders.image.stain_texture import StainTextureEncoder, on_devices

if TYPE_CHECKING:
    from pathlib import Path

CPU = [torch.device("cpu")]
NARROWEST = 0.01


def both(tiles: np.ndarray, mpp: float, stain: SlideStain | None = None) -> tuple[np.ndarray, np.ndarray]:
    encoder = StainTextureEncoder(stain)
    return encoder.encode(tiles, mpp=mpp, device="cpu"), on_devices(tiles, mpp, encoder.stain, CPU)


def noise(n: int, edge: int, seed: int = 0) -> np.ndarray:
    """Grain of several widths: at one of them alone, the features of all tiles are nearly the same."""
    rng = np.random.default_rng(seed)
    widths = rng.uniform(0.3, 3, n)
    tiles = [ndimage.gaussian_filter(rng.normal(size=(3, edge, edge)), (0, w, w)) for w in widths]
    return np.stack([np.clip(128 + 60 * t / t.std(), 0, 255) for t in tiles]).astype(np.uint8)


@pytest.mark.parametrize(("edge", "mpp"), [(96, 0.7), (64, 1.0), (16, 0.1), (17, 3.19), (50, 40.0)])
def test_features_are_those_of_the_compiled_loops(edge: int, mpp: float) -> None:
    tiles = np.concatenate([noise(12, edge), np.full((1, 3, edge, edge), 255, np.uint8)])
    cpu, other = both(tiles, mpp)
    scale = np.maximum(cpu.std(axis=0), NARROWEST)
    assert other.dtype == np.float32
    assert (np.abs(cpu - other) / scale).max() < 1e-4


def test_tiles_of_one_colour_differ_by_rounding() -> None:
    tiles = np.empty((30, 3, 64, 64), np.uint8)
    tiles[:] = np.random.default_rng(0).integers(0, 256, (30, 3, 1, 1))
    tiles[0], tiles[1] = np.array([200, 120, 180])[:, None, None], 0
    cpu, other = both(tiles, 0.7)
    np.testing.assert_allclose(other, cpu, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Image size")
def test_real_tiles(data_folder: Path) -> None:
    from PIL import Image

    image = Image.open(data_folder / "her2st" / "C3" / "image.jpg")
    region = np.asarray(image.crop((3000, 3000, 3000 + 8 * 224, 3000 + 4 * 224)))
    tiles = region.reshape(4, 224, 8, 224, 3).transpose(0, 2, 4, 1, 3).reshape(32, 3, 224, 224)
    stain = SlideStain.estimate(tiles, mpp=0.6875)
    assert stain.source == "image"
    cpu, other = both(tiles, 0.6875, stain)
    apart = np.abs(cpu - other) / np.maximum(cpu.std(axis=0), NARROWEST)
    # a pixel within rounding of a threshold may be on its other side
    assert np.quantile(apart, 0.995) < 1e-4
    assert apart.max() < 0.02


def test_rows_depend_on_their_own_tile_alone_whatever_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    tiles, stain = noise(5, 32), SlideStain.reference()
    together = on_devices(tiles, 1.0, stain, CPU)
    monkeypatch.setattr(stain_texture, "_BATCH_BYTES", 2 * tensors.BYTES_PER_PIXEL * 32**2)
    np.testing.assert_allclose(on_devices(tiles, 1.0, stain, CPU * 2), together, atol=1e-6)
    assert on_devices(tiles[:0], 1.0, stain, CPU).shape == (0, together.shape[1])


@pytest.mark.parametrize("width", [3, 9, 61])
def test_window_maxima_are_those_of_the_compiled_loop(width: int) -> None:
    planes = np.random.default_rng(1).normal(size=(3, 23, 23)).astype(np.float32)
    expected = np.stack([-kernels.window_minimum(-plane, width) for plane in planes])
    np.testing.assert_array_equal(tensors.window_maximum(torch.from_numpy(planes), width), expected)


def test_the_encoder_takes_this_path_on_cuda_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    tiles, encoder = noise(2, 32), StainTextureEncoder()
    taken: list[list[torch.device]] = []

    def on_the_cpu(tiles: np.ndarray, mpp: float, stain: SlideStain, devices: list[torch.device]) -> np.ndarray:
        taken.append(devices)
        return on_devices(tiles, mpp, stain, CPU)

    monkeypatch.setattr(stain_texture, "on_devices", on_the_cpu)
    cpu = encoder.encode(tiles, mpp=0.5)
    assert not taken
    monkeypatch.setattr(type(stain_texture.settings), "resolve_device", lambda *_: "cuda:1")
    monkeypatch.setattr("spatialwhisperer._compute.devices.devices_of", lambda name: [torch.device(name)])
    np.testing.assert_allclose(encoder.encode(tiles, mpp=0.5), cpu, atol=1e-4)
    assert taken == [[torch.device("cuda:1")]]
