"""The region first, and the cell type inside it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer._provenance import recorded
from spatialwhisperer.models.configuration.annotation import Annotation, Region
from spatialwhisperer.tl._annotation.decision import decide, label_probabilities, membership
from spatialwhisperer.tl._annotation.rollup import Classes

NAMES = ("T cells", "B/plasma", "fat", "tumour")
REGIONS = {
    "immune": Region(("immune infiltrate",), ("T cells", "B/plasma"), "CL:1"),
    "adipose": Region(("fat tissue",), ("fat",)),
    "cancer": Region(("cancer",), ("tumour",)),
}
FITTED = Annotation(
    "none",
    0.5,
    labels=NAMES,
    modality="image",
    scale=(2.0, 1.0, 0.5),
    offset=(0.0, 1.0, -1.0),
    regions=REGIONS,
    min_confidence=0.6,
)


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def test_the_probability_of_a_label_is_the_product_along_its_path() -> None:
    rng = np.random.default_rng(0)
    cosines, regions = rng.normal(size=(6, 4)), rng.normal(size=(6, 3))
    cosines[2] = regions[2] = np.nan
    got = label_probabilities(FITTED, cosines, regions)
    of_region = softmax(regions * [4.0, 2.0, 1.0] + [0.0, 1.0, -1.0])
    inside = softmax(cosines[:, :2] / 0.5)
    expected = np.c_[of_region[:, :1] * inside, of_region[:, 1:]]
    assert np.allclose(got, expected, atol=1e-6, equal_nan=True)
    assert np.isnan(got[2]).all()


def test_labels_without_regions_have_scales_and_offsets_of_their_own() -> None:
    fitted = Annotation("none", 0.5, labels=("a", "b"), scale=(2.0, 0.5), offset=(0.0, 1.0))
    cosines = np.array([[0.1, 0.3]])
    assert np.allclose(
        label_probabilities(fitted, cosines, None), softmax(cosines * [4.0, 1.0] + [0.0, 1.0]), atol=1e-6
    )


def test_the_best_label_lies_in_the_best_region() -> None:
    classes = Classes(list(NAMES), [None] * 4, None, None, [])
    p = np.array([[0.3, 0.25, 0.05, 0.4], [0.1, 0.1, 0.2, 0.6]])
    got = decide(p, classes, FITTED)
    assert got.code.tolist() == [0, 3]
    assert got.stored
    assert got.classes.coarse_names == ["immune"]
    assert got.classes.coarse is not None
    assert got.classes.coarse.member[:, 0].tolist() == [True, True, False, False]
    assert membership(FITTED).sum(axis=0).tolist() == [2, 1, 1]
    # without the decision of the model the best label is the most probable one
    assert decide(p, classes, None).code.tolist() == [3, 3]


@pytest.fixture
def decided(worded: Any) -> Any:
    import copy

    out = copy.deepcopy(worded)
    out.update(annotation=FITTED)
    return out


def test_a_row_gets_a_cell_type_only_where_it_is_probable_else_its_region(
    section: Any, decided: Any, capfd: Any
) -> None:
    table = section["table"]
    sw.tl.zero_shot_annotate(section, model=decided, unknown="label")
    p = table.obsm["sw_label_probability"]
    assert p.shape == (120, 4)
    of_region = np.c_[p[:, :2].sum(1), p[:, 2:]]
    best = of_region.argmax(1)
    label = table.obs["sw_label"].astype(object).to_numpy()
    for row in range(120):
        own = p[row, [0, 1]] if best[row] == 0 else p[row, [best[row] + 1]]
        if own.max() >= 0.6:
            expected = (NAMES[:2] if best[row] == 0 else (NAMES[best[row] + 1],))[own.argmax()]
        elif best[row] == 0 and of_region[row, 0] >= 0.6:
            expected = "immune"
        else:
            expected = None
        assert (label[row] if isinstance(label[row], str) else None) == expected
    assert {"immune"} <= set(label) or (of_region[:, 0] < 0.6).all()
    missing = table.obs["sw_label"].isna()
    assert (table.obs["sw_label_reason"][missing] == "below min_confidence").all()
    record: Any = recorded(table, "sw_label")
    assert record["regions"] == list(REGIONS)
    assert record["min_confidence"] == 0.6
    assert f"{missing.sum()} rows get no label, because their confidence is below 0.60" in capfd.readouterr().err
    # scores stay cosines, which rank the rows
    flat: Any = sw.tl.zero_shot_annotate(section, list(NAMES)[::-1], model=decided, inplace=False)
    assert np.allclose(flat[list(NAMES)], table.obsm["sw_label_scores"], atol=1e-5)


def test_every_row_gets_a_cell_type_where_no_confidence_is_asked_for(section: Any, decided: Any) -> None:
    sw.tl.zero_shot_annotate(section, model=decided, unknown="label", min_confidence=0)
    label = section["table"].obs["sw_label"]
    assert label.notna().all()
    assert set(label) <= set(NAMES)
    assert (section["table"].obs["sw_label_margin"] >= 0).all()


@pytest.mark.parametrize("rollup", [False, True], ids=["regions", "rollup"])
def test_the_label_that_was_written_is_the_one_that_is_judged(
    section: Any, decided: Any, worded: Any, rollup: bool
) -> None:
    table = section["table"]
    options: Any = {"model": decided, "min_confidence": 0}
    if rollup:
        # no row is rolled up at so small a confidence, and labels are chosen along the tree
        options = {"model": worded, "hierarchy": sw.tl.Hierarchy(rollup=True), "min_confidence": 1e-6}
        options["labels"] = ["T cells", "B/plasma", "macrophage", "fat", "tumour"]
    sw.tl.zero_shot_annotate(section, unknown="label", **options)
    written = table.obs["sw_label"].astype(str).to_numpy()
    table.obs["truth"] = written
    top = sw.tl.top_labels(section, 2)
    assert (top["probability_2"] > top["probability_1"]).any(), "nothing to tell apart"
    assert top["label_1"].tolist() == written.tolist()
    assert np.allclose(top["probability_1"], table.obs["sw_label_confidence"])
    curve = sw.tl.abstention_curve(section, "truth")
    assert (curve["accuracy"] == 1).all()
    confidence = table.obs["sw_label_confidence"].to_numpy()
    for threshold, coverage in zip(curve["threshold"], curve["coverage"], strict=True):
        assert coverage == pytest.approx((confidence >= threshold).mean())
    assert sw.tl.evaluate_calibration(section, "truth").attrs["accuracy"] == 1
    assert sw.tl.evaluate_annotation(section, "truth").loc["macro", "accuracy"] == 1


def test_a_level_sums_what_was_calibrated(section: Any, decided: Any) -> None:
    fine: Any = sw.tl.zero_shot_annotate(section, model=decided, normalize="softmax", inplace=False)
    level = sw.tl.Hierarchy(level=["leukocyte"])
    coarse: Any = sw.tl.zero_shot_annotate(section, model=decided, hierarchy=level, inplace=False)
    assert np.allclose(coarse["leukocyte"], fine[["T cells", "B/plasma"]].sum(axis=1), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": (1.0,)}, "scale and offset need 3 values each, one for each region; found 1 and 3"),
        ({"scale": (1.0, -1.0, 1.0)}, r"scale\[1\] must be positive"),
        ({"labels": ("fat", "tumour")}, "regions must hold each label once"),
        ({"min_confidence": 1.5}, "min_confidence must be a number between 0 and 1"),
    ],
)
def test_a_decision_that_does_not_fit_its_labels_is_refused(changes: Any, message: str) -> None:
    from dataclasses import replace

    with pytest.raises(ValueError, match=message):
        replace(FITTED, **changes)


@pytest.mark.parametrize("regions", [{}, REGIONS], ids=["labels", "regions"])
def test_a_calibration_is_the_same_for_its_labels_in_another_order(regions: Any) -> None:
    values: Any = {} if regions else {"scale": (1.0, 2.0, 3.0, 4.0), "offset": (0.0, 0.1, 0.2, 0.3)}
    prompts = tuple((name, f"{name} of breast") for name in NAMES)
    fitted = replace(FITTED, regions=regions, prompts=prompts, **values)
    order = [2, 0, 3, 1]
    moved = fitted.in_order([NAMES[i] for i in order])
    assert moved.prompts == tuple(prompts[i] for i in order)
    rng = np.random.default_rng(0)
    cosines, of_regions = rng.normal(size=(6, 4)), rng.normal(size=(6, 3)) if regions else None
    there = label_probabilities(moved, cosines[:, order], of_regions)
    np.testing.assert_allclose(there, label_probabilities(fitted, cosines, of_regions)[:, order], atol=1e-6)


def test_labels_of_the_embedded_model_in_another_order_are_labelled_alike(section: Any) -> None:
    slide = section
    model: Any = sw.models.default_model()
    names = list(model.config.annotation.labels)
    first: Any
    again: Any
    first, again = (
        sw.tl.zero_shot_annotate(slide, labels, unknown="label", inplace=False) for labels in (names, names[::-1])
    )
    assert np.allclose(first, again[names], atol=1e-6)
    sw.tl.zero_shot_annotate(slide, names, unknown="label", key_added="first")
    sw.tl.zero_shot_annotate(slide, names[::-1], unknown="label", key_added="again")
    table = slide["table"]
    assert table.obs["first"].astype(str).tolist() == table.obs["again"].astype(str).tolist()
    assert np.allclose(table.obs["first_confidence"], table.obs["again_confidence"], atol=1e-6)
    record: Any = recorded(table, "again")
    assert record["calibrated"]


@pytest.mark.parametrize("normalize", ["none", "centre"])
def test_a_calibration_is_for_the_modality_that_it_was_fitted_for(
    section: Any, decided: Any, normalize: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted = replace(
        FITTED, modality="image", normalize=normalize, background="section" if normalize == "centre" else None
    )
    decided.update(annotation=fitted)
    table = section["table"]
    sw.tl.zero_shot_annotate(section, model=decided, modality="image", unknown="label")
    record: Any = recorded(table, "sw_label")
    assert (record["calibrated"], record["temperature"]) == (True, fitted.temperature)
    capsys.readouterr()
    sw.tl.zero_shot_annotate(section, model=decided, modality="gene", key_added="by_gene")
    assert "calibrated for image embeddings, so that confidence is not calibrated here" in capsys.readouterr().err
    record = recorded(table, "by_gene")
    assert (record["calibrated"], record["normalize"]) == (False, "none")
    assert record["temperature"] == pytest.approx(1 / decided.scale)
    assert table.obs["by_gene"].notna().all()
    # both answers are as sharp where they are compared
    sw.tl.agreement(section, model=decided)
    of_both: Any = recorded(table, "sw_label_agreement")
    assert len(set(of_both["temperature"].values())) == 1


def test_labels_that_a_calibration_is_not_for_are_said(section: Any, capsys: pytest.CaptureFixture[str]) -> None:
    slide = section
    model: Any = sw.models.default_model()
    names = list(model.config.annotation.labels)
    for labels, said in (
        (names[:3], "calibrated for other labels"),
        ({n: n for n in names}, "other words"),
        (names, ""),
    ):
        capsys.readouterr()
        sw.tl.zero_shot_annotate(slide, labels, unknown="label")
        assert ("calibrated for" in capsys.readouterr().err) == bool(said)
        record: Any = recorded(slide["table"], "sw_label")
        assert record["calibrated"] == (not said)
