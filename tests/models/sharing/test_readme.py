"""The card of a model: what it says of training, of worth and of licences, and whether the hub can read it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from huggingface_hub import ModelCard

import spatialwhisperer as sw
from spatialwhisperer.models import EncoderSpec, Whisperer
from spatialwhisperer.models.configuration.annotation import Annotation
from spatialwhisperer.models.configuration.refinement import Refinement
from spatialwhisperer.models.sharing.licences import Part
from spatialwhisperer.models.sharing.readme import Described, readme
from tests.models.test_card import CARD, CONFIG, TRAINING

if TYPE_CHECKING:
    from pathlib import Path

    from spatialwhisperer.models.configuration.model import Card, Training

OWN = EncoderSpec("pca", "gene", 32, licence="BSD-3-Clause (no weights)", commercial=True)
UNI = EncoderSpec(
    "uni",
    "image",
    10,
    licence="CC-BY-NC-ND-4.0",
    commercial=False,
    gated=True,
    url="https://huggingface.co/MahmoodLab/UNI",
    citation="Chen et al. 2024",
)
TINY = EncoderSpec("tiny", "text", 16)
PARTS = [Part("gene", OWN, "fitted"), Part("image", UNI, "no"), Part("text", TINY, "trained")]


def described(
    card: Card | None = None, training: Training | None = None, annotation: Annotation | None = None
) -> Described:
    return Described(replace(CONFIG, card=card, training=training, annotation=annotation), PARTS, None, None)


def front(text: str) -> Any:
    """Front matter as the hub reads it."""
    return ModelCard(text, ignore_metadata_errors=False).data


def cells(text: str, start: str) -> list[str]:
    """Cells of the row of a table that starts so."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {start} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


# --------------------------------------------------------------------------------------------- front matter


def test_the_hub_reads_licence_task_encoders_and_figures() -> None:
    card = replace(CARD, held_out_macro_auroc={"B1": 0.71, "C2": 0.64}, licence="CC-BY-4.0")
    data = front(readme(described(card)))
    assert data.library_name == "spatialwhisperer"
    assert data.license == "cc-by-4.0"
    assert data.pipeline_tag == "zero-shot-image-classification"
    assert data.base_model == ["MahmoodLab/UNI"]
    assert {"histopathology", "gene", "image", "text"} <= set(data.tags or ())
    assert data.eval_results is not None
    assert {(r.dataset_name, r.metric_type, r.metric_value) for r in data.eval_results} == {
        ("held-out section B1", "roc_auc", 0.71),
        ("held-out section C2", "roc_auc", 0.64),
    }
    assert data.model_name == "mini"


@pytest.mark.parametrize(
    ("licence", "name", "other"),
    [(None, None, None), ("MIT", "mit", None), ("weights X: ask us", "other", "see-the-section-on-licences")],
)
def test_a_licence_that_the_hub_does_not_know_is_another_one(
    licence: str | None, name: str | None, other: str | None
) -> None:
    data = front(readme(described(), licence=licence))
    assert (data.license, data.get("license_name")) == (name, other)


def test_text_that_means_something_to_yaml_or_a_table_stays_text() -> None:
    odd = 'a: "b" | c\n# d'
    training = replace(TRAINING, groups=(odd, "P2"))
    text = readme(described(replace(CARD, name=odd, held_out_macro_auroc={odd: 0.5}), training))
    data = front(text)
    assert data.eval_results is not None
    assert data.eval_results[0].dataset_name == f"held-out section {odd}"
    assert '| patients or groups (2) | a: "b" \\| c # d, P2 |' in text


# --------------------------------------------------------------------------------------------- sections


def test_training_states_preset_pairs_patients_sections_and_versions() -> None:
    refinement = Refinement("linear", True, "kept: 3 patients gain", gains={"P1": 0.012, "P2": -0.001})
    training = replace(
        TRAINING,
        validation_groups=("P9",),
        refinement=refinement,
        sections=("S1", "S2", "S3"),
        versions={"torch": "2.9"},
    )
    text = readme(described(training=training))
    assert cells(text, "preset and protocol")[1] == "bleep, strict"
    assert cells(text, "schedule")[1] == "joint, locking LUL, seed 0"
    assert cells(text, "pairs")[1] == "240 image–gene, 250 gene–text"
    assert cells(text, "patients or groups (2)")[1] == "P1, P2"
    assert cells(text, "sections (3)")[1] == "S1, S2, S3"
    assert cells(text, "held out for a validation loss")[1] == "P9"
    assert cells(text, "contrastive refinement")[1] == "kept: 3 patients gain"
    assert cells(text, "versions")[1] == "torch 2.9"
    assert "| gain in caption agreement by the contrastive refinement | P2, left out | -0.0010 |" in text
    assert "does not state how it was trained" in readme(described())


def test_it_says_what_was_measured_and_where_nothing_was() -> None:
    assert "Nothing was measured on tissue that was held out" in readme(described(training=TRAINING))
    card = replace(CARD, held_out_macro_auroc={"B1": 0.7104})
    text = readme(described(card, annotation=Annotation("softmax", 0.5, ece=0.0751, n=1028)))
    assert "| macro AUROC of the labels | section B1, its patient left out | 0.710 |" in text
    assert "| expected calibration error of the confidence | the 1,028 rows of its calibration | 0.075 |" in text
    assert "Nothing was measured" not in text


def test_every_part_has_its_licence_and_where_its_weights_are() -> None:
    text = readme(described(), licence="mit")
    assert cells(text, "heads and what was fitted")[1] == "mit"
    assert cells(text, "gene encoder `pca`")[1:4] == [
        "BSD-3-Clause (no weights)",
        "yes",
        "in this folder: fitted to the training data",
    ]
    assert cells(text, "image encoder `uni`")[1:] == [
        "CC-BY-NC-ND-4.0, gated: access is granted by its authors",
        "no",
        "not in this folder; opened by its name",
        "https://huggingface.co/MahmoodLab/UNI",
    ]
    assert cells(text, "text encoder `tiny`")[1:4] == ["unknown", "not known", "in this folder, trained further"]
    assert cells(readme(described()), "heads and what was fitted")[1] == "not stated by whoever trained it"
    assert "- uni: Chen et al. 2024" in text


# --------------------------------------------------------------------------------------------- of real models


def test_a_trained_model_is_saved_with_its_card(model: Whisperer) -> None:
    assert model.folder is not None
    text = (model.folder / "README.md").read_text(encoding="utf-8")
    assert text == str(model.generate_model_card())
    training = model.config.training
    assert training is not None
    assert training.sections == ("P1_spots", "P2_spots", "object 2")
    assert training.versions.keys() == {"spatialwhisperer", "torch", "lightning", "numpy"}
    assert cells(text, "pairs")[1] == ", ".join(f"{n:,} {pair}" for pair, n in training.pairs.items())
    assert "stain_texture" in cells(text, "image")[1]
    assert front(text).library_name == "spatialwhisperer"


def test_held_out_expression_and_the_training_data_inside_are_counted(folders: dict[str, Path]) -> None:
    model = Whisperer.load(folders["trained text"])
    assert model.expression is not None
    values = np.array([0.5, 0.25, np.nan, *([0.0] * 9)], np.float32)
    model.expression = model.expression.with_accuracy({"retrieval": values, "regression": -values})
    text = str(model.generate_model_card(address="owner/name"))
    for method, mean in (("retrieval", "0.068"), ("regression", "-0.068")):
        what = f"Pearson correlation of predicted expression, mean over 11 genes ({method})"
        assert cells(text, what)[1:] == ["training sections, left out in turn", mean]
    assert "(both)" not in text
    assert "The folder holds training data: expression of 9 training observations (12 genes)" in text
    assert "; 2 captions." in text
    assert cells(text, "text")[4] == "trained"
    assert 'sw.models.load("owner/name")' in text


def test_figures_of_the_embedded_model_are_those_of_its_card() -> None:
    model = sw.models.default_model()
    assert model.config.card is not None
    text = str(model.generate_model_card())
    for section, value in model.config.card.held_out_macro_auroc.items():
        assert f"| macro AUROC of the labels | section {section}, its patient left out | {value:.3f} |" in text
    results = front(text).eval_results
    assert {r.dataset_name: r.metric_value for r in results or ()} == {
        f"held-out section {section}": value for section, value in model.config.card.held_out_macro_auroc.items()
    }


def test_the_embedded_model_holds_its_card() -> None:
    """After a change of the card: ``Whisperer.load(folder).save(folder)`` writes it anew."""
    model = sw.models.default_model()
    assert model.folder is not None
    assert (model.folder / "README.md").read_text(encoding="utf-8") == str(model.generate_model_card())


def test_a_card_that_was_edited_does_not_keep_a_model_from_opening(model: Whisperer, tmp_path: Path) -> None:
    before = model.folder
    model.save(tmp_path / "m")
    model.folder = before
    (tmp_path / "m" / "README.md").write_text("by hand")
    assert Whisperer.load(tmp_path / "m").config == model.config
    (tmp_path / "m" / "README.md").unlink()
    assert Whisperer.load(tmp_path / "m").config == model.config
