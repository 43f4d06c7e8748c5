"""An annotation compared with the ground truth."""

from __future__ import annotations

import warnings
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score, roc_auc_score

import spatialwhisperer as sw
from spatialwhisperer._messages import SpatialWhispererWarning

CLASSES = ["a", "b", "c"]


def annotated(
    scores: np.ndarray, truth: Any = None, *, group: Any = None, classes: list[str] | None = None, label: Any = None
) -> Any:
    classes = classes or CLASSES
    n = len(scores)
    adata = ad.AnnData(np.zeros((n, 1), np.float32), obs=pd.DataFrame(index=[f"r{i}" for i in range(n)]))
    best = np.nan_to_num(scores, nan=-np.inf).argmax(1) if label is None else label
    adata.obs["sw_label"] = pd.Categorical.from_codes(best, categories=pd.Index(classes))
    adata.obsm["sw_label_scores"] = np.asarray(scores, np.float32)
    adata.uns["sw_label"] = {"classes": np.array(classes)}
    if truth is not None:
        adata.obs["truth"] = pd.Categorical(truth, categories=CLASSES)
    if group is not None:
        adata.obs["group"] = group
    return adata


@pytest.fixture
def random() -> Any:
    rng = np.random.default_rng(0)
    truth = np.array(CLASSES)[rng.integers(0, 3, 90)]
    scores = rng.normal(size=(90, 3)) + (truth[:, None] == np.array(CLASSES)) * 0.7
    scores[:, 0] = scores[:, 0].round()  # ties
    return annotated(scores, truth, group=np.repeat(["x", "y", "z"], [40, 30, 20]))


def test_figures_are_those_of_sklearn(random: Any) -> None:
    result = sw.tl.evaluate_annotation(random, "truth")
    truth, guess = random.obs["truth"].astype(str), random.obs["sw_label"].astype(str)
    scores = random.obsm["sw_label_scores"]
    for k, c in enumerate(CLASSES):
        row = result.loc[c]
        assert row["auroc"] == pytest.approx(roc_auc_score(truth == c, scores[:, k]))
        assert row["n_present"] == (truth == c).sum()
        for name, metric in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
            assert row[name] == pytest.approx(metric(truth == c, guess == c))
    macro = result.loc["macro"]
    assert macro["accuracy"] == pytest.approx(accuracy_score(truth, guess))
    assert macro["f1"] == pytest.approx(f1_score(truth, guess, average="macro"))
    assert macro["auroc"] == pytest.approx(result.loc[CLASSES, "auroc"].mean())
    assert "Table 2" in result.attrs["convention"]


def test_ties_count_half() -> None:
    adata = annotated(np.array([[1, 0], [1, 0], [1, 0], [0, 1]]), ["a", "a", "b", "b"], classes=["a", "b"])
    assert sw.tl.evaluate_annotation(adata, "truth")["auroc"]["a"] == 0.75


def test_the_mean_is_over_groups_then_over_classes(random: Any) -> None:
    tidy = sw.tl.evaluate_annotation(random, "truth", group_key="group", per_group=True)
    assert tidy.columns.tolist() == ["group", "class", "auroc", "n_present", "n"]
    assert len(tidy) == 9
    one = tidy.query("group == 'y' and `class` == 'b'").iloc[0]
    rows = (random.obs["group"] == "y").to_numpy()
    assert one["auroc"] == pytest.approx(
        roc_auc_score(random.obs["truth"][rows] == "b", random.obsm["sw_label_scores"][rows, 1])
    )
    assert one["n"] == 30
    result = sw.tl.evaluate_annotation(random, "truth", group_key="group")
    by_class = tidy.groupby("class")["auroc"].mean()
    assert np.allclose(result.loc[CLASSES, "auroc"], by_class[CLASSES])
    assert result["auroc"]["macro"] == pytest.approx(by_class.mean())
    assert result["auroc"]["macro"] != pytest.approx(sw.tl.evaluate_annotation(random, "truth")["auroc"]["macro"])


def test_undefined_aurocs_are_skipped(random: Any) -> None:
    """Class c is in group x alone: it has one AUROC there, and counts as nothing elsewhere."""
    keep = (random.obs["truth"] != "c") | (random.obs["group"] == "x")
    few = random[keep].copy()
    result = sw.tl.evaluate_annotation(few, "truth", group_key="group")
    assert result["n_groups"].to_dict() == {"a": 3, "b": 3, "c": 1, "macro": 3}
    tidy = sw.tl.evaluate_annotation(few, "truth", group_key="group", per_group=True)
    assert tidy.query("`class` == 'c'")["auroc"].isna().sum() == 2
    assert result["auroc"]["c"] == tidy.query("`class` == 'c' and group == 'x'")["auroc"].item()
    strict = sw.tl.evaluate_annotation(few, "truth", group_key="group", min_rows=9)
    assert strict["n_groups"]["a"] < 3


def test_unknown_and_unscored_rows_are_left_out(random: Any) -> None:
    random.obs.loc["r0", "truth"] = np.nan
    random.obsm["sw_label_scores"][1] = np.nan
    rest = random[2:].copy()
    pd.testing.assert_frame_equal(sw.tl.evaluate_annotation(random, "truth"), sw.tl.evaluate_annotation(rest, "truth"))


def test_a_row_that_abstained_counts_as_missed(random: Any) -> None:
    before = sw.tl.evaluate_annotation(random, "truth")
    correct = random.obs["sw_label"].astype(str) == random.obs["truth"].astype(str)
    random.obs.loc[correct.idxmax(), "sw_label"] = np.nan
    after = sw.tl.evaluate_annotation(random, "truth")
    assert after["accuracy"]["macro"] == pytest.approx(before["accuracy"]["macro"] - 1 / 90)
    assert after["auroc"]["macro"] == before["auroc"]["macro"]


def test_a_mapping_joins_other_names(random: Any) -> None:
    plain = sw.tl.evaluate_annotation(random, "truth")
    random.obs["other"] = random.obs["truth"].cat.rename_categories({"a": "A", "b": "B", "c": "C"})
    with pytest.raises(ValueError, match="Pass mapping="):
        sw.tl.evaluate_annotation(random, "other")
    got = sw.tl.evaluate_annotation(random, "other", mapping={"A": "a", "B": "b", "C": "c"})
    assert got.index.tolist() == ["A", "B", "C", "macro"]
    assert np.allclose(got.to_numpy(), plain.to_numpy(), equal_nan=True)
    two = sw.tl.evaluate_annotation(random, "other", mapping={"A": "a", "B": "b"})
    assert two.index.tolist() == ["A", "B", "macro"]
    with pytest.raises(ValueError, match="None of the true classes"):
        sw.tl.evaluate_annotation(random, "other", mapping={"A": "x"})


def test_classes_that_are_whole_numbers_are_mapped_by_them(random: Any) -> None:
    random.obs["number"] = random.obs["truth"].cat.codes.to_numpy()
    got = sw.tl.evaluate_annotation(random, "number", mapping=dict(enumerate(CLASSES)))
    plain = sw.tl.evaluate_annotation(random, "truth")
    assert got.loc[["0", "1", "2"], "f1"].tolist() == plain.loc[CLASSES, "f1"].tolist()
    with pytest.raises(ValueError, match=r"names a class twice \(found: 0, '0'\)"):
        sw.tl.evaluate_annotation(random, "number", mapping={0: "a", "0": "b"})


def test_two_true_classes_may_have_one_label(random: Any) -> None:
    """Both are compared with the same score; a row of either is correct when it gets the label."""
    got = sw.tl.evaluate_annotation(random, "truth", mapping={"a": "a", "b": "a"})
    truth, scores = random.obs["truth"].astype(str), random.obsm["sw_label_scores"]
    for c in "ab":
        assert got.loc[c, "auroc"] == pytest.approx(roc_auc_score(truth == c, scores[:, 0]))
    either = truth.isin(["a", "b"])
    assert got["accuracy"]["macro"] == pytest.approx((random.obs["sw_label"][either] == "a").mean())


def test_a_class_is_present_above_the_threshold_of_its_proportion() -> None:
    rng = np.random.default_rng(1)
    proportions = rng.dirichlet([1, 1, 1], 50).astype(np.float32)
    adata = annotated(proportions + rng.normal(0, 0.3, (50, 3)))
    adata.obsm["fraction"] = proportions
    adata.uns["fraction"] = {"classes": np.array(CLASSES)}
    for cut in (0.0, 0.4):
        defined = [c for k, c in enumerate(CLASSES) if 0 < (proportions[:, k] > cut).sum() < 50]
        got = sw.tl.evaluate_annotation(adata, "fraction", threshold=cut)
        for c in defined:
            k = CLASSES.index(c)
            expected = roc_auc_score(proportions[:, k] > cut, adata.obsm["sw_label_scores"][:, k])
            assert got.loc[c, "auroc"] == pytest.approx(expected)
    assert defined == CLASSES
    dominant = np.array(CLASSES)[proportions.argmax(1)]
    assert got["accuracy"]["macro"] == pytest.approx((adata.obs["sw_label"].astype(str) == dominant).mean())
    frame = pd.DataFrame(proportions, columns=CLASSES)
    same = sw.tl.evaluate_annotation(adata, frame, threshold=0.4)
    pd.testing.assert_frame_equal(got, same)
    present = sw.tl.evaluate_annotation(adata, frame > 0.4)
    assert np.allclose(present["auroc"], got["auroc"])
    adata.obsm["frame"] = frame.set_axis(adata.obs_names)
    pd.testing.assert_frame_equal(sw.tl.evaluate_annotation(adata, "frame", threshold=0.4), got)


def test_a_hub_prompt_ranks_well_and_labels_badly() -> None:
    """An offset of one label makes it the best of every row: AUROC does not change, accuracy does, centring removes it."""
    rng = np.random.default_rng(2)
    truth = np.array(CLASSES)[rng.integers(0, 3, 120)]
    z = np.eye(3)[[CLASSES.index(t) for t in truth]] + rng.normal(0, 0.2, (120, 3))
    hub = z + np.array([3.0, 0, 0])
    result = sw.tl.evaluate_annotation(annotated(hub, truth), "truth").loc["macro"]
    assert result["auroc"] > 0.95
    assert result["accuracy"] < 0.5
    centred = sw.tl.evaluate_annotation(annotated(hub - hub.mean(0), truth), "truth").loc["macro"]
    assert centred["auroc"] == pytest.approx(result["auroc"], abs=1e-6)
    assert centred["accuracy"] > 0.9


def test_sections_are_the_groups_by_default(section: Any, model: Any, labels: dict[str, str]) -> None:
    sw.tl.zero_shot_annotate(section, labels, model=model)
    tidy = sw.tl.evaluate_annotation(section, "cell_type_proportions", threshold=0.25, per_group=True)
    assert set(tidy["group"]) == {"P3_spots"}
    assert set(tidy["class"]) == set(labels)


@pytest.mark.parametrize(
    ("truth", "arguments", "error", "message"),
    [
        ("nowhere", {}, KeyError, r"neither in \.obs"),
        ("truth", {"key": "other"}, KeyError, r"Run sw\.tl\.zero_shot_annotate"),
        ("truth", {"group_key": "patient"}, KeyError, "group_key='patient'"),
        ("array", {}, KeyError, "without class names"),
        (pd.DataFrame({"a": [1.0]}), {}, ValueError, "truth has 1 rows, the table 90"),
        (3, {}, TypeError, "truth must be text or a DataFrame, not 3"),
    ],
)
def test_bad_arguments_are_refused(random: Any, truth: Any, arguments: Any, error: Any, message: str) -> None:
    random.obsm["array"] = np.zeros((90, 3))
    with pytest.raises(error, match=message):
        sw.tl.evaluate_annotation(random, truth, **arguments)


def test_a_known_truth_is_needed(random: Any) -> None:
    random.obs["truth"] = pd.Categorical([None] * 90, categories=CLASSES)
    with pytest.raises(ValueError, match="No row has both scores and a known truth"):
        sw.tl.evaluate_annotation(random, "truth")


def test_a_class_that_dominates_nowhere_has_an_auroc_alone(random: Any) -> None:
    proportions = pd.DataFrame({"b": np.linspace(0, 0.4, 90), "other": np.linspace(1, 0.6, 90)})
    got = sw.tl.evaluate_annotation(random, proportions, threshold=0.2)
    expected = roc_auc_score(proportions["b"] > 0.2, random.obsm["sw_label_scores"][:, 1])
    assert got["auroc"]["b"] == pytest.approx(expected)
    assert got.loc["b", ["precision", "recall", "f1"]].isna().all()
    assert np.isnan(got["accuracy"]["macro"])


def test_perfect_labels_get_one_where_a_class_dominates_nowhere() -> None:
    proportions = pd.DataFrame({"a": [0.9, 0.8, 0.1, 0.2], "b": [0.0, 0.0, 0.8, 0.7], "c": [0.1, 0.2, 0.1, 0.1]})
    perfect = annotated(proportions.to_numpy())
    got = sw.tl.evaluate_annotation(perfect, proportions, threshold=0.15)
    assert got["accuracy"]["macro"] == 1
    assert got["f1"]["macro"] == 1
    assert got.loc["c", ["precision", "recall", "f1"]].isna().all()


def test_a_class_that_no_row_has_changes_no_mean(random: Any) -> None:
    """Also where it has the label of another class."""
    mapping = {"a": "a", "b": "b", "c": "a"}
    some = random[(random.obs["truth"] != "c").to_numpy()].copy()
    some.obs["truth"] = some.obs["truth"].cat.remove_unused_categories()
    plain = sw.tl.evaluate_annotation(some, "truth", mapping=mapping)
    some.obs["truth"] = some.obs["truth"].cat.add_categories(["c"])
    got = sw.tl.evaluate_annotation(some, "truth", mapping=mapping)
    pd.testing.assert_frame_equal(got.drop(index="c"), plain)
    assert got.loc["c"].drop(["n_groups", "n_present"]).isna().all()
    shares = pd.DataFrame({c: np.where(some.obs["truth"] == c, 0.9, 0.1) for c in "abc"}, index=some.obs_names)
    never = sw.tl.evaluate_annotation(some, shares, mapping=mapping, threshold=0.5)
    assert never.loc["macro"].to_dict() == plain.loc["macro"].to_dict()


def test_classes_with_the_same_labels_count_once_in_the_means(random: Any) -> None:
    got = sw.tl.evaluate_annotation(random, "truth", mapping={"a": "a", "b": "b", "c": "a"})
    joined = random.obs["truth"].astype(str).replace("c", "a")
    guess = random.obs["sw_label"].astype(str)
    for name, metric in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
        expected = metric(joined, guess, labels=["a", "b"], average="macro")
        assert got[name]["macro"] == pytest.approx(expected)
        assert got[name]["a"] == got[name]["c"]
    assert got["auroc"]["macro"] == pytest.approx(got.loc[CLASSES, "auroc"].mean())


def test_classes_above_the_threshold_everywhere_or_nowhere_are_named(random: Any) -> None:
    """Abundances are never 0: with the default threshold no class has an AUROC."""
    values = np.random.default_rng(3).gamma(1, 1, (90, 3)) + 1e-3
    values[:, 2] = 0.0
    frame = pd.DataFrame(values, columns=CLASSES, index=random.obs_names)
    found = r"At threshold=0, .* no AUROC: a, b in every row \(pass a higher threshold=…\); c in none\. The mean"
    with pytest.warns(SpatialWhispererWarning, match=found) as caught:
        assert sw.tl.evaluate_annotation(random, frame)["auroc"].isna().all()
    assert len(caught) == 1
    with pytest.warns(
        SpatialWhispererWarning, match=r"At threshold=1, .* AUROC: c in none \(pass a lower threshold=…\)"
    ):
        sw.tl.evaluate_annotation(random, frame, threshold=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sw.tl.evaluate_annotation(random, frame[["a", "b"]], threshold=1.0)
        # what is stated has no threshold
        sw.tl.evaluate_annotation(random, frame > 0)


def test_rows_of_no_class_count_for_the_auroc_alone(random: Any) -> None:
    present = pd.DataFrame({name: np.asarray(random.obs["truth"] == name) for name in CLASSES}, index=random.obs_names)
    present.iloc[:30] = False
    got = sw.tl.evaluate_annotation(random, present)
    pd.testing.assert_frame_equal(got, sw.tl.evaluate_annotation(random, present[CLASSES[::-1]]).loc[got.index])
    some = random[30:].copy()
    for metric in ("recall", "precision", "f1", "accuracy"):
        np.testing.assert_allclose(got[metric], sw.tl.evaluate_annotation(some, "truth")[metric])
    expected = roc_auc_score(present["a"], random.obsm["sw_label_scores"][:, 0])
    assert got["auroc"]["a"] == pytest.approx(expected)


def test_a_class_that_is_called_none_is_not_an_unknown_one() -> None:
    adata = annotated(np.array([[3.0, 0, 0], [2, 1, 0], [1, 2, 0], [0, 3, 1]]))
    frame = pd.DataFrame({"a": [1, 1, 0, 0], "b": [0, 0, 0, 1], "None": [0, 0, 0, 0]})
    got = sw.tl.evaluate_annotation(adata, frame, mapping={"a": "a", "b": "b", "None": "c"})
    assert got["accuracy"]["macro"] == 1


def test_a_class_that_is_unknown_in_a_row_leaves_the_others_alone() -> None:
    adata = ad.AnnData(np.zeros((4, 0), np.float32))
    adata.obsm["sw_label_scores"] = np.array([[3, 0], [2, 1], [1, 2], [0, 3]], np.float32)
    adata.obs["sw_label"] = pd.Categorical(["a", "a", "b", "b"], categories=["a", "b"])
    adata.uns["sw_label"] = {"classes": np.array(["a", "b"])}
    truth = pd.DataFrame(
        {
            "a": pd.array([True, pd.NA, False, True], dtype="boolean"),
            "b": pd.array([False, False, True, True], dtype="boolean"),
        }
    )
    result = sw.tl.evaluate_annotation(adata, truth, per_group=True).set_index("class")
    assert result["n"].to_dict() == {"a": 3, "b": 4}
    assert result["auroc"].to_dict() == {"a": 0.5, "b": 1.0}


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "Float32", "Sparse[float32]"])
@pytest.mark.parametrize("threshold", [0.2, np.float64(0.3)])
def test_a_proportion_at_the_threshold_is_not_above_it_in_any_precision(dtype: Any, threshold: float) -> None:
    adata = annotated(np.random.default_rng(0).normal(size=(4, 3)))
    # 0.2 and 0.3 are larger in single precision than in double, 0.2 is smaller in half
    truth = pd.DataFrame({"a": [float(threshold)] * 3 + [0.4], "b": [0.5] * 4}, index=adata.obs_names)
    result = sw.tl.evaluate_annotation(adata, truth.astype(dtype), threshold=threshold)
    assert result["n_present"].to_dict() == {"a": 1, "b": 4, "macro": 5}
