"""Labels at coarser terms of an ontology: for all rows, or for uncertain ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw
from spatialwhisperer._provenance import recorded
from spatialwhisperer.models.ontology import Ontology, Term
from spatialwhisperer.pl.annotation import coarser_score
from spatialwhisperer.tl._annotation.rollup import Hierarchy, coarse_terms, roll_up, to_level
from spatialwhisperer.tl._annotation.scoring import best_labels

# ------------------------------------------------------------------------------------------------- levels


def test_labels_are_replaced_by_the_nearest_term(ontology: Ontology, capfd: Any) -> None:
    classes, ids = ["T", "B", "Mac", "Fat", "Odd"], ["CL:3", "CL:4", "CL:5", "CL:6", None]
    level = to_level(classes, ids, ["CL:1", "CL:2"], ontology)
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
        to_level(["T", "B"], ["CL:3", None], ["CL:8"], ontology)
    with pytest.raises(ValueError, match="all labels are leukocyte; two classes"):
        to_level(["T", "B"], ["CL:3", "CL:4"], ["CL:1"], ontology)


def test_a_label_with_the_name_of_a_term_joins_it(ontology: Ontology) -> None:
    level = to_level(["T", "lymphocyte", "Fat"], ["CL:3", None, "CL:6"], ["CL:2"], ontology)
    assert level.classes == ["lymphocyte", "Fat"]
    assert level.member.astype(int).tolist() == [[1, 0], [1, 0], [0, 1]]


# ------------------------------------------------------------------------------------------------- coarser terms


def test_common_ancestors_come_with_the_most_specific_first(ontology: Ontology) -> None:
    coarse = coarse_terms(["CL:3", "CL:4", "CL:5", "CL:6", None], ontology)
    assert coarse.ids == ["CL:2", "CL:1", "CL:0"]
    assert coarse.member.T.astype(int).tolist() == [[1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]
    # a term above all labels says nothing about a row
    assert coarse_terms(["CL:3", "CL:4", "CL:5", "CL:6"], ontology).ids == ["CL:2", "CL:1"]
    # a label may be above another
    assert coarse_terms(["CL:2", "CL:3", "CL:6"], ontology).ids == ["CL:2"]
    assert coarse_terms(["CL:3", "CL:6"], ontology).ids == []


def test_uncertain_rows_get_the_most_specific_certain_term(ontology: Ontology) -> None:
    coarse = coarse_terms(["CL:3", "CL:4", "CL:5", "CL:6", None], ontology)
    probability = np.array(
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
    best = best_labels(probability)
    given, after = roll_up(probability, best, coarse, min_confidence=0.7, min_margin=0.0)
    assert given.tolist() == [-1, 0, 1, 2, -1, -1]
    assert np.allclose(after.confidence, [0.8, 0.75, 0.75, 0.8, 0.4, np.nan], equal_nan=True)
    assert np.allclose(after.margin, [0.75, 0.65, 0.55, 0.6, 0.2, np.nan], equal_nan=True)
    # a margin counts too: the best label outside must be that far behind
    given, _ = roll_up(probability, best, coarse, min_confidence=0.7, min_margin=0.6)
    assert given.tolist() == [-1, 0, 2, 2, -1, -1]


def test_of_equally_specific_terms_the_more_probable_one_is_taken() -> None:
    terms = [Term("r", "root"), Term("x", "x", (), ("r",)), Term("y", "y", (), ("r",))]
    tree = Ontology([*terms, *(Term(c, c, (), (p,)) for c, p in zip("abcd", "xxyy", strict=True))])
    coarse = coarse_terms(["a", "b", "c", "d"], tree)
    probability = np.array([[0.3, 0.15, 0.25, 0.3], [0.3, 0.25, 0.25, 0.2]], np.float32)
    given, _ = roll_up(probability, best_labels(probability), coarse, min_confidence=0.4, min_margin=0)
    assert [coarse.ids[i] for i in given] == ["y", "x"]


# ------------------------------------------------------------------------------------------------- in an annotation


def test_ids_are_written_beside_labels(section: Any, worded: Any) -> None:
    table = section["table"]
    sw.tl.zero_shot_annotate(section, model=worded, normalize="centre")
    label, term = table.obs["sw_label"], table.obs["sw_label_cl"]
    assert term.cat.categories.tolist() == [i for i in ("CL:3", "CL:4", "CL:6") if (term == i).any()]
    expected = [worded.vocabulary.labels[name].cl or "none" for name in label]
    assert np.where(term.isna(), "none", term.astype(object)).tolist() == expected
    # ids of an earlier annotation do not stay
    sw.tl.zero_shot_annotate(section, {"x": "cancer", "y": "fat tissue"}, model=worded)
    assert "sw_label_cl" not in table.obs


def test_rows_are_rolled_up(section: Any, worded: Any) -> None:
    table = section["table"]
    names = ["T cells", "B/plasma", "macrophage", "fat", "tumour"]
    sw.tl.zero_shot_annotate(section, names, model=worded, normalize="centre")
    cut = float(np.quantile(table.obs["sw_label_confidence"], 0.7))
    plain = table.obs["sw_label"].astype(object).to_numpy()
    sw.tl.zero_shot_annotate(
        section, names, model=worded, normalize="centre", min_confidence=cut, hierarchy=Hierarchy(rollup=True)
    )
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
    record: Any = recorded(table, "sw_label")
    assert record["rollup"]
    # pictures of a coarser term show the probability that rows with its label have
    for name in coarser:
        own = (label == name).to_numpy()
        summed = coarser_score(table, "sw_label", name)
        assert summed is not None
        np.testing.assert_allclose(summed[own], table.obs["sw_label_confidence"][own], atol=1e-6)


def test_classes_of_a_level_have_the_same_prior_probability(section: Any, worded: Any) -> None:
    table = section["table"]
    names = ["T cells", "B/plasma", "macrophage", "fat", "tumour"]
    fine: Any = sw.tl.zero_shot_annotate(section, names, model=worded, normalize="softmax", inplace=False)
    options: dict[str, Any] = {"model": worded, "normalize": "none"}
    level = Hierarchy(level=["white blood cell"])
    coarse: Any = sw.tl.zero_shot_annotate(section, names, hierarchy=level, inplace=False, **options)
    assert coarse.columns.tolist() == ["leukocyte", "fat", "tumour"]
    # the mean of three labels against one, not their sum
    leukocyte = fine[names[:3]].mean(axis=1)
    assert np.allclose(coarse["leukocyte"], leukocyte / (leukocyte + fine["fat"] + fine["tumour"]), atol=1e-5)
    assert np.allclose(coarse["fat"], fine["fat"] / (leukocyte + fine["fat"] + fine["tumour"]), atol=1e-5)
    sw.tl.zero_shot_annotate(section, names, hierarchy=Hierarchy(level=["CL:1"]), **options)
    assert np.allclose(table.obsm["sw_label_scores"], coarse)
    assert table.uns["sw_label"]["classes"].tolist() == ["leukocyte", "fat", "tumour"]
    assert set(table.obs["sw_label"].cat.categories) == set(table.obs["sw_label"])
    record: Any = recorded(table, "sw_label")
    assert record["scores"] == "probability"
    assert record["labels"] == names
    assert record["level"] == ["CL:1", "CL:6", None]
    # functions that read an annotation read this one
    table.obs["truth"] = np.where(table.obs["cell_type"].isin(["T cell", "macrophage"]), "leukocyte", "tumour")
    assert 0 <= sw.tl.evaluate_calibration(section, "truth").attrs["ece"] <= 1
    assert np.isfinite(sw.tl.evaluate_annotation(section, "truth")["auroc"]["macro"])


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (["T cells", "fat"], {"hierarchy": Hierarchy(rollup=True)}, "Pass min_confidence=0.5 or so"),
        (
            ["T cells", "fat"],
            {"hierarchy": Hierarchy(rollup=True), "min_confidence": 0.5},
            "no term above several of the labels",
        ),
        (["T cells", "fat"], {"hierarchy": Hierarchy(level=["neuron"])}, "level holds neuron"),
        (["T cells", "fat"], {"min_margin": 2}, "min_margin must be between 0 and 1, not 2"),
        (["T cells", "fat"], {"min_confidence": "high"}, "min_confidence must be a number or None, not 'high'"),
        (["T cells"], {}, "at least two names"),
        (["T cells", "B/plasma"], {"hierarchy": Hierarchy(level=["leukocyte"])}, "all labels are leukocyte"),
    ],
)
def test_a_hierarchy_that_does_not_fit_is_refused(
    section: Any, worded: Any, labels: Any, options: Any, message: str, keys: Any
) -> None:
    before = keys.of(section["table"])
    with pytest.raises((TypeError, ValueError), match=message):
        sw.tl.zero_shot_annotate(section, labels, model=worded, **options)
    assert keys.of(section["table"]) == before


def test_an_ontology_of_the_user_is_taken(section: Any, model: Any, labels: dict[str, str], ontology: Ontology) -> None:
    rollup = Hierarchy(rollup=True)
    with pytest.raises(
        ValueError, match=r"rollup needs an ontology, and this model has no vocabulary. Pass hierarchy="
    ):
        sw.tl.zero_shot_annotate(section, labels, model=model, hierarchy=rollup, min_confidence=0.5)
    sw.tl.zero_shot_annotate(section, labels, model=model, hierarchy=Hierarchy(ontology=ontology))
    term = section["table"].obs["sw_label_cl"]
    assert "CL:3" in term.cat.categories
    rows = section["table"].obs["sw_label"] == "T cell"
    assert (term[rows] == "CL:3").all()
    assert pd.isna(term[section["table"].obs["sw_label"] == "stroma"]).all()
