"""What the user is told of texts that a model reads as negations, or that cancel out."""

from __future__ import annotations

import dataclasses
import warnings
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer._provenance import entry, recorded, recorded_as
from spatialwhisperer.models.configuration.model import HeadConfig
from spatialwhisperer.networks.heads import fixed_signed_head
from spatialwhisperer.tl._annotation.reading import LEAST_MEAN, read_texts
from spatialwhisperer.tl._annotation.record import AnnotationRecord
from spatialwhisperer.tl._embedding.texts import embed_texts

if TYPE_CHECKING:
    from pathlib import Path

TOPICS = {"tumour": (0, 1, 0), "fat": (0, 0, 1), "node-negative": (-0.8, 0.5, 0.3), "no tumour": (-0.8, 0.6, 0)}
UNREAD = {"not fat": (0.1, 0, 1), "slightly negative": (-0.25, 1, 0)}
WEAKLY = {"no fat": (-0.25, 0, 1)}


@pytest.fixture
def signed(own: Any) -> Any:
    """A model whose text head knows negations: the first feature of a text says that it negates where it is below -.31."""
    texts = {**TOPICS, **UNREAD, **WEAKLY}
    features = np.zeros((len(texts), own.config.modality("text").feature_dim), np.float32)
    features[:, :3] = list(texts.values())
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    rng = np.random.default_rng(0)
    weight, sign = np.zeros((own.config.projection_dim, features.shape[1])), np.zeros(features.shape[1])
    weight[:, 1:3], sign[0] = rng.normal(size=(len(weight), 2)), 10.0
    head = fixed_signed_head(weight, sign, 2.0)
    own.install_head("text", head, HeadConfig("signed_linear", features.shape[1]))
    own.vocabulary = sw.models.Vocabulary({}, list(texts), features, sw.models.Ontology([]))
    return own


def said(*args: Any, call: Any, **kwargs: Any) -> tuple[Any, str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call(*args, **kwargs)
    return result, "\n".join(str(one.message) for one in caught)


def test_negations_are_those_whose_embedding_points_away_from_what_they_name(signed: Any) -> None:
    texts = [*TOPICS, *UNREAD]
    read = read_texts(signed, texts, [[text] for text in texts])
    assert read.negations == ("node-negative", "no tumour")
    # what begins like a negation is named where it is not read as one
    assert read.overlooked == ("not fat",)
    tumour, _, node_negative, no_tumour, _, slightly = (part[0] for part in read.parts)
    assert no_tumour @ tumour == pytest.approx(-1, abs=1e-5)
    assert node_negative @ tumour < -0.5
    # a logit of -.43 is an ordinary text, and a negation where it begins like one
    assert slightly @ tumour == pytest.approx(1, abs=1e-5)
    read = read_texts(signed, ["a"], [["no fat", "fat"]])
    assert read.negations == ("no fat",)
    no_fat, fat = read.parts[0]
    assert no_fat @ fat == pytest.approx(-1, abs=1e-5)
    assert embed_texts(signed, ["no fat"])[0] == pytest.approx(no_fat)


def test_a_head_that_knows_no_negations_names_none(model: Any, labels: dict[str, str]) -> None:
    read = read_texts(model, ["a", "b"], [[next(iter(labels.values()))], ["no fat"]])
    assert (read.negations, read.overlooked) == ((), ())


def test_the_four_calls_warn_of_what_may_be_meant_otherwise_and_record_it(
    section: Any, signed: Any, caplog: pytest.LogCaptureFixture
) -> None:
    table = section["table"]
    labels = {"a": "node-negative", "b": "no tumour", "c": "fat"}
    calls = {
        "query": lambda: sw.tl.query(section, list(labels.values()), model=signed),
        "annotate": lambda: sw.tl.zero_shot_annotate(section, labels, model=signed, unknown="label"),
        "evidence": lambda: sw.tl.evidence(section, model=signed, labels=labels),
        "transitivity": lambda: sw.tl.transitivity(section, model=signed, labels=labels),
    }
    for call in calls.values():
        caplog.clear()
        with caplog.at_level("INFO", logger="spatialwhisperer"):
            result, warned = said(call=call)
        assert "The model reads 'node-negative' as a negation, as it does 'no tumour': scores are high where" in warned
        # asked on purpose: a line, no warning
        assert "reads 'no tumour'" not in warned
        assert caplog.text.count("The model reads 'no tumour' as a negation: scores are high where") == 1
        if result is not None:
            assert result.attrs["negations"] == ["node-negative", "no tumour"]
    query = recorded(table, "sw_query")
    assert query is not None
    assert query["negations"] == ["node-negative", "no tumour"]
    record = recorded_as(table, "sw_label", AnnotationRecord)
    assert record is not None
    assert record.negations == ("node-negative", "no tumour")


def test_ordinary_texts_say_nothing_and_an_overlooked_negation_is_named(section: Any, signed: Any) -> None:
    _, warned = said(section, ["tumour", "slightly negative"], call=sw.tl.query, model=signed)
    assert warned == ""
    stored = recorded(section["table"], "sw_query")
    assert stored is not None
    assert stored["negations"] == []
    _, warned = said(section, "not fat", call=sw.tl.query, model=signed)
    assert "The model does not read 'not fat' as a negation: scores are high where what is named is present" in warned


def test_negations_are_kept_in_files_and_missing_in_records_without_them(
    section: Any, signed: Any, tmp_path: Path
) -> None:
    table = section["table"]
    said(section, ["tumour", "no tumour"], call=sw.tl.zero_shot_annotate, model=signed, unknown="label")
    record = recorded_as(table, "sw_label", AnnotationRecord)
    plain = ad.AnnData(obs=table.obs[["sw_label_confidence"]], uns=table.uns)
    plain.write_h5ad(tmp_path / "a.h5ad")
    plain.write_zarr(tmp_path / "a.zarr")
    for back in (ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_zarr(tmp_path / "a.zarr")):
        again = recorded_as(back, "sw_label", AnnotationRecord)
        assert again == record
        assert again is not None
        assert again.negations == ("no tumour",)
    assert record is not None
    without = {k: v for k, v in dataclasses.asdict(record).items() if k != "negations"}
    plain.uns["spatialwhisperer"]["sw_label"] = entry(without)
    older = recorded_as(plain, "sw_label", AnnotationRecord)
    assert older is not None
    assert older.negations == ()


def test_descriptions_that_cancel_out_are_named_with_the_length_of_their_mean(section: Any, signed: Any) -> None:
    texts = ["tumour", "node-negative"]
    read = read_texts(signed, ["x", "y"], [texts, ["fat"]])
    length = np.linalg.norm(np.concatenate(read.parts[:1]).mean(axis=0))
    assert length < LEAST_MEAN
    _, warned = said(section, {"x": texts, "y": "fat"}, call=sw.tl.zero_shot_annotate, model=signed, unknown="label")
    assert f"The descriptions of 'x' ({length:.2f}) cancel out" in warned
    _, warned = said(section, texts, call=sw.tl.query, model=signed)
    assert f"The descriptions of 'tumour, node-negative' ({length:.2f}) cancel out" in warned
    # two that have nothing to do with each other are kept
    _, warned = said(section, ["tumour", "fat"], call=sw.tl.query, model=signed)
    assert "cancel out" not in warned


@pytest.mark.slow
def test_the_embedded_model_takes_kinds_of_a_thing_for_the_thing() -> None:
    """The sign of the texts decides whether the map of a label is the right way round."""
    model = sw.models.default_model()
    read = read_texts(
        model,
        ["T cell", "exhausted T cell", "carcinoma", "low-grade carcinoma", "HER2-negative breast cancer", "no tumour"],
        [["T cell"], ["exhausted T cell"], ["carcinoma"], ["low-grade carcinoma"], ["HER2-negative breast cancer"]]
        + [["no tumour"]],
    )
    assert read.negations == ("no tumour",)
    t_cell, exhausted, carcinoma, low_grade, her2_negative, none = read.text
    assert t_cell @ exhausted > 0.5
    assert min(carcinoma @ low_grade, carcinoma @ her2_negative) > 0.5
    assert carcinoma @ none < -0.5


@pytest.mark.slow
def test_no_label_of_the_embedded_model_is_read_as_a_negation_with_and_without_the_prior(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = sw.models.default_model()
    assert model.vocabulary is not None
    labels = model.vocabulary.labels
    sentences = [list(entry.prompts) for entry in labels.values()]
    with_prior = read_texts(model, list(labels), sentences)
    assert with_prior.negations == ()
    monkeypatch.setattr("spatialwhisperer.networks.negations.ORDINARY_ODDS", 1.0)
    without = read_texts(model, list(labels), sentences)
    assert without.negations == ()
    assert without.text == pytest.approx(with_prior.text, abs=1e-6)
