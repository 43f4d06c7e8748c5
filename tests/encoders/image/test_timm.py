from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from spatialwhisperer._settings import settings
from spatialwhisperer.encoders.image import timm as timm_module
from spatialwhisperer.encoders.image.timm import TimmEncoder
from spatialwhisperer.models import EncoderIdentity, image_encoder

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


def test_timm_features_are_those_of_timm_by_hand(tiny):
    import torch

    px = tiny.spec.input_px
    tiles = np.random.default_rng(1).integers(0, 256, (2, 3, px, px), dtype=np.uint8)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (tiny.spec.mean, tiny.spec.std))
    with torch.no_grad():
        expected = tiny.network((torch.from_numpy(tiles) / 255 - mean) / std).numpy()
    features = tiny.encode(tiles, mpp=0.5, device="cpu")
    assert features.dtype == np.float32
    assert features.shape[1] == tiny.spec.dim
    np.testing.assert_allclose(features, expected, atol=1e-5)


def test_facts_that_are_not_stated_are_those_of_the_network(monkeypatch, tiny):
    stated = replace(tiny.spec, input_px=96, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    for spec in (stated, replace(stated, input_px=None, mean=None, std=None)):
        monkeypatch.setattr(timm_module, "_facts", lambda _, spec=spec: spec)
        found, expected = TimmEncoder(TINY, pretrained=False).spec, stated if spec is stated else tiny.spec
        assert (found.input_px, found.mean, found.std) == (expected.input_px, expected.mean, expected.std)
    assert tiny.spec.input_px == 160


def test_rows_do_not_depend_on_the_batch(tiny, tiles):
    with settings.override(batch_size=2):
        small = tiny.encode(tiles, mpp=0.5, device="cpu")
    np.testing.assert_allclose(small, tiny.encode(tiles, mpp=0.5, device="cpu"), atol=1e-5)
    assert tiny.encode(tiles[:0], mpp=0.5, device="cpu").shape == (0, tiny.spec.dim)


def test_offline_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with settings.override(offline=True), pytest.raises(FileNotFoundError, match=r"offline.*weights=.*stain_texture"):
        image_encoder(TINY)


def test_offline_takes_what_was_downloaded_before(tiny, weights, tiles, tmp_path, monkeypatch):
    import timm

    repository = (
        tmp_path
        / "hub"
        / ("models--" + str(getattr(timm.get_pretrained_cfg(TINY), "hf_hub_id", "")).replace("/", "--"))
    )
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots" / "abc").mkdir(parents=True)
    weights.rename(repository / "snapshots" / "abc" / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    with settings.override(offline=True):
        features = image_encoder(TINY).encode(tiles, mpp=0.5, device="cpu")
    np.testing.assert_array_equal(features, tiny.encode(tiles, mpp=0.5, device="cpu"))


@pytest.mark.gpu
def test_cuda_bfloat16_stays_close_to_float32(tiny, tiles):
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    a, b = tiny.encode(tiles, mpp=0.5, device="cpu"), tiny.encode(tiles, mpp=0.5, device="cuda")
    assert b.dtype == np.float32
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosine.min() > 0.999


def test_identity_is_the_revision_the_file_or_the_weights(tiny, weights):
    import hashlib

    sha = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert TimmEncoder.identify(TINY, weights=weights) == EncoderIdentity(TINY, digest=sha)
    assert image_encoder(TINY, weights=weights).identity == EncoderIdentity(TINY, digest=sha)
    # published weights have a tag, a fresh network must be built to know it
    assert TimmEncoder.identify("resnet50.a1_in1k") == EncoderIdentity("resnet50.a1_in1k", revision="a1_in1k")
    assert TimmEncoder.identify(TINY, pretrained=False) is None
    assert tiny.identity != TimmEncoder(TINY, pretrained=False).identity


@pytest.mark.parametrize(
    ("tag", "repository", "revision"), [("a1", "owner/name", "a1"), ("", "owner/name", "owner/name"), ("", None, "")]
)
def test_a_revision_is_the_tag_else_the_repository(monkeypatch, tag, repository, revision):
    published = SimpleNamespace(tag=tag, hf_hub_id=repository)
    monkeypatch.setattr("timm.get_pretrained_cfg", lambda *_, **__: published)
    assert TimmEncoder.identify("resnet50.a1_in1k") == EncoderIdentity("resnet50.a1_in1k", revision=revision)


def test_a_trained_copy_computes_the_features_of_the_frozen_network(tiny, tiles):
    """At any size of tiles, also where the network takes one size alone."""
    import torch

    module = tiny.module().eval()
    with settings.override(precision="float32"), torch.no_grad():
        np.testing.assert_allclose(module(torch.from_numpy(tiles)), tiny.encode(tiles, mpp=0.5), atol=1e-5)
    assert all(p.requires_grad for p in module.parameters())
    assert not any(p.requires_grad for p in tiny.network.parameters())
    assert tiles.shape[-1] != TimmEncoder("test_vit", pretrained=False).spec.input_px
    assert TimmEncoder("test_vit", pretrained=False).module().eval()(torch.from_numpy(tiles)).shape == (5, 64)


def test_opening_leaves_the_random_state_alone(weights):
    import torch

    before = torch.get_rng_state()
    TimmEncoder(TINY, weights=weights)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_densenet_without_its_last_relu():
    """Features of both signs, whose positive part has the average of the usual ones."""
    import timm
    import torch

    network: Any = TimmEncoder("densenet121.tv_in1k", pretrained=False).network
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        maps = network.features(x)
        assert torch.allclose(network(x), maps.mean(dim=(2, 3)), atol=1e-5)
        assert float(maps.min()) < 0
        usual = timm.create_model("densenet121", pretrained=False, num_classes=0).eval()
        usual.load_state_dict(network.state_dict())
        assert torch.allclose(usual(x), maps.clamp(min=0).mean(dim=(2, 3)), atol=1e-5)
