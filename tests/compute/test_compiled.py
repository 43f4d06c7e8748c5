from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

import spatialwhisperer as sw
from spatialwhisperer._compute.compiled import compiled_where_asked
from spatialwhisperer._settings import Settings
from spatialwhisperer.encoders.image.networks.module import ModuleEncoder
from spatialwhisperer.encoders.image.timm import TimmEncoder

if TYPE_CHECKING:
    from collections.abc import Iterator


class Sums(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum(dim=(2, 3))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Sizes of the batches that compiled networks get, without the minute that a compiler takes."""
    sizes: list[int] = []

    def compiled(network: torch.nn.Module) -> object:
        def compute(batch: torch.Tensor) -> torch.Tensor:
            sizes.append(len(batch))
            return network(batch)

        return compute

    monkeypatch.setattr(torch, "compile", compiled)
    with sw.settings.override(compile=True):
        yield sizes


def test_nothing_is_compiled_unless_the_settings_ask_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Sums()
    assert not sw.settings.compile
    assert compiled_where_asked(network, 4, "sums") is network
    monkeypatch.setenv("SPATIALWHISPERER_COMPILE", "1")
    assert Settings().compile


def test_a_compiled_network_gets_batches_of_one_size(seen: list[int]) -> None:
    tiles = np.random.default_rng(0).integers(0, 256, (10, 3, 8, 8), dtype=np.uint8)
    with sw.settings.override(batch_size=4):
        features = ModuleEncoder(Sums(), sw.models.EncoderSpec("sums", "image", 3)).encode(tiles, mpp=0.5, device="cpu")
    np.testing.assert_allclose(features, tiles.sum(axis=(2, 3)) / 255, rtol=1e-5)
    assert seen == [4, 4, 4]


def test_a_network_that_cannot_be_compiled_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled(_: torch.nn.Module) -> object:
        def fails(_: torch.Tensor) -> torch.Tensor:
            raise torch._dynamo.exc.TorchDynamoException("no compiler\nmore")

        return fails

    monkeypatch.setattr(torch, "compile", compiled)
    with (
        sw.settings.override(compile=True),
        pytest.raises(RuntimeError, match=r"'sums' cannot be compiled: no compiler sw\.settings\.compile = False"),
    ):
        ModuleEncoder(Sums(), sw.models.EncoderSpec("sums", "image", 3)).encode(
            np.zeros((1, 3, 8, 8), np.uint8), mpp=0.5, device="cpu"
        )


@pytest.mark.slow
def test_compiled_features_have_a_cosine_of_999_thousandths_to_those_that_are_not() -> None:
    tiles = np.random.default_rng(0).integers(0, 256, (7, 3, 8, 8), dtype=np.uint8).repeat(8, 2).repeat(8, 3)
    for seed in range(2):
        torch.manual_seed(seed)
        encoder = TimmEncoder("test_resnet.r160_in1k", pretrained=False)
        with sw.settings.override(batch_size=4):
            plain = encoder.encode(tiles, mpp=0.5, device="cpu")
            with sw.settings.override(compile=True):
                # the second network has the code of the first and weights of its own
                fast = encoder.encode(tiles, mpp=0.5, device="cpu")
                graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
                np.testing.assert_array_equal(encoder.encode(tiles, mpp=0.5, device="cpu"), fast)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs >= 1
        cosine = (fast * plain).sum(axis=1) / np.linalg.norm(fast, axis=1) / np.linalg.norm(plain, axis=1)
        assert cosine.min() > 0.999
        assert not encoder.network.training
