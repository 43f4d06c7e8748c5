"""How far batches are apart in an embedding, and how far labels are."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spatialwhisperer.tl.evaluation.batches import (
    _batch_accuracy,
    _expected_entropy,
    _label_accuracy,
    batch_report,
)


@pytest.fixture
def objects() -> list[Any]:
    rng = np.random.default_rng(0)
    out = []
    for i, name in enumerate("AB"):
        label = rng.integers(0, 2, 100 + 50 * i)
        obs = pd.DataFrame({"patient": name, "label": np.array(["x", "y"])[label]})
        obs.index = [f"{name}{j}" for j in range(len(obs))]
        adata = ad.AnnData(np.zeros((len(obs), 1), np.float32), obs=obs)
        noise = rng.normal(size=(len(obs), 4))
        adata.obsm["mixed"] = noise + 5 * np.eye(4)[label]
        adata.obsm["apart"] = noise + 5 * np.eye(4)[label] + 20 * i * np.eye(4)[3]
        out.append(adata)
    return out


def test_mixed_batches_differ_from_separate_ones(objects: list[Any]) -> None:
    report = batch_report(objects, batch_key="patient", embedding=["mixed", "apart"], labels_key="label", k=15)
    mixed, apart = report.loc["mixed"], report.loc["apart"]
    assert mixed["mixing"] == pytest.approx(1, abs=0.05)
    assert mixed["mixing_within_labels"] == pytest.approx(1, abs=0.05)
    assert mixed["entropy"] > 0.9
    assert mixed["batch_accuracy"] == pytest.approx(0.5, abs=0.1)
    assert abs(mixed["batch_silhouette"]) < 0.05
    assert apart["mixing"] < 0.02
    assert apart["entropy"] < 0.02
    assert apart["batch_accuracy"] == 1
    assert apart["batch_silhouette"] > 0.2
    assert (report["batch_chance"] == 0.5).all()
    assert mixed["label_accuracy"] > 0.95
    assert mixed["label_silhouette"] > apart["label_silhouette"]
    assert report.attrs["batch_label_nmi"] < 0.05
    assert report.attrs["n"] == 250


def test_randomly_placed_rows_have_an_entropy_of_one() -> None:
    rng = np.random.default_rng(0)
    adata = ad.AnnData(np.zeros((600, 1), np.float32))
    adata.obsm["noise"] = rng.normal(size=(600, 4))
    adata.obs["batch"] = rng.choice(8, 600, p=[0.3, 0.2, *[1 / 12] * 6])
    for k in (2, 5, 30):
        report = batch_report(adata, batch_key="batch", embedding="noise", k=k)
        assert report["entropy"]["noise"] == pytest.approx(1, abs=0.04)
    assert np.isnan(batch_report(adata, batch_key="batch", embedding="noise", k=1)["entropy"]["noise"])


def test_the_expected_entropy_is_that_of_all_draws() -> None:
    from itertools import combinations

    batch = np.array([0, 0, 0, 1, 1, 2])
    found = []
    for own in range(6):
        for drawn in combinations([i for i in range(6) if i != own], 3):
            p = np.bincount(batch[list(drawn)]) / 3
            found.append(-(p[p > 0] * np.log(p[p > 0])).sum())
    assert _expected_entropy(np.bincount(batch), 3) == pytest.approx(np.mean(found))


def test_a_label_of_a_single_batch_does_not_count(objects: list[Any]) -> None:
    both = batch_report(objects, batch_key="patient", embedding="mixed", labels_key="label", k=15)
    alone = objects[0].copy()
    alone.obs_names = [f"C{i}" for i in range(alone.n_obs)]
    alone.obs["label"] = "z"
    alone.obsm["mixed"] = alone.obsm["mixed"] + 50
    options: Any = {"batch_key": "patient", "embedding": "mixed", "k": 15}
    report = batch_report([*objects, alone], labels_key="label", **options)
    assert report["label_accuracy"]["mixed"] == pytest.approx(both["label_accuracy"]["mixed"], abs=0.01)
    assert report["label_chance"]["mixed"] == 0.5
    for one in objects:
        one.obs["label"] = "of " + one.obs["patient"].astype(str)
    apart = batch_report(objects, labels_key="label", **options)
    assert apart[["label_accuracy", "label_chance"]].isna().all(axis=None)


def test_a_batch_that_is_a_label_is_no_batch_effect(objects: list[Any]) -> None:
    """Patient A is nearly all x and B nearly all y: they are apart as a whole and mixed within the labels."""
    for i, one in enumerate(objects):
        rng = np.random.default_rng(i)
        label = np.where(rng.random(one.n_obs) < 0.9, i, 1 - i)
        one.obs["label"] = np.array(["x", "y"])[label]
        one.obsm["mixed"] = rng.normal(size=(one.n_obs, 4)) + 8 * np.eye(4)[label]
    report = batch_report(objects, batch_key="patient", embedding="mixed", labels_key="label", k=10)
    assert report["mixing"]["mixed"] < 0.5
    assert report["mixing_within_labels"]["mixed"] > 0.8
    assert report.attrs["batch_label_nmi"] > 0.3


def test_rows_with_nan_and_ignored_labels_are_left_out(objects: list[Any]) -> None:
    objects[0].obsm["mixed"][:7] = np.nan
    objects[1].obs.loc[objects[1].obs_names[0], "label"] = np.nan
    objects[1].obs.loc[objects[1].obs_names[1], "label"] = "undetermined"
    report = batch_report(objects, batch_key="patient", embedding="mixed", labels_key="label")
    assert report.attrs["n"] == 243
    assert report["label_chance"]["mixed"] == 0.5
    few = batch_report(objects, batch_key="patient", embedding="mixed", max_rows=80)
    assert few.attrs["n"] == 80
    assert "label_accuracy" not in few
    pd.testing.assert_frame_equal(few, batch_report(objects, batch_key="patient", embedding="mixed", max_rows=80))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_key": "donor"}, KeyError, "batch_key='donor'"),
        ({"embedding": "X_scvi"}, KeyError, "'X_scvi' is not in .obsm of object 0"),
        ({"embedding": []}, ValueError, "embedding is an empty list"),
        ({"k": 250}, ValueError, "250 have a batch"),
        ({"labels_key": "one"}, ValueError, "fewer than two known labels"),
        ({"batch_key": "one"}, ValueError, "one batch only"),
    ],
)
def test_bad_arguments_are_refused(objects: list[Any], options: Any, error: Any, message: str) -> None:
    for one in objects:
        one.obs["one"] = "same"
    with pytest.raises(error, match=message):
        batch_report(objects, **{"batch_key": "patient", "embedding": "mixed"} | options)


def test_a_column_that_names_rows_groups_none(objects: list[Any]) -> None:
    for adata in objects:
        adata.obs["row"] = adata.obs_names
    several: list[dict[str, Any]] = [{"labels_key": "row", "batch_key": "patient"}, {"batch_key": "row"}]
    for options in several:
        with pytest.raises(ValueError, match="'row' has another value in each of the 250 rows"):
            batch_report(objects, embedding="mixed", k=5, **options)


def test_two_rows_of_each_batch_are_enough_to_tell_batches_apart() -> None:
    x = np.array([[0.0], [0.1], [9.0], [9.1]])
    assert _batch_accuracy(x, np.array([0, 0, 1, 1]), 0) == 1.0
    assert np.isnan(_batch_accuracy(x, np.array([0, 0, 0, 1]), 0))


def test_tied_votes_do_not_depend_on_the_order_of_rows() -> None:
    # two neighbours of each row in the other batch, of two labels: a tie everywhere
    x = np.array([[0.0], [0.1], [0.2], [0.31]])
    batch, label = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]):
        for names in (label, 1 - label):
            assert _label_accuracy(x[order], batch[order], names[order], 2, np.array([0, 1])) == 0.5
    # a row whose label has no vote among two that are tied is wrong
    three = np.array([2, 2, 0, 1])
    assert _label_accuracy(x, batch, three, 2, np.arange(3)) == 0


def test_the_label_accuracy_is_that_of_sklearn_without_ties(objects: list[Any]) -> None:
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.neighbors import KNeighborsClassifier

    x = np.concatenate([o.obsm["mixed"][:, :2] for o in objects])
    label = np.concatenate([(o.obs["label"] == "y").to_numpy().astype(int) for o in objects])
    batch = np.repeat([0, 1], [o.n_obs for o in objects])
    guess = np.empty_like(label)
    for b in (0, 1):
        guess[batch == b] = KNeighborsClassifier(7).fit(x[batch != b], label[batch != b]).predict(x[batch == b])
    assert _label_accuracy(x, batch, label, 7, np.array([0, 1])) == pytest.approx(balanced_accuracy_score(label, guess))
