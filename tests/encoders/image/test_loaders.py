"""Each kind of loader with real classes of its library at tiny size, from a local mirror of the hub."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer.encoders.catalogue import encoder_class, opens_by_name
from spatialwhisperer.encoders.image.lazyslide import LazySlideEncoder
from spatialwhisperer.encoders.image.open_clip import OpenClipEncoder
from spatialwhisperer.encoders.image.timm import TimmEncoder
from spatialwhisperer.encoders.image.transformers import TransformersEncoder
from spatialwhisperer.models import EncoderIdentity, EncoderSpec
from tests.encoders.hub_mirror import fill_cache, use_cache
from tests.encoders.tiny_models import MEAN, PX, STD, keep_repository, open_clip_repository, transformers_repository

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, Path], Path]]:
    """Lays a folder into the cache of the hub; nothing is fetched."""
    use_cache(monkeypatch, tmp_path / "cache")
    with sw.settings.override(offline=True, device="cpu"):
        yield lambda repository, folder: fill_cache(tmp_path / "cache", repository, folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "repository").mkdir()
    return tmp_path / "repository"


@pytest.fixture(scope="module")
def tiles() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (3, 3, PX, PX), dtype=np.uint8)


def normalised(tiles: np.ndarray, mean: Any = MEAN, std: Any = STD) -> Any:
    import torch

    # in double precision, and in another order of operations than the encoder
    x = (tiles / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    return torch.from_numpy(x.astype(np.float32))


def pooled(tokens: Any, pooling: str, n_prefix: int) -> np.ndarray:
    """Written anew in NumPy."""
    tokens = np.asarray(tokens, np.float64)
    parts = {"cls": [tokens[:, 0]], "mean": [tokens[:, n_prefix:].sum(1) / (tokens.shape[1] - n_prefix)]}
    parts["cls+mean"] = [*parts["cls"], *parts["mean"]]
    return np.concatenate(parts[pooling], axis=1)


# --------------------------------------------------------------------------------------------- timm


def timm_repository(folder: Path, **options: Any) -> Any:
    import timm
    from safetensors.torch import save_file

    args = {"img_size": PX, "patch_size": 8, "depth": 2, "embed_dim": 24, "num_heads": 2, "init_values": 0.5, **options}
    network = timm.create_model("vit_tiny_patch16_224", num_classes=4, **args)
    save_file(network.state_dict(), folder / "model.safetensors")
    stated = {
        "architecture": "vit_tiny_patch16_224",
        "num_classes": 4,
        "model_args": args,
        "pretrained_cfg": {"input_size": [3, PX, PX], "mean": MEAN, "std": STD},
    }
    (folder / "config.json").write_text(json.dumps(stated))
    return network.eval()


@pytest.mark.usefixtures("own_registry")
@pytest.mark.parametrize("n_registers", [0, 4])
@pytest.mark.parametrize("pooling", ["cls", "mean", "cls+mean"])
def test_timm_pools_tokens_and_skips_registers(
    mirror: Any, folder: Path, tiles: np.ndarray, pooling: str, n_registers: int
) -> None:
    import torch

    network = timm_repository(folder, reg_tokens=n_registers)
    mirror("owner/tiny", folder)
    spec = EncoderSpec("tiny", "image", None, url="https://huggingface.co/owner/tiny", loader="timm", pooling=pooling)
    sw.models.register_encoder(spec)(TimmEncoder)
    encoder: Any = sw.models.open_encoder("tiny", "image")
    with torch.inference_mode():
        tokens = network.forward_features(normalised(tiles))
    assert tokens.shape[1] == 1 + n_registers + 16
    expected = pooled(tokens, pooling, 1 + n_registers)
    features = encoder.encode(tiles, mpp=0.5)
    np.testing.assert_allclose(features, expected, atol=1e-5)
    assert (encoder.spec.dim, encoder.spec.input_px) == (expected.shape[1], PX)
    assert (encoder.spec.mean, encoder.spec.std) == (MEAN, STD)
    module = encoder.module().eval()
    np.testing.assert_allclose(module(torch.from_numpy(tiles)).detach().numpy(), features, atol=1e-5)
    assert all(p.requires_grad for p in module.parameters())


def test_any_timm_repository_opens_by_its_address(mirror: Any, folder: Path, tiles: np.ndarray) -> None:
    import torch

    network = timm_repository(folder)
    mirror("owner/tiny", folder)
    encoder: Any = sw.models.open_encoder("hf-hub:owner/tiny", "image")
    network.reset_classifier(0)
    with torch.inference_mode():
        np.testing.assert_allclose(encoder.encode(tiles, mpp=0.5), network(normalised(tiles)).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "no_such"}, "states the architecture 'no_such', which timm does not have"),
        ({"model_args": {"nonsense": 1}}, "timm cannot build vit_tiny_patch16_224 as the repository states it"),
        ({"model_args": {}}, "does not fit the network"),
    ],
)
def test_a_timm_configuration_that_does_not_fit_is_refused(
    mirror: Any, folder: Path, changes: dict[str, Any], message: str
) -> None:
    timm_repository(folder)
    stated = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(stated | changes))
    mirror("owner/tiny", folder)
    with pytest.raises(ValueError, match=message):
        sw.models.open_encoder("hf-hub:owner/tiny", "image")


# --------------------------------------------------------------------------------------------- transformers


@pytest.mark.usefixtures("own_registry")
@pytest.mark.parametrize(("kind", "n_prefix"), [("vit", 1), ("dinov2", 1), ("registers", 5)])
@pytest.mark.parametrize("pooling", ["cls", "cls+mean"])
def test_transformers_pool_tokens_and_skip_registers(
    mirror: Any, folder: Path, tiles: np.ndarray, kind: str, n_prefix: int, pooling: str
) -> None:
    import torch

    network = transformers_repository(folder, kind)
    mirror("owner/tiny", folder)
    spec = EncoderSpec("tiny", "image", None, url="https://huggingface.co/owner/tiny", pooling=pooling)
    sw.models.register_encoder(spec)(TransformersEncoder)
    encoder: Any = sw.models.open_encoder("tiny", "image")
    with torch.inference_mode():
        tokens = network(pixel_values=normalised(tiles)).last_hidden_state
    expected = pooled(tokens, pooling, n_prefix)
    np.testing.assert_allclose(encoder.encode(tiles, mpp=0.5), expected, atol=1e-5)
    assert (encoder.spec.dim, encoder.spec.input_px, encoder.spec.mean) == (expected.shape[1], PX, MEAN)


def test_any_transformers_id_states_how_it_is_pooled(mirror: Any, folder: Path, tiles: np.ndarray) -> None:
    import torch

    networks = {kind: transformers_repository(folder / kind, kind) for kind in _made(folder)}
    for kind in networks:
        mirror(f"owner/{kind}", folder / kind)
    opened: dict[str, Any] = {k: sw.models.open_encoder(f"transformers:owner/{k}", "image") for k in networks}
    assert {k: e.spec.pooling for k, e in opened.items()} == {"vit": "cls", "resnet": "pooler", "clip": "projection"}
    x = normalised(tiles)
    with torch.inference_mode():
        clip = networks["clip"]
        rows = (
            clip.vision_model(pixel_values=x).pooler_output.numpy() @ clip.visual_projection.weight.detach().numpy().T
        )
        expected = {"clip": rows, "resnet": networks["resnet"](pixel_values=x).last_hidden_state.mean((2, 3)).numpy()}
    for kind, values in expected.items():
        np.testing.assert_allclose(opened[kind].encode(tiles, mpp=0.5), values, atol=1e-5)
    assert opened["clip"].spec.dim == 20
    # an encoder of images does not carry the text tower along
    assert not any("text" in name for name, _ in opened["clip"].network.named_parameters())
    assert opened["vit"].identity == EncoderIdentity("transformers:owner/vit")


def _made(folder: Path) -> list[str]:
    kinds = ["vit", "resnet", "clip"]
    for kind in kinds:
        (folder / kind).mkdir()
    return kinds


def test_transformers_weights_that_do_not_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    transformers_repository(folder, "vit")
    whole = load_file(folder / "model.safetensors")
    name = next(n for n in whole if "layer" in n and n.endswith("weight"))
    encoder: Any = sw.models.open_encoder("phikon", "image", weights=folder)
    assert (encoder.spec.name, encoder.spec.dim) == ("phikon", 24)
    assert encoder.identity.digest is not None
    save_file({k: v for k, v in whole.items() if k != name}, folder / "model.safetensors", metadata={"format": "pt"})
    # versions of transformers name the layers differently
    with pytest.raises(ValueError, match=r"do not fit the network. Missing: .*\.0\..*weight"):
        sw.models.open_encoder("phikon", "image", weights=folder)
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a model that transformers can read"):
        sw.models.open_encoder("phikon", "image", weights=folder)
    with pytest.raises(FileNotFoundError, match="must be a folder"):
        sw.models.open_encoder("phikon", "image", weights=tmp_path / "none")


def test_code_of_a_repository_is_not_run(mirror: Any, folder: Path) -> None:
    transformers_repository(folder, "vit")
    stated = json.loads((folder / "config.json").read_text())
    foreign = {"model_type": "mine", "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}}
    (folder / "config.json").write_text(json.dumps(stated | foreign))
    (folder / "code.py").write_text("raise SystemExit('this must not run')")
    mirror("owner/tiny", folder)
    with pytest.raises(ValueError, match="not a model that transformers can read"):
        sw.models.open_encoder("transformers:owner/tiny", "image")


# --------------------------------------------------------------------------------------------- open_clip


def test_open_clip_gives_its_projection(mirror: Any, folder: Path, tiles: np.ndarray) -> None:
    import torch

    network = open_clip_repository(folder)
    mirror("owner/tiny", folder)
    encoder: Any = sw.models.open_encoder("open_clip:owner/tiny", "image")
    assert isinstance(encoder, OpenClipEncoder)
    with torch.inference_mode():
        expected = network.encode_image(normalised(tiles), normalize=False).numpy()
    np.testing.assert_allclose(encoder.encode(tiles, mpp=0.5), expected, atol=1e-5)
    assert (encoder.spec.dim, encoder.spec.input_px, encoder.spec.mean) == (20, PX, MEAN)
    assert not any(
        "transformer.resblocks" in n and not n.startswith("visual") for n, _ in encoder.network.named_parameters()
    )


def test_coca_gives_the_same_row_as_the_library(mirror: Any, folder: Path, tiles: np.ndarray) -> None:
    import torch

    decoder = {"layers": 1, "width": 32, "heads": 2, "context_length": 16, "vocab_size": 49408, "attn_pooler_heads": 2}
    network = open_clip_repository(
        folder,
        vision_cfg={
            "layers": 2,
            "width": 64,
            "head_width": 32,
            "image_size": PX,
            "patch_size": 8,
            "attentional_pool": True,
            "attn_pooler_heads": 2,
            "output_tokens": True,
        },
        text_cfg={
            "layers": 2,
            "width": 32,
            "heads": 2,
            "context_length": 16,
            "vocab_size": 49408,
            "embed_cls": True,
            "output_tokens": True,
        },
        multimodal_cfg=decoder,
        custom_text=True,
    )
    mirror("owner/tiny", folder)
    with torch.inference_mode():
        expected = network.encode_image(normalised(tiles), normalize=False).numpy()
    features = sw.models.open_encoder("open_clip:owner/tiny", "image").encode(tiles, mpp=0.5)
    np.testing.assert_allclose(features, expected, atol=1e-5)


def test_a_folder_without_a_configuration_of_open_clip_is_refused(folder: Path) -> None:
    pytest.importorskip("open_clip")
    with pytest.raises(ValueError, match="holds no open_clip_config.json"):
        sw.models.open_encoder("quiltnet-b32", "image", weights=folder)


# --------------------------------------------------------------------------------------------- custom


def test_keep_projects_the_class_token_to_unit_length(folder: Path) -> None:
    import torch

    network = keep_repository(folder)
    encoder: Any = sw.models.open_encoder("keep", "image", weights=folder)
    tiles = np.random.default_rng(1).integers(0, 256, (2, 3, PX, PX), dtype=np.uint8)
    spec = encoder.spec
    with torch.inference_mode():
        token = network.visual.forward_features(normalised(tiles, spec.mean, spec.std))[:, 0]
        row = network.visual_head(token).double().numpy()
    np.testing.assert_allclose(
        encoder.encode(tiles, mpp=0.5, device="cpu"), row / np.linalg.norm(row, axis=1, keepdims=True), atol=1e-5
    )
    assert (encoder.spec.dim, encoder.spec.input_px) == (16, PX)


def test_what_only_another_package_opens_says_so() -> None:
    with pytest.raises(ValueError, match="with its published weights only"):
        sw.models.open_encoder("ctranspath", "image", pretrained=False)
    for name in ("conch", "hibou-b", "musk", "alhena"):
        assert encoder_class(name, "image") is LazySlideEncoder
        # its code may be that of a repository, which no stored model may start
        assert not opens_by_name(name, "image")
    assert opens_by_name("virchow2", "image")
    assert LazySlideEncoder.known("virchow2") is None


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "lazyslide_models", None)
    use_cache(monkeypatch, tmp_path)
    with pytest.raises(ImportError, match=r"spatialwhisperer\[wsi\]"):
        sw.models.open_encoder("lazyslide:virchow2", "image")


def test_a_model_that_only_lazyslide_knows_is_not_opened_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    from types import ModuleType

    opened: list[Any] = []

    class Model:
        encode_dim = 4

        def __init__(self, model_path: str | None = None) -> None:
            opened.append(model_path)

        def get_transform(self) -> Any:
            return None

        def encode_image(self, x: Any) -> Any:
            return x

    package: Any = ModuleType("lazyslide_models")
    package.MODEL_REGISTRY = {"tiny": Model}
    monkeypatch.setitem(sys.modules, "lazyslide_models", package)
    with sw.settings.override(offline=True):
        with pytest.raises(
            FileNotFoundError, match=r"'lazyslide:tiny'.*offline.*weights=.*sw\.settings\.offline = False"
        ):
            sw.models.open_encoder("lazyslide:tiny", "image")
        assert not opened
        sw.models.open_encoder("lazyslide:tiny", "image", weights="weights.pt")
    with sw.settings.override(offline=False):
        sw.models.open_encoder("lazyslide:tiny", "image")
    assert opened == ["weights.pt", None]


def test_a_model_of_lazyslide_is_asked_through_its_own_transform(
    monkeypatch: pytest.MonkeyPatch, tiles: np.ndarray
) -> None:
    import timm
    import torch

    lazyslide = pytest.importorskip("lazyslide_models")

    class Tiny(lazyslide.TimmModel):  # type: ignore[name-defined]
        encode_dim = 64

        def __init__(self) -> None:
            super().__init__("test_vit", pretrained=False)

    monkeypatch.setitem(lazyslide.MODEL_REGISTRY._data, "tiny", Tiny)
    torch.manual_seed(0)
    encoder: Any = sw.models.open_encoder("lazyslide:tiny", "image")
    with sw.settings.override(batch_size=2, device="cpu"):
        features = encoder.encode(tiles, mpp=0.5)
    transform = encoder.model.get_transform()
    with torch.inference_mode():
        expected = encoder.model.model(torch.stack([transform(tile.transpose(1, 2, 0)) for tile in tiles])).numpy()
    np.testing.assert_allclose(features, expected, atol=1e-5)
    assert (encoder.spec.dim, encoder.encode(tiles[:0], mpp=0.5).shape) == (64, (0, 64))
    assert timm.is_model("test_vit")
    with pytest.raises(ValueError, match=r"opens no image encoder 'alhena'.*\.obsm"):
        sw.models.open_encoder("lazyslide:alhena", "image")


def test_an_id_without_a_library_lists_the_ways() -> None:
    with pytest.raises(
        ValueError, match="'hf-hub:owner/model' .timm., 'transformers:owner/model' or 'open_clip:owner/model'"
    ):
        sw.models.open_encoder("owner/model", "image")
