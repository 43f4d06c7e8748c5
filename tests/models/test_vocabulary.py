from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from spatialwhisperer._artifact.artifact import Artifact
from spatialwhisperer.models.ontology import Ontology, Term
from spatialwhisperer.models.vocabulary import KIND, Label, Vocabulary

if TYPE_CHECKING:
    from pathlib import Path

ONTOLOGY = Ontology([Term("CL:0000000", "cell"), Term("CL:0000084", "T cell", ("T lymphocyte",), ("CL:0000000",))])
LABELS = {
    "T cell": Label(("T lymphocytes", "lymphocytic infiltrate"), "CL:0000084"),
    "Fett größer": Label(("fat tissue",)),
}
TEXTS = ["T lymphocytes", "lymphocytic infiltrate", "fat tissue", "T cell", "cell", "bone"]


def vocabulary(**changes: Any) -> Vocabulary:
    features = np.random.default_rng(0).normal(size=(len(TEXTS), 6)).astype(np.float32)
    values: dict[str, Any] = {"labels": LABELS, "texts": TEXTS, "features": features, "ontology": ONTOLOGY} | changes
    return Vocabulary(**values)


def test_lookup_gives_features_and_names_what_is_missing() -> None:
    v = vocabulary()
    features, missing = v.lookup(["FAT tissue ", "wood", "bone", "iron", "wood"])
    assert features.dtype == np.float32
    assert np.array_equal(features[[0, 2]], v.features[[2, 5]])
    assert np.isnan(features[[1, 3, 4]]).all()
    assert missing == ["wood", "iron"]
    once: Any = iter(["bone", "wood"])
    assert v.lookup(once)[1] == ["wood"]
    features, missing = v.lookup([])
    assert features.shape == (0, 6)
    assert missing == []
    assert "Fat Tissue" in v
    assert "fat" not in v
    assert 3 not in v


def test_a_label_has_its_prompts_and_any_other_text_itself() -> None:
    v = vocabulary()
    assert v.prompts("t cell ") == ["T lymphocytes", "lymphocytic infiltrate"]
    assert v.prompts("wood") == ["wood"]
    assert v.labels == LABELS
    v.prompts("T cell").append("changed")
    assert v.labels == LABELS
    assert repr(v) == "Vocabulary(2 labels, 6 texts, 2 terms)"


def test_nearest_are_those_spelt_alike() -> None:
    v = vocabulary()
    assert v.nearest("fatty tissue")[0] == "fat tissue"
    assert v.nearest("T-cels")[0] == "T cell"
    assert len(v.nearest("cell", n=1)) == 1
    assert v.nearest("xyzzyx") == []


def test_it_comes_back_from_a_folder(tmp_path: Path) -> None:
    v = vocabulary()
    folder = v.artifact().write(tmp_path / "vocabulary")
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]
    again = Vocabulary.from_artifact(Artifact.read(folder, KIND))
    assert again.labels == v.labels
    assert list(again.labels) == list(v.labels)
    assert again.texts == v.texts
    assert np.array_equal(again.features, v.features)
    assert again.ontology.terms == v.ontology.terms


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"texts": TEXTS[:-1]}, r"5 texts need features of shape \(n_texts, d\); found \(6, 6\)"),
        ({"labels": 3}, "labels: "),
        ({"labels": {"x": {"prompts": "bone", "cl": None}}}, "labels.x.prompts: "),
        ({"more": 1}, "more: Unexpected"),
        ({"ontology": {"terms": 3}}, "do not describe an ontology"),
        ({"ontology": None}, "do not describe an ontology"),
    ],
)
def test_a_stored_one_that_does_not_hold_together_is_refused(config: dict[str, Any], message: str) -> None:
    artifact = vocabulary().artifact()
    with pytest.raises(ValueError, match=message):
        Vocabulary.from_artifact(Artifact(KIND, {**artifact.config, **config}, artifact.tensors))


def test_a_stored_one_without_features_or_texts_is_refused() -> None:
    artifact = vocabulary().artifact()
    with pytest.raises(ValueError, match="needs the features of its texts, and there are none"):
        Vocabulary.from_artifact(Artifact(KIND, artifact.config))
    with pytest.raises(ValueError, match="texts: Field required"):
        Vocabulary.from_artifact(Artifact(KIND, {"labels": {}, "ontology": None}, artifact.tensors))


def label(prompts: Any = ("bone",), cl: str | None = None) -> dict[str, Any]:
    return {"labels": {"x": Label(prompts, cl)}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"texts": TEXTS[:-1]}, r"5 texts need features of shape \(n_texts, d\); found \(6, 6\)"),
        ({"texts": [*TEXTS[:-1], "FAT tissue"]}, "texts holds fat tissue more than once"),
        ({"texts": [*TEXTS[:-1], " "]}, r"texts\[5\] is empty"),
        ({"texts": [], "features": np.zeros((0, 6)), "labels": {}}, "0 texts need features"),
        ({"features": np.full((6, 6), np.nan)}, "features of T lymphocytes, .* are not finite"),
        (label(prompts=("wood",)), "The prompts wood of label 'x' are not among the texts"),
        (label(prompts="bone"), "needs a name and a list of prompts; found prompts='bone'"),
        (label(prompts=()), "needs a name and a list of prompts"),
        (label(cl="CL:1"), "'CL:1' of label 'x' is not in the ontology"),
        ({"labels": {n: Label(("bone",)) for n in ("x", "X ")}}, "Labels repeat"),
    ],
)
def test_vocabularies_that_do_not_hold_together(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vocabulary(**changes)
