"""Names, ids and terms as labels; rolling labels up an ontology."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw
from spatialwhisperer._provenance import recorded
from spatialwhisperer.models.ontology import Ontology, Term
from spatialwhisperer.models.vocabulary import Vocabulary
from spatialwhisperer.tl._annotation.labels import check_labels, find_terms, label_ids, open_ontology
from spatialwhisperer.tl._annotation.rollup import coarse_terms, roll_up, to_level
from spatialwhisperer.tl._annotation.scoring import best_labels, top_codes

TERMS = [
    Term("CL:0", "cell"),
    Term("CL:1", "leukocyte", ("white blood cell",), ("CL:0",)),
    Term("CL:2", "lymphocyte", (), ("CL:1",)),
    Term("CL:3", "T cell", ("T lymphocyte", "T-cell"), ("CL:2",)),
    Term("CL:4", "B cell", ("B lymphocyte",), ("CL:2",)),
    Term("CL:5", "macrophage", (), ("CL:1",)),
    Term("CL:6", "fat cell", ("adipocyte",), ("CL:0",)),
    Term("CL:7", "hematopoietic cell", (), ("CL:0",)),
    Term("CL:8", "stem cell / progenitor", (), ("CL:7",)),
]
ONTOLOGY = Ontology(TERMS)
LABELS = {
    "T cells": {"prompts": ["T lymphocytes", "immune infiltrate"], "cl": "CL:3"},
    "B/plasma": {"prompts": ["B lymphocytes"], "cl": "CL:4"},
    "fat": {"prompts": ["fat tissue"], "cl": "CL:6"},
    "tumour": {"prompts": ["cancer"], "cl": None},
}
TEXTS = [
    *("T lymphocytes", "immune infiltrate", "B lymphocytes", "fat tissue", "cancer"),
    *("cell", "leukocyte", "lymphocyte", "T cell", "B cell", "macrophage", "fat cell", "T lymphocyte", "adipocyte"),
]


@pytest.fixture(scope="module")
def worded(model: Any) -> Any:
    """The model with a vocabulary. Read only."""
    out = copy.deepcopy(model)
    features = np.random.default_rng(0).normal(size=(len(TEXTS), model.feature_dim("text"))).astype(np.float32)
    out.vocabulary = Vocabulary(LABELS, TEXTS, features, ONTOLOGY)
    return out


# ------------------------------------------------------------------------------------------------- names


def test_labels_of_the_vocabulary(worded: Any) -> None:
    assert check_labels(None, worded) == (list(LABELS), [v["prompts"] for v in LABELS.values()])


def test_a_name_is_described_as_the_vocabulary_knows_it(worded: Any) -> None:
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


def test_one_term_twice(worded: Any) -> None:
    with pytest.raises(ValueError, match="holds B cell more than once"):
        check_labels(["CL:4", "B cell"], worded)


def test_ids_of_labels(worded: Any, model: Any, tmp_path: Any) -> None:
    assert label_ids(list(LABELS), None, worded, ONTOLOGY) == ["CL:3", "CL:4", "CL:6", None]
    assert label_ids(["B cell", "x"], ["CL:4", "x"], worded, ONTOLOGY) == ["CL:4", None]
    assert label_ids(["T-cells", "rest"], {"T-cells": "…", "rest": "…"}, model, ONTOLOGY) == ["CL:3", None]
    assert label_ids(["T cells"], None, worded, Ontology(TERMS[:1])) == [None]
    assert label_ids(["T cells"], None, model, None) == [None]
    assert open_ontology(None, model) is None
    assert open_ontology(None, worded) is ONTOLOGY
    path = tmp_path / "small.obo"
    path.write_text("[Term]\nid: CL:3\nname: T cell\n", encoding="utf-8")
    assert open_ontology(str(path), model).find("T cell") == "CL:3"
    with pytest.raises(TypeError, match="an Ontology or a file, not dict"):
        open_ontology({}, model)


def test_terms_by_any_name() -> None:
    assert find_terms(ONTOLOGY, ["white blood cells", "CL:6", "CL:1"]) == ["CL:1", "CL:6"]
    with pytest.raises(ValueError, match="level holds neuron, which the ontology of 9 terms does not name"):
        find_terms(ONTOLOGY, ["leukocyte", "neuron"])
    with pytest.raises(ValueError, match="level holds none"):
        find_terms(ONTOLOGY, [])
    with pytest.raises(TypeError, match="a list of names or ids"):
        find_terms(ONTOLOGY, [3])


# ------------------------------------------------------------------------------------------------- levels


def test_labels_go_to_the_nearest_term(capfd: Any) -> None:
    classes, ids = ["T", "B", "Mac", "Fat", "Odd"], ["CL:3", "CL:4", "CL:5", "CL:6", None]
    level = to_level(classes, ids, ["CL:1", "CL:2"], ONTOLOGY)
    assert level.classes == ["leukocyte", "lymphocyte", "Fat", "Odd"]
    assert level.ids == ["CL:1", "CL:2", "CL:6", None]
    assert level.member.astype(int).tolist() == [
        [0, 1, 0, 0],
        [0, 1, 0, 0],
        [1, 0, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 0, 1],
    ]
    assert "Fat, Odd fall under none" in capfd.readouterr().err
    with pytest.raises(ValueError, match="None of the labels .T, B. falls under stem cell / progenitor"):
        to_level(["T", "B"], ["CL:3", None], ["CL:8"], ONTOLOGY)
    with pytest.raises(ValueError, match="all labels are leukocyte; two classes"):
        to_level(["T", "B"], ["CL:3", "CL:4"], ["CL:1"], ONTOLOGY)


def test_a_label_called_like_a_term_joins_it() -> None:
    level = to_level(["T", "lymphocyte", "Fat"], ["CL:3", None, "CL:6"], ["CL:2"], ONTOLOGY)
    assert level.classes == ["lymphocyte", "Fat"]
    assert level.member.astype(int).tolist() == [[1, 0], [1, 0], [0, 1]]


# ------------------------------------------------------------------------------------------------- coarser terms


def test_common_ancestors_the_most_specific_first() -> None:
    coarse = coarse_terms(["CL:3", "CL:4", "CL:5", "CL:6", None], ONTOLOGY)
    assert coarse.ids == ["CL:2", "CL:1", "CL:0"]
    assert coarse.member.T.astype(int).tolist() == [[1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]
    # what is above all labels says nothing of a row
    assert coarse_terms(["CL:3", "CL:4", "CL:5", "CL:6"], ONTOLOGY).ids == ["CL:2", "CL:1"]
    # a label may be above another
    assert coarse_terms(["CL:2", "CL:3", "CL:6"], ONTOLOGY).ids == ["CL:2"]
    assert coarse_terms(["CL:3", "CL:6"], ONTOLOGY).ids == []


def test_unsure_rows_get_what_is_sure() -> None:
    coarse = coarse_terms(["CL:3", "CL:4", "CL:5", "CL:6", None], ONTOLOGY)
    share = np.array(
        [
            [0.80, 0.05, 0.05, 0.05, 0.05],  # sure
            [0.40, 0.35, 0.05, 0.10, 0.10],  # lymphocyte
            [0.30, 0.20, 0.25, 0.20, 0.05],  # leukocyte
            [0.20, 0.20, 0.15, 0.25, 0.20],  # cell
            [0.15, 0.15, 0.10, 0.20, 0.40],  # none
            [np.nan] * 5,
        ],
        np.float32,
    )
    best = best_labels(share)
    given, after = roll_up(share, best, coarse, min_confidence=0.7, min_margin=0.0)
    assert given.tolist() == [-1, 0, 1, 2, -1, -1]
    assert np.allclose(after.confidence, [0.8, 0.75, 0.75, 0.8, 0.4, np.nan], equal_nan=True)
    assert np.allclose(after.margin, [0.75, 0.65, 0.55, 0.6, 0.2, np.nan], equal_nan=True)
    # a margin counts too: the best label outside must be that far behind
    given, _ = roll_up(share, best, coarse, min_confidence=0.7, min_margin=0.6)
    assert given.tolist() == [-1, 0, 2, 2, -1, -1]


def test_of_terms_as_specific_the_larger_share_wins() -> None:
    terms = [Term("r", "root"), Term("x", "x", (), ("r",)), Term("y", "y", (), ("r",))]
    tree = Ontology([*terms, *(Term(c, c, (), (p,)) for c, p in zip("abcd", "xxyy", strict=True))])
    coarse = coarse_terms(["a", "b", "c", "d"], tree)
    share = np.array([[0.3, 0.15, 0.25, 0.3], [0.3, 0.25, 0.25, 0.2]], np.float32)
    given, _ = roll_up(share, best_labels(share), coarse, min_confidence=0.4, min_margin=0)
    assert [coarse.ids[i] for i in given] == ["y", "x"]


def test_best_and_top() -> None:
    share = np.array([[0.5, 0.2, 0.3], [0.1, 0.1, 0.8], [np.nan] * 3], np.float32)
    best = best_labels(share)
    assert best.code.tolist() == [0, 2, -1]
    assert np.allclose(best.margin, [0.2, 0.7, np.nan], equal_nan=True)
    top = top_codes(share, 2)
    assert top.dtype == np.int16
    assert top.tolist() == [[0, 2], [2, 0], [-1, -1]]


# ------------------------------------------------------------------------------------------------- in an annotation


def test_ids_beside_labels(section: Any, worded: Any) -> None:
    table = section["table"]
    sw.tl.zero_shot_annotate(section, model=worded, normalize="centre", top_k=2)
    label, term = table.obs["sw_label"], table.obs["sw_label_cl"]
    assert term.cat.categories.tolist() == [i for i in ("CL:3", "CL:4", "CL:6") if (term == i).any()]
    expected = [LABELS[name]["cl"] or "none" for name in label]
    assert np.where(term.isna(), "none", term.astype(object)).tolist() == expected
    assert table.obsm["sw_label_top"].shape == (120, 2)
    codes = [list(LABELS).index(name) for name in label]
    assert np.array_equal(table.obsm["sw_label_top"][:, 0], codes)
    # what belongs to the former labels goes with them
    sw.tl.zero_shot_annotate(section, {"x": "cancer", "y": "fat tissue"}, model=worded)
    assert "sw_label_cl" not in table.obs
    assert "sw_label_top" not in table.obsm


def test_rows_rolled_up(section: Any, worded: Any) -> None:
    table = section["table"]
    names = ["T cells", "B/plasma", "macrophage", "fat", "tumour"]
    sw.tl.zero_shot_annotate(section, names, model=worded, normalize="centre")
    cut = float(np.quantile(table.obs["sw_label_confidence"], 0.7))
    plain = table.obs["sw_label"].astype(object).to_numpy()
    sw.tl.zero_shot_annotate(section, names, model=worded, normalize="centre", min_confidence=cut, rollup=True)
    label, term = table.obs["sw_label"], table.obs["sw_label_cl"]
    categories = label.cat.categories.tolist()
    given = [name for name in names if (label == name).any()]
    coarser = categories[len(given) :]
    assert categories[: len(given)] == given
    assert set(coarser) <= {"lymphocyte", "leukocyte", "cell"}
    assert [str(c) for c in table.uns["sw_label"]["classes"]] == names
    coarse = label.isin(coarser).to_numpy()
    assert coarse.any()
    assert (table.obs["sw_label_confidence"][coarse] >= cut).all()
    assert set(term[coarse]) <= {"CL:2", "CL:1", "CL:0"}
    fine = label.isin(names).to_numpy()
    assert (label[fine].astype(object) == plain[fine]).all()
    assert recorded(table, "sw_label")["rollup"]


def test_a_level(section: Any, worded: Any) -> None:
    table = section["table"]
    names = ["T cells", "B/plasma", "macrophage", "fat", "tumour"]
    fine = sw.tl.zero_shot_annotate(section, names, model=worded, normalize="softmax", inplace=False)
    options = {"model": worded, "normalize": "none"}
    coarse = sw.tl.zero_shot_annotate(section, names, level=["white blood cell"], inplace=False, **options)
    assert coarse.columns.tolist() == ["leukocyte", "fat", "tumour"]
    assert np.allclose(coarse["leukocyte"], fine[names[:3]].sum(axis=1), atol=1e-5)
    assert np.allclose(coarse["fat"], fine["fat"], atol=1e-5)
    options["model"] = copy.deepcopy(worded)
    options["model"].config["annotation"] = {"levels": {"coarse": ["CL:1"]}}
    sw.tl.zero_shot_annotate(section, names, level="coarse", **options)
    with pytest.raises(ValueError, match=r"level='fine' is not a level that this model knows \(found: coarse\)"):
        sw.tl.zero_shot_annotate(section, names, level="fine", **options)
    assert np.allclose(table.obsm["sw_label_scores"], coarse)
    assert table.uns["sw_label"]["classes"].tolist() == ["leukocyte", "fat", "tumour"]
    assert set(table.obs["sw_label"].cat.categories) == set(table.obs["sw_label"])
    told = recorded(table, "sw_label")
    assert told["scores"] == "share"
    assert told["labels"] == names
    # what reads an annotation reads this one
    table.obs["truth"] = np.where(table.obs["cell_type"].isin(["T cell", "macrophage"]), "leukocyte", "tumour")
    assert 0 <= sw.tl.evaluate_calibration(section, "truth").attrs["ece"] <= 1
    assert np.isfinite(sw.tl.evaluate_annotation(section, "truth").loc["macro", "auroc"])


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (["T cells", "fat"], {"rollup": True}, "Pass min_confidence=0.5 or so"),
        (["T cells", "fat"], {"rollup": True, "min_confidence": 0.5}, "no term above several of the labels"),
        (["T cells", "fat"], {"level": ["neuron"]}, "level holds neuron"),
        (["T cells", "fat"], {"level": "coarse"}, "level='coarse' is not a level that this model knows"),
        (["T cells", "fat"], {"top_k": 3}, "top_k must be a whole number between 1 and the 2 labels"),
        (["T cells", "fat"], {"top_k": 0}, "top_k must be"),
        (["T cells", "fat"], {"min_margin": 2}, "min_margin must be between 0 and 1, not 2"),
        (["T cells", "fat"], {"min_confidence": "high"}, "min_confidence must be between 0 and 1"),
        (["T cells"], {}, "at least two names"),
        (["T cells", "B/plasma"], {"level": ["leukocyte"]}, "all labels are leukocyte"),
    ],
)
def test_refused(section: Any, worded: Any, labels: Any, options: Any, message: str) -> None:
    table = section["table"]
    before = set(table.obs), set(table.obsm), set(table.uns)
    with pytest.raises(ValueError, match=message):
        sw.tl.zero_shot_annotate(section, labels, model=worded, **options)
    assert (set(table.obs), set(table.obsm), set(table.uns)) == before


def test_an_ontology_of_ones_own(section: Any, model: Any, labels: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"rollup needs an ontology, and this model has no vocabulary. Pass ontology="):
        sw.tl.zero_shot_annotate(section, labels, model=model, rollup=True, min_confidence=0.5)
    sw.tl.zero_shot_annotate(section, labels, model=model, ontology=ONTOLOGY)
    term = section["table"].obs["sw_label_cl"]
    assert "CL:3" in term.cat.categories
    rows = section["table"].obs["sw_label"] == "T cell"
    assert (term[rows] == "CL:3").all()
    assert pd.isna(term[section["table"].obs["sw_label"] == "stroma"]).all()
