from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer._provenance import recorded_as
from spatialwhisperer.tl._annotation.known_texts import Nearness, left_out_similarity, nearness
from spatialwhisperer.tl._annotation.labels import mean_embeddings, sentence_embeddings, wording_sd
from spatialwhisperer.tl._annotation.record import AnnotationRecord
from spatialwhisperer.tl._embedding.texts import text_features


def test_texts_of_a_class_are_compared_with_those_of_the_others() -> None:
    features = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    states = np.array([[True, False], [True, False], [False, True]])
    assert left_out_similarity(features, states) == pytest.approx([0.0, 0.6, 0.6])
    # the second text is true of both captions: it has no others
    states[1, 1] = True
    assert left_out_similarity(features, states) == pytest.approx([0.0, 0.0])


@pytest.fixture
def known() -> Any:
    """The embedded model with three captions of its own, of which the vocabulary holds made-up features."""
    model = sw.models.Whisperer.load("her2st-mini")
    dim = model.config.modality("text").feature_dim
    texts = ["carcinoma", "tumour", "fat", "fat lobule", "neuron"]
    features = np.zeros((5, dim), np.float32)
    features[:, :3] = np.array([[1, 0, 0], [0.8, 0.6, 0], [0, 1, 0], [0.1, 0.995, 0], [0, 0.3, 0.954]])
    model.vocabulary = sw.models.Vocabulary({}, texts, features, sw.models.Ontology([]))
    config = model.config
    object.__setattr__(config, "wordings", {"carcinoma": ("tumour",)})
    model.update(labels=("carcinoma", "fat"))
    return model


def near_texts(model: Any, sentences: list[list[str]]) -> Nearness | None:
    return nearness(model, sentences, text_features(model, [s for group in sentences for s in group]))


def test_a_text_that_is_far_is_named_with_its_number_and_the_nearest_text(known: Any) -> None:
    near = near_texts(known, [["fat lobule"], ["neuron"]])
    assert near is not None
    # carcinoma 0, tumour 0.6, fat 0.6
    assert near.limit == pytest.approx(0.6)
    assert near.nearest == ("fat", "fat")
    assert near.similarity == pytest.approx((0.995, 0.3), abs=1e-2)
    warning = near.warning()
    assert warning is not None
    assert "'neuron' (0.30 to 'fat')" in warning
    assert "lobule" not in warning
    assert "below 0.60" in warning


def test_a_label_is_as_near_as_the_nearest_of_its_sentences_and_hides_none_that_is_far(known: Any) -> None:
    near = near_texts(known, [["neuron", "tumour"], ["fat"]])
    assert near is not None
    assert near.similarity == pytest.approx((1.0, 1.0))
    assert near.nearest == ("tumour", "fat")
    assert [(text, nearest) for text, _, nearest in near.far] == [("neuron", "fat")]
    assert "'neuron' (0.30 to 'fat')" in str(near.warning())
    near = near_texts(known, [["tumour"], ["fat"]])
    assert near is not None
    assert near.warning() is None


def test_models_without_stored_features_of_captions_say_nothing(known: Any, model: Any) -> None:
    assert near_texts(model, [["anything"]]) is None
    known.update(labels=("carcinoma", "unstored"))
    assert near_texts(known, [["fat"]]) is None


def test_the_standard_deviation_is_over_the_sentences_of_a_label() -> None:
    z = np.array([[1.0, 0.0], [0.6, 0.8]])
    parts = [np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 0.0]])]
    found = wording_sd(z, parts)
    assert found is not None
    assert found[:, 0] == pytest.approx([np.std([1, 0], ddof=1), np.std([0.6, 0.8], ddof=1)])
    assert np.isnan(found[:, 1]).all()
    assert wording_sd(z, parts[1:]) is None


def test_it_is_written_where_a_label_has_several_sentences_and_goes_where_none_has(
    section: Any, model: Any, labels: dict[str, str]
) -> None:
    prompts = {name: [text, f"a region of {text}"] for name, text in labels.items()}
    sw.tl.zero_shot_annotate(section, prompts, model=model, modality="image", unknown="label")
    table = section["table"]
    parts = sentence_embeddings(model, list(prompts.values()))
    z = table.obsm["X_sw_image"]
    assert table.obsm["sw_label_wording_sd"] == pytest.approx(wording_sd(z, parts), abs=1e-6)
    assert table.obsm["sw_label_scores"] == pytest.approx(z @ mean_embeddings(parts).T, abs=1e-5)
    sw.tl.zero_shot_annotate(section, labels, model=model, modality="image", unknown="label")
    assert "sw_label_wording_sd" not in table.obsm


@pytest.mark.slow
def test_the_embedded_model_warns_and_records_the_number(section: Any) -> None:
    with pytest.warns(match=r"trained with no text like 'eukaryotic cell' \(0\.\d\d to"):
        scores = sw.tl.query(section, "eukaryotic cell", inplace=False)
    assert len(scores) == 120  # type: ignore[arg-type]
    with pytest.warns(match="trained with no text like"):
        sw.tl.zero_shot_annotate(section, ["fat cell", "eukaryotic cell"], modality="image", unknown="label")
    record = recorded_as(section["table"], "sw_label", AnnotationRecord)
    assert record is not None
    assert record.text_limit is not None
    assert record.text_similarity[0] == pytest.approx(1.0, abs=1e-5)
    assert record.text_similarity[1] < record.text_limit
    assert record.nearest_text[0] == "adipose tissue with fat cells"
