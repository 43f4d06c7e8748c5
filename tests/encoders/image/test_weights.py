"""Weights are local safetensors files that fit the network exactly."""

from __future__ import annotations

import numpy as np
import pytest

from spatialwhisperer._settings import settings
from spatialwhisperer.encoders.image.timm import TimmEncoder
from spatialwhisperer.models import image_encoder

TINY = "test_vit"  # a model of 160 px that timm keeps for tests


@pytest.fixture(scope="module")
def tiles() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 3, 48, 48), dtype=np.uint8)


@pytest.fixture(scope="module")
def tiny() -> TimmEncoder:
    return TimmEncoder(TINY, pretrained=False)


@pytest.fixture
def weights(tiny, tmp_path):
    from safetensors.torch import save_file

    file = tmp_path / "model.safetensors"
    save_file(tiny.network.state_dict(), file)
    return file


def test_safetensors_weights_are_loaded_from_file_and_folder(tiny, weights, tiles):
    expected = tiny.encode(tiles, mpp=0.5, device="cpu")
    with settings.override(offline=True):
        for where in (weights, weights.parent, str(weights)):
            loaded = image_encoder(TINY, weights=where)
            np.testing.assert_array_equal(loaded.encode(tiles, mpp=0.5, device="cpu"), expected)


def test_a_classifier_in_the_file_is_passed_over(tiny, tmp_path):
    import torch
    from safetensors.torch import save_file

    head = {"head.weight": torch.zeros(10, tiny.spec.dim), "head.bias": torch.zeros(10)}
    save_file({**tiny.network.state_dict(), **head}, tmp_path / "a.safetensors")
    assert image_encoder(TINY, weights=tmp_path).spec.dim == tiny.spec.dim


def test_weights_that_do_not_fit_are_named(weights, tmp_path):
    with pytest.raises(ValueError, match="does not fit the network"):
        image_encoder("resnet18", weights=weights)
    (tmp_path / "second.safetensors").write_bytes(weights.read_bytes())
    with pytest.raises(ValueError, match="exactly one"):
        image_encoder(TINY, weights=tmp_path)
    with pytest.raises(FileNotFoundError, match="no weights at"):
        image_encoder(TINY, weights=tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="takes none"):
        image_encoder("stain_texture", weights=weights)


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth"])
def test_pickles_are_refused_unopened(suffix, tmp_path):
    file = tmp_path / f"pytorch_model{suffix}"
    file.write_bytes(b"not even a pickle")
    for where in (file, tmp_path):
        with pytest.raises(ValueError, match="safetensors.torch.save_file"):
            image_encoder(TINY, weights=where)
