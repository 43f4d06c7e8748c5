"""Networks of libraries compute in bfloat16 where the processor has instructions for it, within a stated tolerance."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import spatialwhisperer as sw
from spatialwhisperer._compute import precision
from spatialwhisperer.encoders.image.networks.module import ModuleEncoder
from spatialwhisperer.encoders.image.timm import TimmEncoder


@pytest.fixture(scope="module")
def tiles() -> np.ndarray:
    """Tissue-like tiles: features of noise alone are nearly equal, and would hide an error."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    out = np.stack([127 + 100 * np.sin(x / rng.uniform(3, 20) + y / rng.uniform(3, 20)) for _ in range(24)])
    return np.clip(out.reshape(8, 3, 64, 64) + rng.normal(0, 10, (8, 3, 64, 64)), 0, 255).astype(np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "vit_small_patch16_224", "densenet121"])
def test_bfloat16_has_a_cosine_of_999_thousandths_to_float32(name, tiles, monkeypatch) -> None:
    torch.manual_seed(0)
    encoder = TimmEncoder(name, pretrained=False)
    monkeypatch.setattr(precision, "processor_has_bfloat16", lambda: True)
    exact = encoder.encode(tiles, mpp=0.5, device="cpu")
    with sw.settings.override(precision="auto"):
        fast = encoder.encode(tiles, mpp=0.5, device="cpu")
    assert fast.dtype == np.float32
    assert not np.array_equal(fast, exact)
    cosine = (fast * exact).sum(axis=1) / np.linalg.norm(fast, axis=1) / np.linalg.norm(exact, axis=1)
    assert cosine.min() > 0.999


def test_a_processor_without_the_instructions_falls_back(tiles, monkeypatch) -> None:
    encoder = TimmEncoder("resnet18", pretrained=False)
    exact = encoder.encode(tiles, mpp=0.5, device="cpu")
    monkeypatch.setattr(precision, "processor_has_bfloat16", lambda: False)
    with sw.settings.override(precision="auto"):
        np.testing.assert_array_equal(encoder.encode(tiles, mpp=0.5, device="cpu"), exact)


def test_a_module_of_ones_own_computes_in_float32_on_a_processor(tiles, monkeypatch) -> None:
    class Viewing(torch.nn.Module):
        """Reshapes by view, which refuses channels that lie last."""

        def __init__(self) -> None:
            super().__init__()
            self.convolution = torch.nn.Conv2d(3, 4, 16, stride=16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.convolution(x).view(len(x), -1)

    module = Viewing()
    monkeypatch.setattr(precision, "processor_has_bfloat16", lambda: True)
    encoder = ModuleEncoder(module, sw.models.EncoderSpec("own", "image", 64))
    exact = module(torch.from_numpy(tiles).float() / 255).detach().numpy()
    with sw.settings.override(precision="auto"):
        np.testing.assert_allclose(encoder.encode(tiles, mpp=0.5, device="cpu"), exact, rtol=1e-5, atol=1e-6)


def test_other_words_are_refused(monkeypatch) -> None:
    with pytest.raises(ValueError, match='precision must be "auto" or "float32", not \'half\''):
        sw.settings.precision = "half"  # type: ignore[assignment]
    from spatialwhisperer._settings import Settings

    monkeypatch.setenv("SPATIALWHISPERER_PRECISION", "float16")
    with pytest.raises(ValueError, match="SPATIALWHISPERER_PRECISION must be"):
        Settings()
    monkeypatch.setenv("SPATIALWHISPERER_PRECISION", "float32")
    assert Settings().precision == "float32"
