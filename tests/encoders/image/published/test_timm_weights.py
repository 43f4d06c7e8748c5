"""Weights of timm networks whose classifiers have unusual names, or whose names are those of an earlier version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import spatialwhisperer as sw
from spatialwhisperer.encoders.image._published.timm_weights import Architecture
from spatialwhisperer.encoders.image.timm import TimmEncoder
from tests.encoders.hub_mirror import fill_cache, use_cache

if TYPE_CHECKING:
    from pathlib import Path

    import torch

SMALL: dict[str, Any] = {"img_size": 32, "patch_size": 8, "depth": 1, "embed_dim": 24, "num_heads": 2}
# timm loads it without asking whether anything is missing
LENIENT = "vit_base_patch16_siglip_gap_224"


def network_of(name: str, **options: Any) -> Any:
    import timm

    return timm.create_model(name, **SMALL, **options).eval()


def saved(state: dict[str, torch.Tensor], folder: Path) -> Path:
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in state.items()}, folder / "model.safetensors")
    return folder / "model.safetensors"


def same(a: Any, b: Any) -> bool:
    import torch

    x = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    with torch.inference_mode():
        return torch.equal(a(x), b(x))


def test_weights_that_timm_cached_open_like_those_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    # a classifier with a batch normalisation
    name = "efficientvit_m0"
    whole: Any = timm.create_model(name)
    (tmp_path / "files").mkdir()
    file = saved(whole.state_dict(), tmp_path / "files")
    use_cache(monkeypatch, tmp_path / "cache")
    published: Any = timm.get_pretrained_cfg(name)
    fill_cache(tmp_path / "cache", published.hf_hub_id, tmp_path / "files")
    whole.reset_classifier(0)
    with sw.settings.override(offline=True, device="cpu"):
        for weights in (None, file):
            network: Any = TimmEncoder(name, weights=weights).network
            values = network.state_dict()
            assert values.keys() == whole.state_dict().keys()
            assert all(value.equal(values[key]) for key, value in whole.state_dict().items())


def test_any_classifier_is_passed_over_and_nothing_else(tmp_path: Path) -> None:
    import torch

    name = "deit_tiny_distilled_patch16_224"
    source, network = network_of(name, num_classes=7), network_of(name, num_classes=0)
    state = source.state_dict()
    assert "head_dist.weight" in state
    Architecture(name, SMALL).load(network, saved(state, tmp_path))
    source.reset_classifier(0)
    assert same(source, network)
    with pytest.raises(ValueError, match=r"does not fit the network\. Missing: none\. .*: .*block.extra"):
        Architecture(name, SMALL).load(network, saved({**state, "block.extra": torch.zeros(1)}, tmp_path))


def test_names_of_an_earlier_version_are_those_that_timm_renames(tmp_path: Path) -> None:
    import torch

    source, network = network_of("vit_tiny_patch16_224"), network_of("vit_tiny_patch16_224", num_classes=0)
    state = {**source.state_dict(), "mask_token": torch.zeros(1, 24)}
    Architecture("vit_tiny_patch16_224", SMALL).load(network, saved(state, tmp_path))
    source.reset_classifier(0)
    assert same(source, network)


def test_tensors_are_resized_for_published_weights_alone(tmp_path: Path) -> None:
    import timm

    name, larger = "vit_tiny_patch16_224", {**SMALL, "img_size": 64}
    file = saved(timm.create_model(name, **larger).state_dict(), tmp_path)
    network = network_of(name, num_classes=0)
    with pytest.raises(ValueError, match="Of another shape: pos_embed"):
        Architecture(name, SMALL).load(network, file)
    Architecture(name, SMALL).load(network, file, resized=True)


def test_weights_that_timm_would_fill_up_at_random_are_refused(tmp_path: Path) -> None:
    source, network = network_of(LENIENT, num_classes=0), network_of(LENIENT, num_classes=0)
    state = {f"visual.trunk.{name}": value for name, value in source.state_dict().items()}
    Architecture(LENIENT, SMALL).load(network, saved(state, tmp_path))
    assert same(source, network)
    del state["visual.trunk.blocks.0.mlp.fc1.weight"]
    with pytest.raises(ValueError, match="does not fit the network"):
        Architecture(LENIENT, SMALL).load(network, saved(state, tmp_path))


def test_a_configuration_cannot_point_timm_to_another_file(tmp_path: Path) -> None:
    import torch

    elsewhere = tmp_path / "elsewhere.pth"
    elsewhere.write_bytes(b"not even a pickle")
    source, network = network_of("vit_tiny_patch16_224"), network_of("vit_tiny_patch16_224", num_classes=0)
    state = {**source.state_dict(), "mask_token": torch.zeros(1, 24)}
    config = {"file": str(elsewhere), "source": "local-dir", "num_classes": 1000, "custom_load": True}
    Architecture("vit_tiny_patch16_224", SMALL, config).load(network, saved(state, tmp_path))
    source.reset_classifier(0)
    assert same(source, network)
