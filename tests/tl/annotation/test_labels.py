"""Labels: their names, descriptions and ids."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from spatialwhisperer.models.ontology import Ontology, Term
from spatialwhisperer.tl._annotation.labels import (
    check_apart,
    check_labels,
    class_embeddings,
    fill_templates,
    find_terms,
    label_ids,
    open_ontology,
)

# ------------------------------------------------------------------------------------------------- names


def test_labels_may_come_in_any_form(model: Any) -> None:
    assert check_labels(("a", "b"), model) == (["a", "b"], [["a"], ["b"]])
    assert check_labels({"a": "x", "b": ("y", "z")}, model) == (["a", "b"], [["x"], ["y", "z"]])
    assert check_labels(pd.Index(["a", "b"]), model)[0] == ["a", "b"]


def test_labels_of_the_vocabulary_are_the_default(worded: Any) -> None:
    known = worded.vocabulary.labels
    assert check_labels(None, worded) == (list(known), [list(label.prompts) for label in known.values()])


def test_a_name_takes_the_descriptions_of_the_vocabulary(worded: Any) -> None:
    names = ["T cells", "CL:4", "adipocyte", "macrophage", "Leukocytes", "wonder tissue"]
    classes, prompts = check_labels(names, worded)
    assert classes == ["T cells", "B cell", "adipocyte", "macrophage", "Leukocytes", "wonder tissue"]
    assert prompts == [
        ["T lymphocytes", "immune infiltrate"],
        ["B lymphocytes"],
        ["fat tissue"],
        ["macrophage"],
        ["leukocyte"],
        ["wonder tissue"],
    ]
    # a description that is given is taken as it is
    assert check_labels({"T cells": "x", "CL:4": "y"}, worded) == (["T cells", "CL:4"], [["x"], ["y"]])


def test_without_a_vocabulary_names_describe_themselves(model: Any) -> None:
    assert check_labels(["T cells", "CL:4"], model) == (["T cells", "CL:4"], [["T cells"], ["CL:4"]])


@pytest.mark.parametrize("labels", [["a", " \u200b"], {"a": "x", "b": ["y", "\u200b"]}])
def test_a_label_in_which_nothing_can_be_seen_is_refused(model: Any, labels: Any) -> None:
    with pytest.raises(ValueError, match="an empty name or a label without a description"):
        check_labels(labels, model)


def test_a_term_may_be_named_once_only(worded: Any) -> None:
    with pytest.raises(ValueError, match="holds B cell more than once"):
        check_labels(["CL:4", "B cell"], worded)


def test_ids_of_labels_come_from_the_vocabulary_or_by_name(worded: Any, model: Any, ontology: Ontology) -> None:
    assert label_ids(list(worded.vocabulary.labels), None, worded, ontology) == ["CL:3", "CL:4", "CL:6", None]
    assert label_ids(["B cell", "x"], ["CL:4", "x"], worded, ontology) == ["CL:4", None]
    assert label_ids(["T-cells", "rest"], {"T-cells": "…", "rest": "…"}, model, ontology) == ["CL:3", None]
    assert label_ids(["T cells"], None, worded, Ontology([Term("CL:0", "cell")])) == [None]
    assert label_ids(["T cells"], None, model, None) == [None]


def test_an_ontology_may_be_a_file(worded: Any, model: Any, ontology: Ontology, tmp_path: Any) -> None:
    assert open_ontology(None, model) is None
    assert open_ontology(None, worded) is ontology
    path = tmp_path / "small.obo"
    path.write_text("[Term]\nid: CL:3\nname: T cell\n", encoding="utf-8")
    opened: Any = open_ontology(str(path), model)
    assert opened.find("T cell") == "CL:3"
    with pytest.raises(TypeError, match="an Ontology or a file, not dict"):
        open_ontology({}, model)  # type: ignore[arg-type]


def test_terms_are_found_by_any_name(ontology: Ontology) -> None:
    assert find_terms(ontology, ["white blood cells", "CL:6", "CL:1"]) == ["CL:1", "CL:6"]
    with pytest.raises(ValueError, match="level holds neuron, which the ontology of 9 terms does not name"):
        find_terms(ontology, ["leukocyte", "neuron"])
    with pytest.raises(ValueError, match="level holds none"):
        find_terms(ontology, [])
    with pytest.raises(TypeError, match="a list of names or ids"):
        find_terms(ontology, [3])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["T cell", " T  cell", "fat"], "'T cell' and ' T  cell', which are both described by 'T cell'"),
        ({"a": "fat", "b": ["fat"]}, "'a' and 'b', which are both described by 'fat'. Leave one out"),
        ({"a": ["x", "y"], "b": ["y", "x "]}, "both described by 'x', 'y'"),
    ],
)
def test_labels_that_are_described_alike_are_refused(labels: Any, message: str, model: Any) -> None:
    with pytest.raises(ValueError, match=message):
        check_labels(labels, model)


def test_two_names_of_one_term_are_refused(worded: Any) -> None:
    with pytest.raises(ValueError, match="'leukocyte' and 'white blood cell', which are both described by 'leukocyte'"):
        check_labels(["leukocyte", "white blood cell"], worded)


def test_a_series_whose_index_is_text_is_refused(model: Any) -> None:
    with pytest.raises(TypeError, match=r"names or descriptions.*dropna\(\)\.unique\(\).*to_dict\(\)"):
        check_labels(pd.Series({"T cell": "a lymphocyte", "fat": "adipose"}), model)
    assert check_labels(pd.Series(["T cell", "fat"]), model)[0] == ["T cell", "fat"]


def test_labels_with_the_same_embedding_are_refused() -> None:
    text = np.array([[0.6, 0.8], [1, 0], [0.6, 0.8 - 1e-7], [0, 0], [0, 0]], np.float32)
    with pytest.raises(ValueError, match="the same embedding for the labels 'T cell' and 'T Cell'. Leave one out"):
        check_apart(["T cell", "fat", "T Cell", "x", "y"], text)
    check_apart(["T cell", "fat"], text[:2])


# ------------------------------------------------------------------------------------------------- sentences


def test_templates_are_filled_with_every_description() -> None:
    assert fill_templates([["fat", "adipocytes"], ["gland"]], ["{}", "tissue with {}, {}"]) == [
        ["fat", "tissue with fat, fat", "adipocytes", "tissue with adipocytes, adipocytes"],
        ["gland", "tissue with gland, gland"],
    ]


def test_several_descriptions_are_averaged_and_renormalised(model: Any) -> None:
    both = class_embeddings(model, [["fat tissue", "adipocytes"], ["stroma"]])
    single = class_embeddings(model, [["fat tissue"], ["adipocytes"], ["stroma"]])
    mean = single[:2].mean(0)
    assert np.allclose(both[0], mean / np.linalg.norm(mean), atol=1e-6)
    assert np.allclose(both[1], single[2], atol=1e-6)
    assert np.allclose(np.linalg.norm(both, axis=1), 1, atol=1e-6)


def test_descriptions_whose_embeddings_cancel_give_zero_and_no_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    from spatialwhisperer.tl._annotation import labels

    model: Any = None

    opposite = np.array([[0.6, 0.8], [-0.6, -0.8], [0, 1]], np.float32)
    monkeypatch.setattr(labels, "embed_texts", lambda *_, **__: opposite)
    assert class_embeddings(model, [["dense", "loose"], ["stroma"]]).tolist() == [[0, 0], [0, 1]]
