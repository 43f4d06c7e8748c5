from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import pytest

from spatialwhisperer.protocols import captions
from spatialwhisperer.protocols.wordings import generate
from spatialwhisperer.protocols.wordings.concepts import CONCEPTS
from spatialwhisperer.protocols.wordings.paraphrase_tables import by_class, by_text, overview
from spatialwhisperer.protocols.wordings.paraphrases import class_captions, settings

if TYPE_CHECKING:
    from pathlib import Path

    from spatialwhisperer.protocols.wordings.generate import Wording

KNOWN = {text for texts in (captions.REGIONS, captions.CELLS, captions.REFERENCE) for text in texts.values()}


@pytest.fixture(scope="module")
def words(data_folder: Path) -> list[Wording]:
    return generate.make_wordings(data_folder)


def test_concepts_are_true_of_captions_that_rows_have_and_cover_all() -> None:
    assert {caption for concept in CONCEPTS.values() for caption in concept.captions} == KNOWN
    assert {c.target for c in CONCEPTS.values()} - {None} == set(captions.TARGETS)


def test_there_are_many_distinct_texts_of_every_kind(words: list[Wording]) -> None:
    texts = [(w.text.casefold(), w.concept) for w in words]
    assert len(set(texts)) == len(texts)
    assert len({w.text for w in words}) >= 1000
    counts = pd.Series([w.kind for w in words]).value_counts()
    assert counts.min() >= 20
    assert counts["name"] >= 150
    assert counts["negation"] == 2 * counts["name"] + sum(len(c.absent) for c in CONCEPTS.values())


def test_names_of_the_ontology_are_those_of_the_nearest_concept(words: list[Wording]) -> None:
    names = {w.text: w.concept for w in words if w.kind == "name"}
    assert names["adipocyte"] == "fat"
    assert names["histiocyte"] == "myeloid cells"
    assert names["CD8-positive cytotoxic T cells"] == "T cells"
    assert names["leucocyte"] == "immune"
    assert not {"colorectal adenocarcinoma cells", "megakaryocytes"} & set(names)


def test_texts_that_negate_are_options_of_the_captions_that_they_negate(words: list[Wording]) -> None:
    options = generate.text_options(words, KNOWN)
    stated = {t for texts in options["wordings"].values() for t in texts}
    negated = {t for texts in options["negated"].values() for t in texts}
    assert not (stated | KNOWN) & negated
    assert {"benign", "no tumour"} <= set(options["negated"][captions.REGIONS["cancer in situ"]])
    assert set(options["negated"]) == set(options["wordings"]) == KNOWN
    assert all(
        any(x in t for x in ("no ", "without ", "absen", "free of", "negative for", "benign", "non-")) for t in negated
    )
    compounds = [w for w in words if w.kind == "compound"]
    targets = {w.text: w.target for w in words if w.kind == "name"}
    assert all(targets[w.bases[1]] != w.target for w in compounds)


def test_a_name_that_is_left_out_takes_along_what_is_built_from_it(words: list[Wording]) -> None:
    kept = generate.left_out(words, ["neoplasm", "fat"])
    gone = {w.text for w in words} - {w.text for w in kept}
    assert {"neoplasm", "neoplasm in the breast", "fat"} <= gone
    assert all("neoplasm" in t or "fat" in t for t in gone)
    assert "malignant neoplasm" not in gone


def test_no_text_that_is_asked_as_unseen_is_in_training(words: list[Wording]) -> None:
    names = sorted(KNOWN)
    asked_of: dict[str, int] = {}
    for setting, kept, known, asked in settings(names, words):
        if setting in ("name left out", "class left out"):
            trained = {w.text for w in kept} | set(known)
            assert not trained & {w.text for w in asked}
            assert not {b for w in kept for b in w.bases} & {w.text for w in asked if w.kind == "name"}
        asked_of[setting] = asked_of.get(setting, 0) + sum(w.kind == "name" for w in asked)
    assert len(set(asked_of.values())) == 1


def test_a_class_that_is_left_out_loses_its_captions_and_no_others(words: list[Wording]) -> None:
    assert class_captions("tumour", words) == {
        captions.REGIONS["invasive cancer"],
        captions.REGIONS["cancer in situ"],
        captions.REFERENCE["Cancer Epithelial"],
    }
    assert class_captions("immune", words) == {captions.REGIONS["immune infiltrate"]}


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"text/cell_ontology_2022-09-15\.tsv\.gz is not there"):
        generate.make_wordings(tmp_path)


def test_the_span_is_that_of_the_best_name_in_training() -> None:
    rows = [
        ("all seen", "A", "tumour", "name", "cancer", 0.9),
        ("all seen", "A", "tumour", "name", "neoplasm", 0.8),
        ("all seen", "C", "tumour", "name", "cancer", 0.7),
        ("all seen", "C", "tumour", "name", "neoplasm", 0.6),
        ("all seen", "A", "tumour", "negation", "no evidence of cancer", 0.2),
        ("name left out", "A", "tumour", "name", "cancer", 0.8),
        ("name left out", "A", "tumour", "name", "neoplasm", 0.3),
    ]
    table = pd.DataFrame(rows, columns=["setting", "patient", "class", "kind", "text", "auroc"])
    means = by_text(table).set_index(["setting", "text"])["fraction"]
    assert means["all seen", "cancer"] == pytest.approx(1.0)
    assert means["all seen", "neoplasm"] == pytest.approx(0.2 / 0.3)
    assert means["name left out", "neoplasm"] == pytest.approx(-0.2 / 0.3)
    found = overview(by_text(table))
    assert found.loc["all seen", "names below 0.75 of the span"] == "1 of 2"
    assert found.loc["name left out", "names below 0.5"] == "1"
    assert found.loc["all seen", "negated at 0.5 or above"] == "0 of 1"
    row = by_class(by_text(table)).loc["tumour"]
    assert row["best name"] == "cancer, 0.80"
    assert row["worst name, left out"] == "neoplasm, 0.30"
