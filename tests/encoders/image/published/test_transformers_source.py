"""Networks of transformers are pooled as they are built, and tiles normalised as transformers normalises them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer.encoders.image.transformers import TransformersEncoder
from tests.encoders.tiny_models import PX, VIT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

transformers = pytest.importorskip("transformers")

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
WINDOWS = {"image_size": PX, "patch_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
STAGES = {"depths": [1] * 4, "hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 2, 3, 4]}
POOLED = {"depths": [1] * 4, "hidden_sizes": [8, 16, 24, 32]}


@pytest.fixture(autouse=True)
def _exact() -> Iterator[None]:
    with sw.settings.override(device="cpu", precision="float32"):
        yield


@pytest.fixture(scope="module")
def tiles() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (3, 3, PX, PX), dtype=np.uint8)


def made(folder: Path, kind: str, options: dict[str, Any], head: str = "Model") -> Any:
    import torch

    torch.manual_seed(0)
    network = getattr(transformers, kind + head)(getattr(transformers, f"{kind}Config")(**options))
    network.save_pretrained(folder)
    processor = {"image_mean": MEAN, "image_std": STD, "size": {"height": PX, "width": PX}}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return network.eval()


def opened(folder: Path) -> Any:
    return TransformersEncoder("transformers:owner/tiny", weights=folder)


def normalised(tiles: np.ndarray) -> Any:
    import torch

    x = (tiles / 255 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    return torch.from_numpy(x.astype(np.float32))


def by_hand(network: Any, x: Any, pooling: str) -> np.ndarray:
    import torch

    with torch.inference_mode():
        out = network(pixel_values=x)
    if pooling == "pooler":
        return out.pooler_output.numpy().reshape(len(x), -1)
    tokens = out.last_hidden_state.numpy()
    if pooling == "cls":
        return tokens[:, 0]
    return tokens.mean(axis=1) if tokens.ndim == 3 else tokens.mean(axis=(2, 3))


@pytest.mark.parametrize(
    ("kind", "options", "pooling"),
    [
        ("Swin", WINDOWS, "pooler"),
        ("Swinv2", WINDOWS, "pooler"),
        ("SiglipVision", VIT, "pooler"),
        ("IJepa", VIT, "mean"),
        ("Segformer", STAGES, "mean"),
        ("PoolFormer", POOLED, "mean"),
        ("DeiT", VIT, "cls"),
        ("CLIPVision", VIT, "cls"),
        # the class token of its last stage
        ("Pvt", {"image_size": PX, **STAGES, "num_attention_heads": [1, 2, 2, 4]}, "cls"),
    ],
)
def test_a_network_without_a_class_token_gives_what_it_pools_or_the_mean(
    tmp_path: Path, tiles: np.ndarray, kind: str, options: dict[str, Any], pooling: str
) -> None:
    network, encoder = made(tmp_path, kind, options), opened(tmp_path)
    expected = by_hand(network, normalised(tiles), pooling)
    assert (encoder.spec.pooling, encoder.spec.dim) == (pooling, expected.shape[1])
    np.testing.assert_allclose(encoder.encode(tiles, mpp=0.5), expected, atol=1e-5)


def test_the_class_token_of_a_pooler_is_not_among_the_tokens(tmp_path: Path) -> None:
    if not hasattr(transformers, "Aimv2VisionModel"):
        pytest.skip("this version of transformers has no AIMv2")
    made(tmp_path, "Aimv2Vision", VIT)
    assert opened(tmp_path).spec.pooling == "pooler"


@pytest.mark.parametrize(
    ("pooling", "message"), [("cls", "has no class token"), ("cls+mean", "take 'pooler' or 'mean'")]
)
def test_a_class_token_that_is_stated_must_be_there(tmp_path: Path, pooling: str, message: str) -> None:
    from spatialwhisperer.encoders.image._published.transformers_source import build

    made(tmp_path, "Swin", WINDOWS)
    spec = sw.models.EncoderSpec("tiny", "image", None, pooling=pooling)
    with pytest.raises(ValueError, match=message):
        build(tmp_path, spec, pretrained=True)


def test_the_mean_of_patches_leaves_out_the_token_of_distillation(tmp_path: Path, tiles: np.ndarray) -> None:
    import torch

    from spatialwhisperer.encoders.image._published.transformers_source import build

    network = made(tmp_path, "DeiT", VIT)
    built = build(tmp_path, sw.models.EncoderSpec("tiny", "image", None, pooling="mean"), pretrained=True)
    x = normalised(tiles)
    with torch.inference_mode():
        expected = network(pixel_values=x).last_hidden_state.numpy()[:, 2:].mean(axis=1)
        np.testing.assert_allclose(built.network.eval()(x).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(("kind", "head"), [("ViT", "ForImageClassification"), ("DeiT", "ForImageClassification")])
def test_a_checkpoint_of_a_classifier_needs_no_pooler(tmp_path: Path, tiles: np.ndarray, kind: str, head: str) -> None:
    import torch

    network = made(tmp_path, kind, VIT, head)
    state = torch.get_rng_state()
    encoder = opened(tmp_path)
    assert torch.equal(state, torch.get_rng_state())
    expected = by_hand(network.base_model, normalised(tiles), "cls")
    np.testing.assert_allclose(encoder.encode(tiles, mpp=0.5), expected, atol=1e-5)


def test_a_masked_autoencoder_sees_all_patches(tmp_path: Path, tiles: np.ndarray) -> None:
    import torch

    network, encoder = made(tmp_path, "ViTMAE", VIT), opened(tmp_path)
    state = torch.get_rng_state()
    features = encoder.encode(tiles, mpp=0.5)
    assert torch.equal(state, torch.get_rng_state())
    np.testing.assert_array_equal(encoder.encode(tiles, mpp=0.5), features)
    network.config.mask_ratio = 0.0
    with torch.inference_mode():
        out = network(pixel_values=normalised(tiles), noise=torch.arange(16.0).expand(3, 16)).last_hidden_state
    assert out.shape[1] == 17
    np.testing.assert_allclose(features, out[:, 0].numpy(), atol=1e-5)


def test_a_network_that_draws_at_random_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spatialwhisperer.encoders.image._published import transformers_source

    made(tmp_path, "ViTMAE", VIT)
    # as of a masked network that is not known here
    monkeypatch.setattr(transformers_source, "show_all_patches", lambda _: None)
    with pytest.raises(ValueError, match="the same tile has other features each time"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("processor", "options"),
    [
        ("ViTImageProcessor", {"do_normalize": False}),
        ("ViTImageProcessor", {"image_mean": MEAN, "image_std": STD}),
        (
            "ViTImageProcessor",
            {"image_mean": [123.0, 117.0, 104.0], "image_std": [58.0, 57.0, 57.0], "do_rescale": False},
        ),
        ("ViTImageProcessor", {"image_mean": [0.0] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 127.5}),
        ("MobileViTImageProcessor", {"crop_size": {"height": PX, "width": PX}}),
        ("EfficientNetImageProcessor", {"image_mean": MEAN, "image_std": STD}),
        ("EfficientNetImageProcessor", {"rescale_offset": True, "rescale_factor": 1 / 127.5, "include_top": False}),
    ],
)
def test_tiles_are_normalised_as_the_processor_of_the_repository_does(
    tmp_path: Path, tiles: np.ndarray, processor: str, options: dict[str, Any]
) -> None:
    network = made(tmp_path, "ViT", VIT)
    of_repository = getattr(transformers, processor)(size={"height": PX, "width": PX}, do_resize=False, **options)
    of_repository.save_pretrained(tmp_path)
    x = of_repository(list(tiles), return_tensors="pt", input_data_format="channels_first").pixel_values
    features = opened(tmp_path).encode(tiles, mpp=0.5)
    np.testing.assert_allclose(features, by_hand(network, x, "cls"), atol=1e-4)
