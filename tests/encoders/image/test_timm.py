from __future__ import annotations

import numpy as np
import pytest

from spatialwhisperer.encoders.image.timm import ImageEncoder, ModuleEncoder, TimmEncoder, _build, image_encoder
from spatialwhisperer.encoders.registry import get_spec
from spatialwhisperer.models import EncoderSpec
from spatialwhisperer.settings import settings

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
    save_file(tiny.module.state_dict(), file)
    return file


def test_a_name_a_module_and_an_encoder_are_all_taken(tiny, tiles):
    import torch

    assert image_encoder("stain_texture").encode(tiles, mpp=1.0).shape == (5, get_spec("stain_texture").dim)
    assert image_encoder(tiny) is tiny
    assert isinstance(tiny, ImageEncoder)
    net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    assert image_encoder(net).encode(tiles, mpp=1.0).shape == (5, 3)
    with pytest.raises(TypeError, match="name, a torch module"):
        image_encoder(3)
    with pytest.raises(ValueError, match="Did you mean"):
        image_encoder("resnet5")


def test_timm_features_are_those_of_timm_by_hand(tiny):
    import torch

    px = tiny.spec.input_px
    tiles = np.random.default_rng(1).integers(0, 256, (2, 3, px, px), dtype=np.uint8)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (tiny.spec.mean, tiny.spec.std))
    with torch.no_grad():
        expected = tiny.module((torch.from_numpy(tiles) / 255 - mean) / std).numpy()
    features = tiny.encode(tiles, mpp=0.5, device="cpu")
    assert features.dtype == np.float32
    assert features.shape[1] == tiny.spec.dim
    np.testing.assert_allclose(features, expected, atol=1e-5)


def test_rows_do_not_depend_on_the_batch(tiny, tiles):
    with settings.override(batch_size=2):
        small = tiny.encode(tiles, mpp=0.5, device="cpu")
    np.testing.assert_allclose(small, tiny.encode(tiles, mpp=0.5, device="cpu"), atol=1e-5)
    assert tiny.encode(tiles[:0], mpp=0.5, device="cpu").shape == (0, tiny.spec.dim)


def test_modules_with_batch_statistics_run_in_evaluation_mode_and_get_it_back(tiles):
    import torch

    net = torch.nn.Sequential(
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
    import torch

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
    import torch

    with pytest.raises(ValueError, match="one row of features per tile"):
        image_encoder(torch.nn.Identity()).encode(tiles, mpp=0.5, device="cpu")
    with pytest.raises(TypeError, match="uint8"):
        image_encoder(torch.nn.Identity()).encode(tiles / 255, mpp=0.5)


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
    save_file({**tiny.module.state_dict(), **head}, tmp_path / "a.safetensors")
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


def test_offline_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with settings.override(offline=True), pytest.raises(FileNotFoundError, match=r"offline.*weights=.*stain_texture"):
        image_encoder(TINY)


def test_offline_takes_what_was_downloaded_before(tiny, weights, tiles, tmp_path, monkeypatch):
    import timm

    repository = tmp_path / "hub" / ("models--" + timm.get_pretrained_cfg(TINY).hf_hub_id.replace("/", "--"))
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots" / "abc").mkdir(parents=True)
    weights.rename(repository / "snapshots" / "abc" / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    with settings.override(offline=True):
        features = image_encoder(TINY).encode(tiles, mpp=0.5, device="cpu")
    np.testing.assert_array_equal(features, tiny.encode(tiles, mpp=0.5, device="cpu"))


def test_a_gated_model_names_the_repository_and_the_local_way(monkeypatch):
    import timm

    def refuse(*_args, **_options):
        raise OSError("403 Client Error")

    monkeypatch.setattr(timm, "create_model", refuse)
    with settings.override(offline=False), pytest.raises(FileNotFoundError) as caught:
        image_encoder("uni2-h")
    for part in ("huggingface.co/MahmoodLab/UNI2-h", "CC-BY-NC-ND-4.0", "weights=", "403"):
        assert part in str(caught.value)


@pytest.mark.parametrize(("name", "millions", "prefix"), [("uni2-h", 681.394, 9), ("h-optimus-0", 1134.775, 5)])
def test_large_models_have_the_published_architecture(name, millions, prefix):
    import torch

    with torch.device("meta"):
        network = _build(get_spec(name), pretrained=False)
    assert network.num_features == get_spec(name).dim
    assert network.num_prefix_tokens == prefix
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=1e-3)


@pytest.mark.gpu
def test_cuda_bfloat16_stays_close_to_float32(tiny, tiles):
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    a, b = tiny.encode(tiles, mpp=0.5, device="cpu"), tiny.encode(tiles, mpp=0.5, device="cuda")
    assert b.dtype == np.float32
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosine.min() > 0.999
