"""Any torch module as an image encoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from spatialwhisperer._settings import settings
from spatialwhisperer.encoders.image.networks.module import ModuleEncoder
from spatialwhisperer.models import EncoderSpec


@pytest.fixture(scope="module")
def tiles() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 3, 48, 48), dtype=np.uint8)


def test_modules_with_batch_statistics_run_in_evaluation_mode_and_get_it_back(tiles):
    net: Any = torch.nn.Sequential(
        torch.nn.BatchNorm2d(3), torch.nn.Dropout(0.5), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )
    net[1].eval()
    encoder = ModuleEncoder(net, EncoderSpec("net", "image", 3))
    before = net[0].running_mean.clone()
    features = encoder.encode(tiles, mpp=0.5, device="cpu")
    expected = tiles.mean(axis=(2, 3)) / 255 / np.sqrt(1 + net[0].eps)
    np.testing.assert_allclose(features, expected, atol=1e-5)
    assert torch.equal(net[0].running_mean, before)
    assert net.training
    assert net[0].training
    assert not net[1].training


def test_the_spec_of_a_module_sets_size_and_normalisation(tiles):
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, x):
            seen.append(x)
            return x.mean(dim=(2, 3))

    spec = EncoderSpec("spy", "image", 3, input_px=24, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    features = ModuleEncoder(Spy(), spec).encode(tiles, mpp=0.5, device="cpu")
    assert seen[0].shape == (5, 3, 24, 24)
    np.testing.assert_allclose(features, (tiles.mean(axis=(2, 3)) / 255 - 0.5) / 0.25, atol=0.02)


def test_a_module_must_return_rows(tiles):
    with pytest.raises(ValueError, match="one row of features per tile"):
        ModuleEncoder(torch.nn.Identity(), EncoderSpec("x", "image", None)).encode(tiles, mpp=0.5, device="cpu")
    with pytest.raises(TypeError, match="uint8"):
        ModuleEncoder(torch.nn.Identity(), EncoderSpec("x", "image", None)).encode(tiles / 255, mpp=0.5)


def pooled(**facts) -> ModuleEncoder:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    return ModuleEncoder(net, EncoderSpec("pooled", "image", 4, **facts))


def test_rows_do_not_depend_on_the_batch_and_no_tiles_give_no_rows(tiles):
    encoder = pooled()
    whole = encoder.encode(tiles, mpp=0.5, device="cpu")
    with settings.override(batch_size=2):
        np.testing.assert_allclose(encoder.encode(tiles, mpp=0.5, device="cpu"), whole, atol=1e-6)
    assert encoder.encode(tiles[:0], mpp=0.5).shape == (0, 4)


@pytest.mark.parametrize("input_px", [None, 20, 48])
def test_the_module_that_learns_is_a_copy_over_tiles_of_the_same_size(tiles, input_px):
    encoder = pooled(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), input_px=input_px)
    encoder.network.requires_grad_(False)
    before = encoder.encode(tiles, mpp=0.5, device="cpu")
    module = encoder.module()
    batch = encoder.collate(tiles[::-1])
    assert batch.dtype == torch.uint8
    out = module(batch)
    np.testing.assert_allclose(out.detach().numpy()[::-1], before, atol=1e-6)
    out.square().sum().backward()
    assert all(p.grad is not None for p in module.parameters())
    torch.optim.SGD(module.parameters(), lr=0.1).step()
    np.testing.assert_array_equal(encoder.encode(tiles, mpp=0.5, device="cpu"), before)


def test_what_is_frozen_of_a_module_stays_frozen():
    encoder: Any = pooled()
    encoder.network[0].bias.requires_grad_(False)
    assert [p.requires_grad for p in encoder.module().parameters()] == [True, False]
    encoder.network.requires_grad_(False)
    assert all(p.requires_grad for p in encoder.module().parameters())


def test_identity_knows_weights_and_normalisation():
    torch.manual_seed(0)
    one = pooled()
    torch.manual_seed(0)
    same, other = pooled(), pooled()
    torch.manual_seed(0)
    scaled = pooled(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    assert one.identity == same.identity
    assert not one.identity.by_name
    assert len({e.identity.digest for e in (one, other, scaled)}) == 3
    # nothing of a module can be stored but its weights
    assert one.artifact() is None


def test_several_devices_share_the_batches_and_keep_the_order(tiles, monkeypatch):
    encoder = pooled()
    alone = encoder.encode(tiles, mpp=0.5, device="cpu")
    computed = []

    def two(name):
        computed.append(name)
        return [torch.device("cpu")] * 2

    monkeypatch.setattr("spatialwhisperer._compute.devices.devices_of", two)
    with settings.override(batch_size=1):
        np.testing.assert_allclose(encoder.encode(tiles, mpp=0.5, device="cpu"), alone, rtol=1e-6)
    assert computed == ["cpu"]
