from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer.models.reference import Reference
from spatialwhisperer.tl._training import reference as filling

if TYPE_CHECKING:
    from pathlib import Path

FEW = {"max_epochs": 2, "batch_size": 64}


def test_every_part_is_there(model: Any) -> None:
    reference = model.reference
    shapes = {name: value.shape for name, value in reference.arrays.items()}
    u, d = model.config["projection_dim"], model.feature_dim("image")
    assert shapes["pair_image"] == shapes["pair_gene"] == (240, u)
    assert shapes["text_gene"] == (250, u)
    assert shapes["caption"] == (5, u)
    assert shapes["feature_mean"] == shapes["feature_std"] == (2, d)
    assert shapes["feature_sample"] == (240, d)
    assert shapes["mean_image"] == shapes["mean_gene"] == shapes["mean_text"] == (u,)
    assert shapes["profile"] == (5, len(model.gene_encoder.genes))
    assert shapes["surprise"] == (250,)
    config = reference.config
    assert sorted(config["captions"]) == sorted(model.labels)
    assert config["n"] == {"image–gene": 240, "gene–text": 250}
    assert config["mpp"] == [0.5, 0.5]
    assert (config["tile_um"], config["tile_px"]) == (80, 64)
    assert config["section_rows"] == [120, 120]
    assert "pair_gene 240x" in repr(reference)


def test_embeddings_are_those_of_the_data(model: Any, simulated: Any) -> None:
    """Pair by pair what `sw.tl.embed` gives, and captions beside the rows that have them."""
    for modality, name in (("image", "pair_image"), ("gene", "pair_gene")):
        z = [sw.tl.embed(simulated.sections[p], model=model, modality=modality, inplace=False) for p in ("P1", "P2")]
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


def test_it_comes_back_bit_for_bit(model: Any, tmp_path: Path) -> None:
    folder = model.reference.write(tmp_path / "reference")
    opened = Reference.read(folder)
    assert opened.config == json.loads(json.dumps(model.reference.config))
    assert opened.arrays.keys() == model.reference.arrays.keys()
    for name, value in model.reference.arrays.items():
        assert opened.arrays[name].dtype == value.dtype
        assert np.array_equal(opened.arrays[name], value)
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_what_the_data_lack_is_left_out(simulated: Any) -> None:
    cells = sw.tl.train(simulated.reference, **FEW).reference
    assert cells.has("text_gene", "caption", "mean_text")
    assert not cells.has("pair_image")
    assert not cells.has("feature_mean")
    assert "mpp" not in cells.config
    slides = sw.tl.train(list(simulated.sections.values())[:2], **FEW).reference
    assert slides.has("pair_image", "feature_sample")
    assert not slides.has("caption")
    with pytest.raises(KeyError, match="no 'caption'"):
        slides.unit("caption")


def test_held_out_groups_are_not_remembered(simulated: Any) -> None:
    objects = [simulated.sections["P1"], simulated.sections["P2"], simulated.reference]
    reference = sw.tl.train(objects, validation=["P2", "R2"], **FEW).reference
    assert len(reference.arrays["pair_gene"]) == 120
    assert reference.config["sections"] == ["0:P1_spots"]
    assert len(reference.arrays["text_gene"]) == (simulated.reference.obs["patient"] == "R1").sum()


def test_its_size_is_bounded(simulated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "PAIRS", 50)
    monkeypatch.setattr(filling, "TEXT_ROWS", 60)
    monkeypatch.setattr(filling, "SAMPLE", 40)
    monkeypatch.setattr(filling, "CAPTION_CHARACTERS", 60)
    objects = [simulated.sections["P1"], simulated.reference]
    first, again, other = (sw.tl.train(objects, **FEW, random_state=s).reference for s in (0, 0, 1))
    assert len(first.arrays["pair_image"]) == 50
    assert len(first.arrays["feature_sample"]) == 40
    assert len(first.captions) < 5
    assert sum(map(len, first.captions)) <= 60
    assert np.array_equal(first.arrays["pair_group"], again.arrays["pair_group"])
    assert np.array_equal(first.arrays["pair_gene"], again.arrays["pair_gene"])
    assert not np.array_equal(first.arrays["feature_sample"], other.arrays["feature_sample"])


def test_bytes_of_a_full_reference() -> None:
    """What fits into the blocks of any width is about a megabyte."""
    for width in (10, 64, 131, 512):
        model = type("Model", (), {"config": {"projection_dim": width}})
        rows = 2 * filling._rows(filling.PAIRS, model) + 2 * filling._rows(filling.TEXT_ROWS, model)
        assert rows * width * 2 <= 4 * filling.BLOCK_BYTES


def test_towers_have_embeddings_but_no_features(simulated: Any) -> None:
    objects = [simulated.sections["P1"], simulated.reference]
    tower = {"image_encoder": "test_resnet.r160_in1k", "pretrained": False, "locking": "LLu"}
    reference = sw.tl.train(objects, **FEW, **tower, tile_um=80, tile_px=32).reference
    assert reference.has("pair_image", "mean_image")
    assert not reference.has("feature_mean")
    assert reference.config["mpp"] == [0.5, 0.5]


def test_a_context_sees_its_neighbours(simulated: Any) -> None:
    sections = list(simulated.sections.values())[:2]
    model = sw.tl.train(sections, preset="mclstexp", cross_validate=False, image_features="X_stain_texture", **FEW)
    assert model.contexts
    z = sw.tl.embed(sections[0], model=model, modality="gene", inplace=False)
    assert np.allclose(model.reference.unit("pair_gene")[:120], z, atol=2e-3)


def test_arrays_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    z = np.ones((3, 2), np.float16)
    with pytest.raises(ValueError, match="one row each"):
        Reference({}, {"pair_image": z, "pair_gene": z[:2], "pair_group": np.zeros(3, np.int32)})
    with pytest.raises(ValueError, match="one row each"):
        Reference({}, {"pair_image": z})
    with pytest.raises(ValueError, match="not finite"):
        Reference({}, {"mean_image": np.array([np.nan, 1])})
    with pytest.raises(ValueError, match="no arrays named other"):
        Reference({}, {"other": z})
    text = {"text_gene": z, "text_caption": np.array([0, 1, 5], np.int32), "text_group": np.zeros(3, np.int32)}
    with pytest.raises(ValueError, match="does not fit its 3 captions"):
        Reference({"captions": ["a", "b", "c"]}, text | {"caption": z})
    with pytest.raises(ValueError, match="does not hold a reference"):
        Reference.read(tmp_path)
    Reference({}, {"mean_image": np.ones(2)}).write(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ValueError, match="does not hold a reference"):
        Reference.read(tmp_path)
