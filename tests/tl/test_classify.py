"""Classes of rows that a classifier learns from a few labelled ones."""

from __future__ import annotations

import inspect
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spatialwhisperer._provenance import recorded
from spatialwhisperer.tl._tissue.probes import METHODS
from spatialwhisperer.tl.classify import classify
from spatialwhisperer.tl.evaluation.classes import evaluate_classes

CLASSES = ["stroma", "fat", "tumour/in situ"]


def untouched(adata: ad.AnnData) -> bool:
    return not [k for k in [*adata.obs, *adata.obsm, *adata.uns] if "sw_class" in k or k == "spatialwhisperer"]


@pytest.mark.parametrize("method", METHODS)
def test_a_new_patient_is_classified(patients: list[Any], method: Any, tmp_path: Any) -> None:
    new, *train = patients
    truth = new.obs.pop("label")
    new.obsm["X_sw_image"][3] = np.nan
    classify(new, labels_key="label", train=train, method=method)
    assert new.obs["sw_class"].cat.categories.tolist() == CLASSES
    assert np.flatnonzero(new.obs["sw_class"].isna()).tolist() == [3]
    assert np.isnan(new.obsm["sw_class_scores"][3]).all()
    assert np.isnan(new.obs["sw_class_confidence"].iloc[3])
    scores = np.delete(new.obsm["sw_class_scores"], 3, axis=0)
    assert scores.dtype == np.float32
    assert np.allclose(scores.sum(axis=1), 1, atol=1e-5)
    assert (new.obs["sw_class"].astype(object) == truth).mean() > 0.9
    record: Any = recorded(new, "sw_class")
    assert record["training_groups"] == ["B", "C", "D"]
    assert (record["method"], record["n_neighbors"]) == (method, 15 if method == "knn" else None)
    new.write_h5ad(tmp_path / "new.h5ad")
    again: Any = ad.read_h5ad(tmp_path / "new.h5ad")
    assert again.uns["sw_class"]["classes"].tolist() == CLASSES
    pd.testing.assert_series_equal(again.obs["sw_class"], new.obs["sw_class"])


def test_colours_of_other_classes_are_removed(patients: list[Any]) -> None:
    new, *train = patients
    for _ in range(2):
        classify(new, labels_key="label", train=train)
        colours = new.uns.setdefault("sw_class_colors", ["#111111"] * len(CLASSES))
    assert colours == ["#111111"] * len(CLASSES)
    classify(new, labels_key="label", train=train, ignore=[CLASSES[0]])
    assert "sw_class_colors" not in new.uns


def test_a_few_labels_of_the_object_itself_are_enough(patients: list[Any]) -> None:
    data = patients[0]
    truth = data.obs["label"].astype(str).to_numpy()
    hidden = np.ones(60, bool)
    hidden[[np.flatnonzero(truth == c)[i] for c in CLASSES for i in range(3)]] = False
    data.obs.loc[hidden, "label"] = np.nan
    classify(data, labels_key="label", method="prototypes")
    assert (data.obs["sw_class"].astype(str)[hidden] == truth[hidden]).mean() > 0.7
    facts: Any = recorded(data, "sw_class")
    assert facts["own_labels"] is True
    assert facts["training_rows"] == dict.fromkeys(CLASSES, 3)
    assert facts["penalty"] is None


def test_returned_scores_write_nothing_and_follow_the_seed(patients: list[Any]) -> None:
    new, *train = patients
    options: dict[str, Any] = {"labels_key": "label", "train": train, "n_shots": 2, "inplace": False}
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    a: Any = classify(new, **options)
    b: Any = classify(new, **options)
    other: Any = classify(new, **options, random_state=5)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    assert a.columns.tolist() == CLASSES
    assert a.index.equals(new.obs_names)
    pd.testing.assert_frame_equal(a, b)
    assert not np.allclose(a, other)
    assert untouched(new)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"labels_key": "tissue"}, KeyError, "labels_key='tissue' is not in .obs"),
        ({"use": "X_sw_gene"}, KeyError, r"Run sw\.tl\.embed"),
        ({"use": "X_scvi"}, KeyError, r"sw\.pp\.embed_genes\(data, 'scvi'\)"),
        ({"use": "X_uni"}, KeyError, r"Run sw\.pp\.embed_images"),
        ({"method": "forest"}, ValueError, "choose one of logistic, knn, prototypes"),
        ({"n_shots": 0}, ValueError, "n_shots must be a positive whole number"),
        ({"ignore": "fat"}, TypeError, "must be a list"),
        ({"key_added": "label"}, ValueError, "is the column of known labels"),
        ({"ignore": CLASSES[:2]}, ValueError, "At least two classes are needed"),
    ],
)
def test_bad_arguments_are_refused(patients: list[Any], options: Any, error: Any, message: str) -> None:
    new, *train = patients
    with pytest.raises(error, match=message):
        classify(new, **{"labels_key": "label", "train": train} | options)
    assert untouched(new)


def test_a_patient_in_both_data_and_train_is_refused(patients: list[Any]) -> None:
    new, *train = patients
    train[0].obs["patient"] = "A"
    with pytest.raises(ValueError, match="patient A is both in data and in train"):
        classify(new, labels_key="label", train=train)
    with pytest.raises(ValueError, match="data is also in train"):
        classify(new, labels_key="label", train=patients)
    assert untouched(new)
    classify(new, labels_key="label", train=train, allow_overlap=True)
    train[0].obsm["X_sw_image"] = np.zeros((60, 2))
    with pytest.raises(ValueError, match="not embedded by the same model"):
        classify(new, labels_key="label", train=train, allow_overlap=True)
    with pytest.raises(ValueError, match="6 columns in data and 2 in train"):
        classify(new, labels_key="label", train=train[0], allow_overlap=True)


def test_a_patient_is_known_whatever_the_type_of_its_number(patients: list[Any]) -> None:
    new, *train = patients
    for number, one in enumerate(patients):
        one.obs["donor"] = number
    new.obs["donor"] = [1.0] * 59 + [np.nan]
    with pytest.raises(ValueError, match="donor 1 is both in data and in train"):
        classify(new, labels_key="label", train=train, group_key="donor")


def test_a_class_is_known_whatever_the_type_of_its_number(patients: list[Any]) -> None:
    new, *train = patients
    for one in train:
        one.obs["code"] = (one.obs["label"] == CLASSES[1]).astype(int)
    train[0].obs.loc[train[0].obs_names[0], "code"] = np.nan
    found = classify(new, labels_key="code", train=train, inplace=False)
    assert found is not None
    assert found.columns.tolist() == ["0", "1"]


def test_rows_in_both_data_and_train_are_refused_without_a_patient_too(patients: list[Any]) -> None:
    new, *train = patients
    for one in patients:
        del one.obs["patient"]
        one.obs_names = [f"spot-{i}" for i in range(one.n_obs)]
    classify(new, labels_key="label", train=train)
    again = [*train, new.copy()]
    with pytest.raises(ValueError, match="60 of the 60 rows of data are also in train"):
        classify(new, labels_key="label", train=again)
    classify(new, labels_key="label", train=again, allow_overlap=True)


@pytest.mark.parametrize("method", METHODS)
def test_neither_the_type_of_the_labels_nor_the_order_of_objects_matters(patients: list[Any], method: Any) -> None:
    new, *train = patients
    options: dict[str, Any] = {"labels_key": "label", "method": method, "n_shots": 3, "inplace": False}
    for one in train:
        one.obsm["X_sw_image"] = np.round(one.obsm["X_sw_image"])  # ties
        one.obs["label"] = pd.Categorical(one.obs["label"], categories=CLASSES[::-1])
    a: Any = classify(new, train=train, **options)
    for one in train:
        one.obs["label"] = one.obs["label"].astype(object)
    b: Any = classify(new, train=train[::-1], **options)
    assert a.columns.tolist() == CLASSES[::-1]
    assert b.columns.tolist() == sorted(CLASSES)
    pd.testing.assert_frame_equal(a[b.columns], b, atol=1e-5)
    assert (a.idxmax(axis=1) == b.idxmax(axis=1)).all()


def test_the_number_of_neighbours_that_voted_is_recorded(patients: list[Any]) -> None:
    new, *train = patients
    truth = new.obs["label"].astype(object)
    classify(new, labels_key="label", train=train, method="knn", n_shots=5)
    record: Any = recorded(new, "sw_class")
    assert record["n_neighbors"] == 5
    assert (new.obs["sw_class"].astype(object) == truth).mean() > 0.7


def test_undetermined_is_no_class_unless_asked_for(patients: list[Any]) -> None:
    new, *train = patients
    for one in train:
        one.obs["label"] = one.obs["label"].astype(object)
        one.obs.loc[one.obs_names[:20], "label"] = "undetermined"
    classify(new, labels_key="label", train=train)
    assert new.obs["sw_class"].cat.categories.tolist() == sorted(CLASSES)
    found: Any = classify(new, labels_key="label", train=train, ignore=(), inplace=False)
    assert "undetermined" in found
    # the classes are those that are measured
    default = {f: inspect.signature(f).parameters["ignore"].default for f in (classify, evaluate_classes)}
    assert default[classify] == default[evaluate_classes]
