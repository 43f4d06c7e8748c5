from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from spatialwhisperer._provenance import recorded
from spatialwhisperer.tl._tissue.probes import METHODS, choose_penalty, fit_probe, take_shots
from spatialwhisperer.tl.classify import classify
from spatialwhisperer.tl.evaluation.classes import evaluate_classes

CLASSES = ["stroma", "fat", "tumour/in situ"]


def patient(name: str, n: int = 60, seed: int = 0, spread: float = 0.6) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    x = np.eye(6)[y] * 2 + rng.normal(0, spread, (n, 6))
    obs = pd.DataFrame({"patient": name, "label": pd.Categorical(np.array(CLASSES)[y], categories=CLASSES)})
    obs.index = [f"{name}{i}" for i in range(n)]
    adata = ad.AnnData(np.zeros((n, 1), np.float32), obs=obs)
    adata.obsm["X_sw_image"] = x.astype(np.float32)
    return adata


@pytest.fixture
def patients() -> list[ad.AnnData]:
    return [patient(name, seed=i) for i, name in enumerate("ABCD")]


def untouched(adata: ad.AnnData) -> bool:
    return not [k for k in [*adata.obs, *adata.obsm, *adata.uns] if "sw_class" in k or k == "spatialwhisperer"]


@pytest.mark.parametrize("method", METHODS)
def test_a_new_patient(patients: list[ad.AnnData], method: Any, tmp_path: Any) -> None:
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
    assert recorded(new, "sw_class")["groups_learnt_from"] == ["B", "C", "D"]
    new.write_h5ad(tmp_path / "new.h5ad")
    again = ad.read_h5ad(tmp_path / "new.h5ad")
    assert again.uns["sw_class"]["classes"].tolist() == CLASSES
    pd.testing.assert_series_equal(again.obs["sw_class"], new.obs["sw_class"])


def test_colours_of_other_classes_go(patients: list[ad.AnnData]) -> None:
    new, *train = patients
    for _ in range(2):
        classify(new, labels_key="label", train=train)
        colours = new.uns.setdefault("sw_class_colors", ["#111111"] * len(CLASSES))
    assert colours == ["#111111"] * len(CLASSES)
    classify(new, labels_key="label", train=train, ignore=[CLASSES[0]])
    assert "sw_class_colors" not in new.uns


def test_few_labels_of_the_object_itself(patients: list[ad.AnnData]) -> None:
    data = patients[0]
    truth = data.obs["label"].astype(str).to_numpy()
    hidden = np.ones(60, bool)
    hidden[[np.flatnonzero(truth == c)[i] for c in CLASSES for i in range(3)]] = False
    data.obs.loc[hidden, "label"] = np.nan
    classify(data, labels_key="label", method="prototypes")
    assert (data.obs["sw_class"].astype(str)[hidden] == truth[hidden]).mean() > 0.7
    facts = recorded(data, "sw_class")
    assert facts["own_labels"] is True
    assert facts["rows_learnt_from"] == dict.fromkeys(CLASSES, 3)
    assert facts["penalty"] is None


def test_returned_scores_write_nothing_and_shots_are_seeded(patients: list[ad.AnnData]) -> None:
    new, *train = patients
    options: dict[str, Any] = {"labels_key": "label", "train": train, "n_shots": 2, "inplace": False}
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    a = classify(new, **options)
    b = classify(new, **options)
    other = classify(new, **options, random_state=5)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    assert a is not None
    assert other is not None
    assert a.columns.tolist() == CLASSES
    assert a.index.equals(new.obs_names)
    pd.testing.assert_frame_equal(a, b)
    assert not np.allclose(a, other)
    assert untouched(new)


def test_shots_are_taken_from_every_class() -> None:
    y = np.array([0] * 10 + [1] * 2 + [2] * 5)
    assert np.bincount(y[take_shots(y, 4, 0)]).tolist() == [4, 2, 4]
    assert take_shots(y, None, 0).tolist() == list(range(17))


def test_the_penalty_is_chosen_across_groups() -> None:
    """A column that tells the class in each group, with a sign of its own, must not be trusted."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400)
    groups = np.repeat(np.arange(4), 100)
    x = rng.normal(size=(400, 30))
    x[:, 0] += 1.5 * y
    assert choose_penalty(x, y, groups, n_classes=2, random_state=0) in (1e-3, 1e-2, 1e-1, 1.0)
    alone = choose_penalty(x, y, np.zeros(400), n_classes=2, random_state=0)
    assert alone == 1e-2
    strong = fit_probe(x, y, groups, n_classes=3)
    assert strong.score(x).shape == (400, 3)
    assert (strong.score(x)[:, 2] == 0).all()


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
        ({"ignore": CLASSES[:2]}, ValueError, "At least two classes are needed"),
    ],
)
def test_what_is_refused(patients: list[ad.AnnData], options: Any, error: Any, message: str) -> None:
    new, *train = patients
    with pytest.raises(error, match=message):
        classify(new, **{"labels_key": "label", "train": train} | options)
    assert untouched(new)


def test_a_patient_on_both_sides(patients: list[ad.AnnData]) -> None:
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


def test_pooled_scores_of_left_out_patients(patients: list[ad.AnnData]) -> None:
    patients[1].obsm["X_sw_image"][5] = np.nan
    patients[2].obs.loc[patients[2].obs_names[:4], "label"] = np.nan
    result = evaluate_classes(patients, labels_key="label", key_added="guess", bootstrap=50)
    truth = pd.concat([p.obs["label"] for p in patients]).astype(object)
    guess = pd.concat([p.obs["guess"] for p in patients]).astype(object)
    judged = truth.notna() & guess.notna()
    assert judged.sum() == 235
    assert guess.isna().sum() == 5
    assert result.loc["macro", "n"] == 235
    expected = f1_score(truth[judged].astype(str), guess[judged].astype(str), labels=CLASSES, average=None)
    assert np.allclose(result.loc[CLASSES, "f1"], expected)
    assert result.loc["macro", "f1"] == pytest.approx(expected.mean())
    assert result.loc["macro", "f1_low"] <= result.loc["macro", "f1"] <= result.loc["macro", "f1_high"]
    assert result.loc["macro", "accuracy"] == pytest.approx((truth[judged] == guess[judged]).mean())
    assert result.loc["majority", "balanced_accuracy"] < 0.5
    assert result.loc["macro", "auroc"] > 0.95
    assert "Leave one group out" in result.attrs["convention"]
    # each patient was predicted by the others alone
    one = patients[0].copy()
    classify(one, labels_key="label", train=patients[1:])
    assert one.obs["sw_class"].tolist() == patients[0].obs["guess"].tolist()


def test_slots_are_compared_on_the_same_resamples(patients: list[ad.AnnData]) -> None:
    rng = np.random.default_rng(0)
    for p in patients:
        p.obsm["noise"] = rng.normal(size=(60, 4))
        p.obsm["same"] = p.obsm["X_sw_image"]
    result = evaluate_classes(
        patients, labels_key="label", use=["X_sw_image", "noise", "same"], method="knn", bootstrap=50
    )
    assert result.index.names == ["use", "class"]
    noise, same = result.loc[("noise", "macro")], result.loc[("same", "macro")]
    assert noise["f1_gain_high"] < -0.2
    assert same[["f1_gain", "f1_gain_low", "f1_gain_high"]].tolist() == [0, 0, 0]
    again = evaluate_classes(patients, labels_key="label", use="noise", method="knn", bootstrap=50)
    assert again.loc["macro", "f1_low"] == noise["f1_low"]


def test_a_class_of_one_patient_is_missed(patients: list[ad.AnnData]) -> None:
    rare = patients[0].obs["label"].cat.add_categories("glands")
    rare.iloc[:10] = "glands"
    patients[0].obs["label"] = rare
    result = evaluate_classes(patients, labels_key="label", n_shots=5)
    assert result.loc["glands", ["n", "n_groups", "f1"]].tolist() == [10, 1, 0]
    assert evaluate_classes(patients, labels_key="label", ignore=["glands"]).loc["macro", "n"] == 230


def test_groups_that_cannot_be_left_out(patients: list[ad.AnnData]) -> None:
    with pytest.raises(ValueError, match=r"All labelled rows are of one patient \(A\).*group_key='section'"):
        evaluate_classes(patients[0], labels_key="label")
    two = patients[:2]
    two[1].obs["label"] = "fat"
    with pytest.raises(ValueError, match="Without patient A fewer than two classes"):
        evaluate_classes(two, labels_key="label")
    with pytest.raises(KeyError, match="group_key='donor' is not in .obs of object 0.*section"):
        evaluate_classes(patients, labels_key="label", group_key="donor")
    with pytest.raises(ValueError, match="holds the predictions of one slot"):
        evaluate_classes(patients, labels_key="label", use=["a", "b"], key_added="guess")
    with pytest.raises(ValueError, match="bootstrap must be at least 2"):
        evaluate_classes(patients, labels_key="label", bootstrap=1)


@pytest.mark.slow
def test_real_patients(data_folder: Any) -> None:
    """Labels of other patients say more than the majority, and far less than those of the same section."""
    import spatialwhisperer as sw

    tables = [ad.read_h5ad(data_folder / "her2st" / s / "counts.h5ad") for s in ("A1", "B1", "D1")]
    encoder = sw.pp.fit_gene_encoder(tables, "pca", n_latent=10)
    for table in tables:
        sw.pp.embed_genes(table, encoder)
    result = evaluate_classes(tables, labels_key="pathologist_label", use="X_pca")
    assert "undetermined" not in result.index
    assert result.loc["macro", "f1"] > result.loc["majority", "f1"]
