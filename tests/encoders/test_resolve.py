"""Whatever a caller passes as an encoder becomes an encoder, or an error says what would."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from spatialwhisperer._settings import settings
from spatialwhisperer.encoders.gene.pca import PCAEncoder
from spatialwhisperer.encoders.image.base import GivenEncoder
from spatialwhisperer.encoders.image.networks.module import ModuleEncoder
from spatialwhisperer.encoders.image.timm import TimmEncoder
from spatialwhisperer.encoders.resolve import (
    any_encoder,
    image_encoder,
    load_gene_encoder,
    named_gene_encoder,
    stored_encoder,
    text_encoder,
)
from spatialwhisperer.models import EncoderSpec, ImageEncoder, get_spec, open_encoder

if TYPE_CHECKING:
    from pathlib import Path

TILES = np.random.default_rng(0).integers(0, 256, (5, 3, 48, 48), dtype=np.uint8)


def net() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())


def pca() -> PCAEncoder:
    counts = np.random.default_rng(0).poisson(2, (30, 8))
    return PCAEncoder.fit(counts, [f"G{i}" for i in range(8)], n_latent=2, n_top_genes=None)


class Given:
    """An object that derives from nothing and has what an encoder needs."""

    spec = EncoderSpec("given", "image", 3)

    def encode(self, tiles: np.ndarray, *, mpp: float, device: str | None = None) -> Any:  # noqa: ARG002
        return torch.from_numpy(tiles.mean(axis=(2, 3)) * mpp)


def test_a_name_a_module_an_object_and_an_encoder_are_all_taken() -> None:
    assert image_encoder("stain_texture").encode(TILES, mpp=1.0).shape == (5, get_spec("stain_texture").dim)
    tiny = TimmEncoder("test_vit", pretrained=False)
    assert image_encoder(tiny) is tiny
    assert isinstance(tiny, ImageEncoder)
    of_module = image_encoder(net())
    assert isinstance(of_module, ModuleEncoder)
    assert of_module.spec.name == "sequential"
    assert of_module.encode(TILES, mpp=1.0).shape == (5, 3)
    given = image_encoder(Given())  # type: ignore[arg-type]
    assert isinstance(given, GivenEncoder)
    np.testing.assert_allclose(given.encode(TILES, mpp=2.0), 2 * TILES.mean(axis=(2, 3)))
    assert not given.identity.by_name


@pytest.mark.parametrize("thing", [3, None, Given, object()])
def test_anything_else_is_refused(thing: Any) -> None:
    with pytest.raises(TypeError, match="name, a torch module, or an object with .spec and .encode"):
        image_encoder(thing)


def test_a_network_of_timm_is_normalised_as_it_was_trained() -> None:
    import timm

    network = timm.create_model("test_vit", num_classes=0).eval()
    encoder = image_encoder(network)
    by_name: Any = open_encoder("test_vit", "image", pretrained=False)
    by_name.network.load_state_dict(network.state_dict())
    assert (encoder.spec.mean, encoder.spec.std) == ((0.5,) * 3, (0.5,) * 3)
    assert encoder.spec.input_px == by_name.spec.input_px == 160
    tiles = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64), dtype=np.uint8)
    with settings.override(precision="float32"):
        np.testing.assert_allclose(encoder.encode(tiles, mpp=1.0), by_name.encode(tiles, mpp=1.0), atol=1e-5)
    # built for another size than it was trained at
    assert image_encoder(timm.create_model("test_vit", num_classes=0, img_size=96)).spec.input_px == 96
    assert image_encoder(net()).spec.input_px is None


def test_a_module_that_timm_did_not_make_gets_tiles_as_they_are() -> None:
    module = net()
    module.patch_embed = torch.nn.Identity()
    module.patch_embed.img_size = 224  # type: ignore[assignment]
    assert image_encoder(module).spec.input_px is None
    module.pretrained_cfg = "mine"  # type: ignore[assignment]
    assert image_encoder(module).spec.input_px is None


def test_a_misspelt_name_lists_close_ones() -> None:
    with pytest.raises(ValueError, match="Did you mean"):
        image_encoder("resnet5")


@pytest.mark.parametrize("encoder", [net(), Given()])
def test_weights_are_for_names(encoder: Any) -> None:
    with pytest.raises(ValueError, match="weights and revision are for encoders that are named"):
        image_encoder(encoder, weights="somewhere")


def test_a_gene_encoder_is_a_name_that_needs_no_fit_or_a_folder(tmp_path: Path) -> None:
    pca().save(tmp_path / "genes")
    assert named_gene_encoder(tmp_path / "genes").genes == pca().genes
    assert named_gene_encoder(str(tmp_path / "genes")).identity == load_gene_encoder(tmp_path / "genes").identity
    with pytest.raises(
        ValueError,
        match=r"encoder='pcaa' is neither a name \(drvi, gene_sentence, geneformer, identity, pca, .*\) nor a folder",
    ):
        named_gene_encoder("pcaa")


def test_the_modality_says_what_a_thing_is_taken_for(tmp_path: Path) -> None:
    assert isinstance(any_encoder(net(), "image"), ModuleEncoder)
    encoder = pca()
    assert any_encoder(encoder, "gene") is encoder
    encoder.save(tmp_path / "genes")
    assert any_encoder(tmp_path / "genes", "gene").identity == encoder.identity
    things: list[Any] = [net(), Given(), 3]
    for thing in things:
        with pytest.raises(TypeError, match="The gene encoder must be a GeneEncoder, not"):
            any_encoder(thing, "gene")
    with pytest.raises(TypeError, match="must be 'minilm', a folder, a hub id or a TextEncoder, not Sequential"):
        any_encoder(net(), "text")
    with pytest.raises(TypeError, match="name, a torch module"):
        any_encoder(encoder.genes, "image")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="There is no modality 'sound'"):
        any_encoder(net(), "sound")


def test_a_text_encoder_is_not_anything() -> None:
    with pytest.raises(TypeError, match="not int"):
        text_encoder(3)  # type: ignore[arg-type]


def test_what_is_stored_is_opened_by_the_class_of_its_name() -> None:
    encoder = pca()
    again = stored_encoder(encoder.artifact(), "gene")
    assert isinstance(again, PCAEncoder)
    assert again.identity == encoder.identity
    artifact = encoder.artifact()
    artifact.config["name"] = "os.system"  # type: ignore[index]
    with pytest.raises(ValueError, match="There is no gene encoder 'os.system'"):
        stored_encoder(artifact, "gene")
