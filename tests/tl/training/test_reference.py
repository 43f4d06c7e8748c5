"""What a model remembers of its training data."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import spatialdata as sd

import spatialwhisperer as sw
from spatialwhisperer.tl._training import reference as filling

TILES = sw.tl.ImageFeatures(tile_um=80, tile_px=64)


def train(data: Any, preset: str = "spatialwhisperer", **options: Any) -> Any:
    changes = options.pop("changes", {})
    few = sw.models.get_preset(preset).replace(batch_size=64, **changes)
    return sw.tl.train(data, preset=few, max_epochs=2, **{"image": TILES, **options})


def test_every_part_is_there(model: Any) -> None:
    reference = model.reference
    shapes = {name: value.shape for name, value in reference.arrays.items()}
    u, d = model.config.projection_dim, model.config.modality("image").feature_dim
    assert shapes["pair_image"] == shapes["pair_bridge"] == (240, u)
    assert shapes["text_bridge"] == (250, u)
    assert shapes["caption"] == (5, u)
    assert shapes["feature_mean"] == shapes["feature_std"] == (2, d)
    assert shapes["feature_sample"] == (240, d)
    assert shapes["mean_image"] == shapes["mean_gene"] == shapes["mean_text"] == (u,)
    assert shapes["profile"] == (5, len(model.encoders["gene"].genes))
    assert shapes["excess_cross_entropy"] == (250,)
    config = reference.config
    assert config.bridge == "gene"
    assert sorted(config.captions) == sorted(model.labels)
    assert config.n == {"image–gene": 240, "gene–text": 250}
    assert config.mpp == (0.5, 0.5)
    assert (config.encoder, config.tile_um, config.tile_px) == ("stain_texture", (80.0,), 64)
    assert config.section_rows == (120, 120)
    assert "pair_bridge 240x" in repr(reference)


def test_embeddings_are_those_of_the_data(model: Any, simulated: Any) -> None:
    """Pair by pair what `sw.tl.embed` gives, and captions beside the rows that have them."""
    for modality, name in (("image", "pair_image"), ("gene", "pair_bridge")):
        z: list[Any] = [
            sw.tl.embed(simulated.sections[p], model=model, modality=modality, inplace=False) for p in ("P1", "P2")
        ]
        assert np.allclose(model.reference.arrays[name], np.concatenate(z), atol=1e-3)
        if modality == "image":
            assert np.allclose(model.reference.arrays["mean_image"], np.concatenate(z).mean(0), atol=1e-3)
    reference = model.reference
    captions = np.array(reference.captions)[reference.arrays["text_caption"]]
    assert captions.tolist() == simulated.reference.obs["text"].tolist()
    features = sw.pp.embed_texts(reference.captions)
    assert np.allclose(reference.arrays["caption"], model.project("text", features), atol=1e-3)


def test_statistics_are_those_of_the_raw_features(model: Any, simulated: Any) -> None:
    for row, patient in enumerate(("P1", "P2")):
        x = simulated.sections[patient]["table"].obsm["X_stain_texture"]
        assert np.allclose(model.reference.arrays["feature_mean"][row], x.mean(0), atol=1e-4)
        assert np.allclose(model.reference.arrays["feature_std"][row], x.std(0), atol=1e-4)


def test_the_scale_of_given_features_is_that_of_their_slide(simulated: Any) -> None:
    table = simulated.sections["P1"]["table"].copy()
    table.obsm["X_mine"] = np.random.default_rng(0).normal(size=(table.n_obs, 6)).astype(np.float32)
    section = sd.SpatialData(
        images=dict(simulated.sections["P1"].images),
        shapes=dict(simulated.sections["P1"].shapes),
        tables={"table": table},
    )
    assert train(section, image=sw.tl.ImageFeatures(key="X_mine")).reference.config.mpp == (0.5, 0.5)


def test_what_the_data_lack_is_left_out(simulated: Any) -> None:
    cells = train(simulated.reference).reference
    assert cells.has("text_bridge", "caption", "mean_text")
    assert not cells.has("pair_image")
    assert not cells.has("feature_mean")
    assert cells.config.mpp is None
    slides = train(list(simulated.sections.values())[:2]).reference
    assert slides.has("pair_image", "feature_sample")
    assert not slides.has("caption")
    with pytest.raises(KeyError, match="no 'caption'"):
        slides.unit("caption")


def test_held_out_groups_are_not_remembered(simulated: Any) -> None:
    objects = [simulated.sections["P1"], simulated.sections["P2"], simulated.reference]
    reference = train(objects, validation=["P2", "R2"]).reference
    assert len(reference.arrays["pair_bridge"]) == 120
    assert reference.config.sections == ("0:P1_spots",)
    assert len(reference.arrays["text_bridge"]) == (simulated.reference.obs["patient"] == "R1").sum()


def test_its_size_is_bounded(simulated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "PAIRS", 50)
    monkeypatch.setattr(filling, "TEXT_ROWS", 60)
    monkeypatch.setattr(filling, "SAMPLE", 40)
    monkeypatch.setattr(filling, "CAPTION_CHARACTERS", 60)
    objects = [simulated.sections["P1"], simulated.reference]
    first, again, other = (train(objects, random_state=s).reference for s in (0, 0, 1))
    assert len(first.arrays["pair_image"]) == 50
    assert len(first.arrays["feature_sample"]) == 40
    assert len(first.captions) < 5
    assert sum(map(len, first.captions)) <= 60
    assert np.array_equal(first.arrays["pair_group"], again.arrays["pair_group"])
    assert np.array_equal(first.arrays["pair_bridge"], again.arrays["pair_bridge"])
    assert not np.array_equal(first.arrays["feature_sample"], other.arrays["feature_sample"])


def test_bytes_of_a_full_reference_do_not_grow_with_the_width() -> None:
    """What fits into the blocks of any width is about a megabyte."""
    for width in (10, 64, 131, 512):
        filled = SimpleNamespace(model=SimpleNamespace(config=SimpleNamespace(projection_dim=width)))
        most = [filling._Filling._rows(filled, n) for n in (filling.PAIRS, filling.TEXT_ROWS)]  # type: ignore[arg-type]
        assert 2 * sum(most) * width * 2 <= 4 * filling.BLOCK_BYTES


def test_towers_have_embeddings_but_no_features(simulated: Any) -> None:
    objects = [simulated.sections["P1"], simulated.reference]
    image = sw.tl.ImageFeatures("test_resnet.r160_in1k", tile_um=80, tile_px=32, pretrained=False)
    reference = train(objects, image=image, changes={"locking": "LLu"}).reference
    assert reference.has("pair_image", "mean_image")
    assert not reference.has("feature_mean")
    assert reference.config.mpp == (0.5, 0.5)


def test_a_context_sees_its_neighbours(simulated: Any) -> None:
    sections = list(simulated.sections.values())[:2]
    expression = sw.tl.ExpressionOptions(cross_validate=False)
    model = train(sections, "mclstexp", expression=expression, image=sw.tl.ImageFeatures(key="X_stain_texture"))
    assert model.contexts
    z: Any = sw.tl.embed(sections[0], model=model, modality="gene", inplace=False)
    assert np.allclose(model.reference.unit("pair_bridge")[:120], z, atol=2e-3)
