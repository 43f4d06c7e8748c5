"""Classes that are predicted in left-out patients."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, precision_recall_fscore_support

from spatialwhisperer.tl.classify import classify
from spatialwhisperer.tl.evaluation.classes import confusions, evaluate_classes

CLASSES = ["stroma", "fat", "tumour/in situ"]


def test_predictions_of_left_out_patients_are_pooled(patients: list[Any]) -> None:
    patients[1].obsm["X_sw_image"][5] = np.nan
    patients[2].obs.loc[patients[2].obs_names[:4], "label"] = np.nan
    result = evaluate_classes(patients, labels_key="label", key_added="guess", intervals=True)
    truth = pd.concat([p.obs["label"] for p in patients]).astype(object)
    guess = pd.concat([p.obs["guess"] for p in patients]).astype(object)
    judged = truth.notna() & guess.notna()
    assert judged.sum() == 235
    assert guess.isna().sum() == 5
    assert result["n"]["macro"] == 235
    expected = f1_score(truth[judged].astype(str), guess[judged].astype(str), labels=CLASSES, average=None)
    assert np.allclose(result.loc[CLASSES, "f1"], expected)
    assert result["f1"]["macro"] == pytest.approx(expected.mean())
    assert result["f1_low"]["macro"] <= result["f1"]["macro"] <= result["f1_high"]["macro"]
    assert result["accuracy"]["macro"] == pytest.approx((truth[judged] == guess[judged]).mean())
    assert result["balanced_accuracy"]["majority"] < 0.5
    assert result["auroc"]["macro"] > 0.95
    assert "Leave one group out" in result.attrs["convention"]
    # each patient was predicted by the others alone
    one = patients[0].copy()
    classify(one, labels_key="label", train=patients[1:])
    assert one.obs["sw_class"].tolist() == patients[0].obs["guess"].tolist()


def test_no_table_is_written_where_one_has_a_column_of_that_name(patients: list[Any]) -> None:
    patients[1].obs["mine"] = 1
    with pytest.raises(ValueError, match=r"would replace \.obs\['mine'\]"):
        evaluate_classes(patients, labels_key="label", key_added="mine")
    assert "mine" not in patients[0].obs


def test_figures_of_imperfect_predictions_are_those_of_sklearn(patients: list[Any]) -> None:
    """With few fat rows that are often taken for stroma, precision and recall of both differ."""
    rng = np.random.default_rng(1)
    for p in patients:
        p.obsm["noisy"] = p.obsm["X_sw_image"] + rng.normal(0, 2.5, p.obsm["X_sw_image"].shape)
        rare = (p.obs["label"] != "fat") | (np.arange(p.n_obs) % 4 == 0)
        p.obs["label"] = p.obs["label"].where(rare)
    result = evaluate_classes(patients, labels_key="label", use="noisy", method="knn", key_added="guess")
    obs = pd.concat([p.obs for p in patients])
    known = obs["label"].notna()
    truth, guess = (obs.loc[known, name].astype(str) for name in ("label", "guess"))
    precision, recall, f1, n = precision_recall_fscore_support(truth, guess, labels=CLASSES, zero_division=0)
    assert abs(precision - recall).max() > 0.05
    assert np.allclose(result.loc[CLASSES, "precision"], precision)
    assert np.allclose(result.loc[CLASSES, "recall"], recall)
    assert result.loc[CLASSES, "n"].tolist() == n.tolist()
    macro = result.loc["macro"]
    assert list(macro[["precision", "recall", "f1"]]) == pytest.approx([precision.mean(), recall.mean(), f1.mean()])
    assert macro["balanced_accuracy"] == pytest.approx(recall.mean())
    assert macro["accuracy"] == pytest.approx((truth == guess).mean())
    assert macro["n_groups"] == 4


def test_embeddings_are_compared_on_the_same_groups(patients: list[Any]) -> None:
    rng = np.random.default_rng(0)
    for p in patients:
        p.obsm["noise"] = rng.normal(size=(60, 4))
        p.obsm["same"] = p.obsm["X_sw_image"]
    result = evaluate_classes(
        patients, labels_key="label", use=["X_sw_image", "noise", "same"], method="knn", intervals=True
    )
    assert result.index.names == ["use", "class"]
    noise: Any = result.loc[("noise", "macro")]
    same: Any = result.loc[("same", "macro")]
    assert noise["f1_gain_high"] < -0.2
    assert same["f1_gain"] == 0
    assert np.isnan(same["f1_gain_low"])
    again = evaluate_classes(patients, labels_key="label", use="noise", method="knn", intervals=True)
    assert again["f1_low"]["macro"] == noise["f1_low"]


def test_an_interval_of_a_gain_ends_where_a_gain_does(patients: list[Any]) -> None:
    """What is learnt from two patients is the opposite in the third, and in the fourth."""
    for p, sign in zip(patients, (1, 1, -1, -1), strict=True):
        p.obsm["turned"] = sign * p.obsm["X_sw_image"]
    uses = ["X_sw_image", "turned"]
    result = evaluate_classes(patients[:3], labels_key="label", use=uses, method="knn", n_neighbors=40, intervals=True)
    turned: Any = result.loc[("turned", "macro")]
    assert -1 < turned["f1_gain"] < 0
    assert turned["f1_gain_low"] == -1


def test_a_class_of_a_single_patient_counts_as_missed(patients: list[Any]) -> None:
    rare = patients[0].obs["label"].cat.add_categories("glands")
    rare.iloc[:10] = "glands"
    patients[0].obs["label"] = rare
    result = evaluate_classes(patients, labels_key="label", n_shots=5)
    assert list(result.loc["glands", ["n", "n_groups", "f1"]]) == [10, 1, 0]
    assert evaluate_classes(patients, labels_key="label", ignore=["glands"])["n"]["macro"] == 230


def test_groups_that_cannot_be_left_out_are_refused(patients: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"All labelled rows are of one patient \(A\).*group_key='section'"):
        evaluate_classes(patients[0], labels_key="label")
    two = patients[:2]
    two[1].obs["label"] = "fat"
    with pytest.raises(ValueError, match="Without patient A fewer than two classes"):
        evaluate_classes(two, labels_key="label")
    with pytest.raises(KeyError, match="group_key='donor' is not in .obs of object 0.*section"):
        evaluate_classes(patients, labels_key="label", group_key="donor")
    with pytest.raises(ValueError, match="holds the predictions of one key"):
        evaluate_classes(patients, labels_key="label", use=["a", "b"], key_added="guess")
    with pytest.raises((TypeError, ValueError), match="intervals"):
        evaluate_classes(patients, labels_key="label", intervals=50)  # type: ignore[arg-type]


@pytest.mark.slow
def test_real_patients_tell_more_than_the_majority(data_folder: Any) -> None:
    import spatialwhisperer as sw

    tables = [ad.read_h5ad(data_folder / "her2st" / s / "counts.h5ad") for s in ("A1", "B1", "D1")]
    encoder = sw.pp.fit_gene_encoder(tables, "pca", n_latent=10)
    for table in tables:
        sw.pp.embed_genes(table, encoder)
    result = evaluate_classes(tables, labels_key="pathologist_label", use="X_pca")
    assert "undetermined" not in result.index
    assert result["f1"]["macro"] > result["f1"]["majority"]


def test_rows_are_counted_by_group_true_class_and_predicted_class() -> None:
    table = confusions(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), np.array([0, 0, 0, 1]), 2)
    assert table.tolist() == [[[1, 1], [0, 1]], [[0, 0], [0, 1]]]


@pytest.mark.parametrize(
    ("key", "remedy"),
    [("section", ""), ("patient", " Pass group_key='section' to leave sections out instead, and say so.")],
)
def test_groups_that_cannot_be_left_out_are_refused_with_a_remedy(key: str, remedy: str) -> None:
    from spatialwhisperer.tl.evaluation.classes import _check_groups

    y = np.array(["a", "a", "b"])
    with pytest.raises(
        ValueError, match=rf"of one {key} \(s\): there is none to leave out\.{remedy} Or pass more objects"
    ):
        _check_groups(np.array(["s", "s", "s"], object), y, key)
    with pytest.raises(
        ValueError, match=rf"Without {key} s, t fewer than two classes are left to learn from\.{remedy}$"
    ):
        _check_groups(np.array(["s", "s", "t"], object), y, key)
    with pytest.raises(ValueError, match="missing in labelled rows"):
        _check_groups(np.array(["s", None, "t"], object), y, key)
    _check_groups(np.array(["s", "t", "s", "t"], object), np.array(["a", "a", "b", "b"]), key)


def test_a_patient_in_two_objects_is_one_group_whatever_the_type_of_its_number(patients: list[Any]) -> None:
    for one, number in zip(patients, (1, 2, 1.0, 3), strict=True):
        one.obs["donor"] = number
    result = evaluate_classes(patients, labels_key="label", group_key="donor")
    assert result["n_groups"]["macro"] == 3


def test_a_section_that_is_there_twice_is_refused(patients: list[Any]) -> None:
    copied = patients[0].copy()
    copied.obs["patient"] = "E"
    with pytest.raises(ValueError, match="patient A, E hold the same rows"):
        evaluate_classes([*patients, copied], labels_key="label")
    copied.obs["patient"] = "A"
    evaluate_classes([*patients, copied], labels_key="label")
    # names alone repeat between sections
    for one in patients:
        one.obs_names = [f"spot-{i}" for i in range(one.n_obs)]
    evaluate_classes(patients, labels_key="label")


@pytest.mark.parametrize("n_shots", [None, 4])
def test_scores_do_not_depend_on_the_order_of_objects_and_rows(n_shots: int | None) -> None:
    rng = np.random.default_rng(1)
    made = []
    for i in range(6):
        x = rng.normal(size=(30, 12))
        label = np.where(x[:, 0] + 1.5 * rng.normal(size=30) > 0, "a", "b")
        obs = pd.DataFrame({"patient": f"p{i}", "label": label}, index=[f"p{i}_{j}" for j in range(30)])
        table = ad.AnnData(np.ones((30, 2), np.float32), obs=obs)
        table.obsm["X_f"] = x + rng.normal(size=12)
        made.append(table)
    shuffled = [made[i][rng.permutation(30)].copy() for i in (4, 0, 5, 2, 1, 3)]
    options: dict[str, Any] = {"labels_key": "label", "use": "X_f", "n_shots": n_shots}
    one, other = (evaluate_classes(x, **options).loc["macro", ["f1", "auroc"]] for x in (made, shuffled))
    assert one.to_numpy(float) == pytest.approx(other.to_numpy(float), abs=1e-6)
