from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from spatialwhisperer.models import Whisperer
from spatialwhisperer.models.ontology import Ontology, Term
from spatialwhisperer.models.vocabulary import Vocabulary

if TYPE_CHECKING:
    from pathlib import Path

ONTOLOGY = Ontology([Term("CL:0000000", "cell"), Term("CL:0000084", "T cell", ("T lymphocyte",), ("CL:0000000",))])
LABELS = {
    "T cell": {"prompts": ["T lymphocytes", "lymphocytic infiltrate"], "cl": "CL:0000084"},
    "Fett größer": {"prompts": ["fat tissue"], "cl": None},
}
TEXTS = ["T lymphocytes", "lymphocytic infiltrate", "fat tissue", "T cell", "cell", "bone"]


def vocabulary(**changes: Any) -> Vocabulary:
    features = np.random.default_rng(0).normal(size=(len(TEXTS), 6)).astype(np.float32)
    values = {"labels": LABELS, "texts": TEXTS, "features": features, "ontology": ONTOLOGY} | changes
    return Vocabulary(**values)


def test_lookup() -> None:
    v = vocabulary()
    features, missing = v.lookup(["FAT tissue ", "wood", "bone", "iron", "wood"])
    assert features.dtype == np.float32
    assert np.array_equal(features[[0, 2]], v.features[[2, 5]])
    assert np.isnan(features[[1, 3, 4]]).all()
    assert missing == ["wood", "iron"]
    features, missing = v.lookup([])
    assert features.shape == (0, 6)
    assert missing == []
    assert "Fat Tissue" in v
    assert "fat" not in v
    assert 3 not in v


def test_prompts_and_labels() -> None:
    v = vocabulary()
    assert v.prompts("t cell ") == ["T lymphocytes", "lymphocytic infiltrate"]
    assert v.prompts("wood") == ["wood"]
    assert v.labels == LABELS
    v.prompts("T cell").append("changed")
    assert v.labels == LABELS
    assert repr(v) == "Vocabulary(2 labels, 6 texts, 2 terms)"


def test_nearest() -> None:
    v = vocabulary()
    assert v.nearest("fatty tissue")[0] == "fat tissue"
    assert v.nearest("T-cels")[0] == "T cell"
    assert len(v.nearest("cell", n=1)) == 1
    assert v.nearest("xyzzyx") == []


def test_a_model_offers_its_vocabulary() -> None:
    heads = {"gene": {"kind": "linear_norm", "in_dim": 8}, "text": {"kind": "bn_shortcut", "in_dim": 6}}
    model = Whisperer({"projection_dim": 4, "heads": heads, "labels": ["a caption"]})
    assert model.vocabulary is None
    assert model.reference is None
    assert model.labels == ["a caption"]
    assert model.prompts("T cell") == ["T cell"]
    model.vocabulary = vocabulary()
    assert model.labels == ["T cell", "Fett größer"]
    assert model.prompts("T cell") == LABELS["T cell"]["prompts"]


def test_files(tmp_path: Path) -> None:
    v = vocabulary()
    v.write(tmp_path / "vocabulary")
    assert sorted(p.name for p in (tmp_path / "vocabulary").iterdir()) == ["config.json", "model.safetensors"]
    again = Vocabulary.read(tmp_path / "vocabulary")
    assert again.labels == v.labels
    assert list(again.labels) == list(v.labels)
    assert again.texts == v.texts
    assert np.array_equal(again.features, v.features)
    assert again.ontology.terms == v.ontology.terms
    with pytest.raises(FileExistsError):
        v.write(tmp_path / "vocabulary")


def test_broken_files(tmp_path: Path) -> None:
    message = "does not hold a vocabulary .*Save the model again"
    with pytest.raises(ValueError, match=message):
        Vocabulary.read(tmp_path)
    for name, content in {
        "config.json": b"{",
        "model.safetensors": b"broken",
    }.items():
        folder = tmp_path / name.split(".")[0]
        vocabulary().write(folder)
        (folder / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            Vocabulary.read(folder)
    vocabulary().write(tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text(encoding="utf-8"))
    for wrong in ({**config, "texts": TEXTS[:-1]}, {**config, "labels": 3}, {"labels": LABELS}, []):
        (tmp_path / "other" / "config.json").write_text(json.dumps(wrong))
        with pytest.raises(ValueError, match=message):
            Vocabulary.read(tmp_path / "other")


def label(**values: Any) -> dict[str, Any]:
    return {"labels": {"x": {"prompts": ["bone"], "cl": None} | values}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"texts": TEXTS[:-1]}, r"5 texts need features of shape \(n_texts, d\); found \(6, 6\)"),
        ({"texts": [*TEXTS[:-1], "FAT tissue"]}, "texts holds fat tissue more than once"),
        ({"texts": [*TEXTS[:-1], " "]}, r"texts\[5\] is empty"),
        ({"texts": [], "features": np.zeros((0, 6)), "labels": {}}, "0 texts need features"),
        ({"features": np.full((6, 6), np.nan)}, "features of T lymphocytes, .* are not finite"),
        (label(prompts=["wood"]), "The prompts wood of label 'x' are not among the texts"),
        (label(prompts="bone"), "needs a name and a list of prompts; found prompts='bone'"),
        (label(prompts=[]), "needs a name and a list of prompts"),
        (label(cl="CL:1"), "'CL:1' of label 'x' is not in the ontology"),
        ({"labels": {n: {"prompts": ["bone"], "cl": None} for n in ("x", "X ")}}, "Labels repeat"),
    ],
)
def test_vocabularies_that_do_not_hold_together(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vocabulary(**changes)
