"""The reader of the 8-bit MobileNets against the reader that comes with their weights."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
import torch

from spatialwhisperer.protocols.her2st.mobilenet import DIMENSIONS, mobilenet


@pytest.fixture(scope="module")
def theirs(data_folder) -> Any:
    path = data_folder / "weights" / "mobilenet_npz.py"
    if not path.is_file():
        pytest.skip("needs weights/mobilenet_npz.py in the data folder")
    spec = importlib.util.spec_from_file_location("mobilenet_npz", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.MobileNetNpz


@pytest.fixture(scope="module")
def tiles() -> np.ndarray:
    """Noise, a gradient, white and black: uint8 (4, 3, 224, 224)."""
    rng = np.random.default_rng(0)
    gradient = np.broadcast_to(np.linspace(0, 255, 224)[None, None], (3, 224, 224))
    parts = [rng.integers(0, 256, (3, 224, 224)), gradient, np.full((3, 224, 224), 255), np.zeros((3, 224, 224))]
    return np.stack(parts).astype(np.uint8)


@pytest.mark.parametrize("name", list(DIMENSIONS))
def test_features_are_exactly_those_of_the_reader_in_the_data(data_folder, theirs, tiles, name) -> None:
    path = data_folder / "weights" / f"{name}_imagenet_u8.npz"
    with torch.inference_mode():
        expected = theirs(path).eval()(tiles.transpose(0, 2, 3, 1)).numpy()
    features = mobilenet(path).encode(tiles, mpp=0.5, device="cpu")
    assert features.shape == (4, DIMENSIONS[name])
    # pixels go to [0, 1] and back: exact for whole numbers up to 255 in float32
    assert np.abs(features - expected).max() == 0.0


def test_features_do_not_depend_on_the_batch(data_folder, tiles) -> None:
    path = data_folder / "weights" / "mobilenet_v2_imagenet_u8.npz"
    if not path.is_file():
        pytest.skip("needs weights/ in the data folder")
    network = mobilenet(path)
    alone = np.concatenate([network.encode(tiles[i : i + 1], mpp=0.5, device="cpu") for i in range(len(tiles))])
    np.testing.assert_allclose(network.encode(tiles, mpp=0.5, device="cpu"), alone, atol=1e-4)
