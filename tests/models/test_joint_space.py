"""Heads, contexts and trained encoders on arrays and tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from spatialwhisperer._settings import settings
from spatialwhisperer.encoders.image.networks.module import ModuleEncoder
from spatialwhisperer.encoders.recipe import EncoderIdentity, FeatureRecipe
from spatialwhisperer.encoders.spec import EncoderSpec
from spatialwhisperer.models.configuration.model import ContextConfig, HeadConfig, ModalityConfig, ModelConfig
from spatialwhisperer.models.joint_space import JointSpace
from spatialwhisperer.networks.heads import make_head
from spatialwhisperer.statistics.standardize import CLIP

RECIPE = FeatureRecipe(EncoderIdentity("some"))
N = 50


def modality(dim: int, *, head: str = "linear_norm", seen: int = 1, **values: Any) -> ModalityConfig:
    return ModalityConfig(RECIPE, dim, HeadConfig(head, seen * dim), **values)


def space(seed: int = 0, **values: Any) -> JointSpace:
    torch.manual_seed(seed)
    modalities = {"gene": modality(5), "image": modality(4, standardize="section")}
    encoders = values.pop("encoders", None)
    return JointSpace(ModelConfig(3, modalities | values.pop("modalities", {}), **values), encoders=encoders)


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)


# ------------------------------------------------------------------------------------------------- features


def test_rows_come_out_at_unit_length_or_as_the_head_gives_them(x: np.ndarray) -> None:
    model = space()
    z = model.project("image", x)
    assert z.dtype == np.float32
    assert z.shape == (N, 3)
    assert np.allclose(np.linalg.norm(z, axis=1), 1, atol=1e-6)
    free = model.project("image", x, unit=False)
    assert np.allclose(free / np.linalg.norm(free, axis=1, keepdims=True), z, atol=1e-6)
    with torch.inference_mode():
        by_hand = model.heads["image"](torch.from_numpy((x - x.mean(0)) / x.std(0))).numpy()
    assert np.allclose(free, by_hand, atol=1e-5)


def test_rows_with_nan_stay_nan_and_change_nothing_else(x: np.ndarray) -> None:
    model = space()
    holes = x.copy()
    holes[[3, 7], [0, 2]] = np.nan
    z = model.project("image", holes)
    assert np.flatnonzero(np.isnan(z).all(axis=1)).tolist() == [3, 7]
    complete = np.setdiff1d(np.arange(N), [3, 7])
    assert np.allclose(z[complete], model.project("image", x[complete]), atol=1e-5)


def test_the_size_of_a_pass_and_the_training_mode_do_not_matter(x: np.ndarray) -> None:
    model = space(modalities={"image": modality(4, head="bn_shortcut")})
    whole = model.project("image", x)
    assert np.allclose(model.project("image", x, batch_size=7), whole, atol=1e-6)
    assert np.allclose(model.train().project("image", x), whole, atol=1e-6)


def test_standardising_is_by_section_by_training_or_none(x: np.ndarray) -> None:
    sections = np.repeat(["a", "b"], N // 2)
    moved = x + 5 * (sections == "b")[:, None].astype(np.float32)
    by_section = space()
    assert np.allclose(
        by_section.project("image", moved, sections=sections),
        by_section.project("image", x, sections=sections),
        atol=1e-4,
    )
    assert not np.allclose(by_section.project("image", moved), by_section.project("image", x), atol=1e-2)
    by_training = space(modalities={"image": modality(4, standardize="global")})
    by_training.set_statistics("image", np.full(4, 2, np.float32), np.full(4, 0.5, np.float32))
    assert np.allclose(by_training.standardized("image", x), np.clip((x - 2) / 0.5, -CLIP, CLIP), atol=1e-5)
    assert np.array_equal(space(modalities={"image": modality(4)}).standardized("image", x), x)


def test_features_of_another_width_are_refused(x: np.ndarray) -> None:
    for wrong in (x[:, :3], x[0]):
        with pytest.raises(
            ValueError, match=r"image encoder of this model \('some'\) gives features of shape \(n, 4\); found"
        ):
            space().project("image", wrong)


def test_a_modality_that_is_not_there_names_the_others(x: np.ndarray) -> None:
    with pytest.raises(KeyError, match="no modality 'text' .it has: gene, image"):
        space().project("text", x)


def test_a_failed_pass_leaves_the_model_where_it_was(x: np.ndarray) -> None:
    model = space()
    with pytest.raises(ValueError, match="features of shape"):
        model.project("image", x[:, :2], device="cpu")
    assert next(model.parameters()).device.type == "cpu"


# ------------------------------------------------------------------------------------------------- context


def with_context(kind: str, seen: int = 1, **options: Any) -> JointSpace:
    context = ContextConfig(kind, options)
    return space(modalities={"image": modality(4, seen=seen, context=context)})


@pytest.mark.parametrize(("kind", "seen"), [("section_mean", 2), ("section_knn", 1)])
def test_a_context_reads_neighbours_of_the_section_wherever_they_stand(x: np.ndarray, kind: str, seen: int) -> None:
    model = with_context(kind, seen, n_neighbours=3)
    for weight in model.contexts.parameters():
        # an untrained context gives a row back as it is
        torch.nn.init.normal_(weight, std=0.3, generator=torch.Generator().manual_seed(0))
    where: dict[str, Any] = {
        "sections": np.repeat(["a", "b"], N // 2),
        "positions": np.random.default_rng(1).normal(size=(N, 2)),
    }
    z = model.project("image", x, **where)
    order = np.random.default_rng(2).permutation(N)
    shuffled = model.project("image", x[order], **{k: v[order] for k, v in where.items()})
    assert np.allclose(shuffled, z[order], atol=1e-5)
    first = np.arange(N) < N // 2
    alone = model.project("image", x[first], **{k: v[first] for k, v in where.items()})
    assert np.allclose(alone, z[first], atol=1e-5)
    moved = model.project("image", x, sections=where["sections"], positions=where["positions"][order])
    assert not np.allclose(moved, z, atol=1e-3)


def test_the_context_of_means_is_the_mean_of_neighbours(x: np.ndarray) -> None:
    model = with_context("section_mean", 2, n_neighbours=2)
    xy = np.column_stack([np.arange(N), np.zeros(N)])
    seen = model.contextual("image", x, positions=xy)
    assert seen.shape == (N, 8)
    assert np.allclose(seen[:, :4], x)
    assert np.allclose(seen[5, 4:], x[[4, 6]].mean(axis=0), atol=1e-5)


def test_incomplete_rows_are_nobodys_neighbours(x: np.ndarray) -> None:
    model = with_context("section_mean", 2, n_neighbours=2)
    xy = np.column_stack([np.arange(N), np.zeros(N)])
    holes = x.copy()
    holes[6, 1] = np.nan
    seen = model.contextual("image", holes, positions=xy)
    assert np.isnan(seen[6]).all()
    assert np.isfinite(np.delete(seen, 6, axis=0)).all()


def test_a_context_needs_positions(x: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"image part of this model sees neighbours \(section_mean\): pass positions"):
        with_context("section_mean", 2, n_neighbours=2).project("image", x)


# ------------------------------------------------------------------------------------------------- trained encoders


def tile_encoder() -> ModuleEncoder:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    return ModuleEncoder(net, EncoderSpec("some", "image", 4))


def test_an_encoder_that_is_trained_takes_raw_inputs() -> None:
    encoder = tile_encoder()
    model = space(modalities={"image": modality(4, trained=True)}, encoders={"image": encoder})
    tiles = np.random.default_rng(0).integers(0, 256, (5, 3, 9, 9), dtype=np.uint8)
    with torch.inference_mode():
        by_hand = model("image", encoder.collate(tiles)).numpy()
    z = model.project("image", tiles)
    assert np.allclose(z, by_hand, atol=1e-6)
    with settings.override(batch_size=2):
        assert np.allclose(model.project("image", tiles), z, atol=1e-6)
    assert model.project("image", tiles[:0]).shape == (0, 3)
    # what it learns stays its own
    with torch.no_grad():
        next(model.towers["image"].parameters()).add_(1.0)
    assert np.allclose(encoder.encode(tiles, mpp=1.0), tile_features(encoder, tiles), atol=1e-6)
    assert not np.allclose(model.project("image", tiles), z, atol=1e-3)


def tile_features(encoder: ModuleEncoder, tiles: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return encoder.network.eval()(torch.from_numpy(tiles / 255).float()).numpy()


def test_a_trained_encoder_must_be_there() -> None:
    with pytest.raises(
        ValueError, match=r"was trained with it and cannot be opened by its name. Pass it: .*load\(folder, enc"
    ):
        space(modalities={"image": modality(4, trained=True)})


@pytest.mark.parametrize("out", [lambda x: x, lambda x: (x,), lambda x: x.mean(dim=(1, 2, 3))])
def test_an_encoder_must_return_a_matrix(out: Any) -> None:
    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return out(x)

    encoder = ModuleEncoder(Net(), EncoderSpec("some", "image", 4))
    model = space(modalities={"image": modality(4, trained=True)}, encoders={"image": encoder})
    with pytest.raises(ValueError, match="image encoder must return a matrix of shape"):
        model.project("image", np.zeros((2, 3, 9, 9), np.uint8))


# ------------------------------------------------------------------------------------------------- heads, decoder, scale


def test_a_finished_head_takes_the_place_of_another(x: np.ndarray) -> None:
    model = with_context("section_mean", 2, n_neighbours=2)
    head = make_head("linear", 4, 7)
    model.install_head("image", head, HeadConfig("linear", 4), projection_dim=7)
    assert "image" not in model.contexts
    assert model.config.modality("image").context is None
    assert model.config.projection_dim == 7
    assert np.allclose(model.project("image", x, unit=False), head(torch.from_numpy(x)).detach().numpy(), atol=1e-5)
    context = ContextConfig("section_mean", {"n_neighbours": 2})
    model.install_head("image", make_head("linear", 8, 7), HeadConfig("linear", 8), context=context)
    assert model.contexts["image"].n_neighbours == 2
    assert model.config.modality("image").context == context


@pytest.mark.parametrize("norm", ["l2", "none"])
def test_a_decoder_reads_what_the_loss_compares(norm: str, x: np.ndarray) -> None:
    model = space(decoder_dim=6, norm=norm)
    z = model.project("image", x, unit=False)
    z[4] = np.nan
    out = model.decoded(z)
    assert out.shape == (N, 6)
    assert np.flatnonzero(np.isnan(out).any(axis=1)).tolist() == [4]
    unit = torch.nn.functional.normalize(torch.from_numpy(z), dim=1) if norm == "l2" else torch.from_numpy(z)
    with torch.inference_mode():
        by_hand = model.decoder(unit).numpy()  # type: ignore[misc]
    assert np.allclose(out, by_hand, atol=1e-5, equal_nan=True)
    with pytest.raises(ValueError, match="has no decoder"):
        space().decoded(z)


def test_the_scale_is_the_inverse_of_the_temperature() -> None:
    assert space(temperature=0.05).scale == pytest.approx(20, rel=1e-5)
