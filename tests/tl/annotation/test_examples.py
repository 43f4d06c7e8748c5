"""Examples: a few labelled rows that move the embedding of a label."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw
from spatialwhisperer._provenance import recorded
from spatialwhisperer.tl._annotation.examples import example_rows, refine

TEMPERATURE = 0.1


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum(1, keepdims=True)


def simulated_rows(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings, scores of words and classes of three kinds of rows; nine of ten rows are of the first one."""
    rng = np.random.default_rng(seed)
    truth = np.where(rng.random(n) < 0.9, 0, rng.integers(1, 3, n))
    z = np.eye(3, 8)[truth] + rng.normal(0, 0.35, (n, 8))
    # words rank well, and the third one is far too high
    scores = 0.05 * (np.eye(3)[truth] + rng.normal(0, 0.7, (n, 3))) + [0, 0, 0.2]
    return z, scores, truth


def refined(z: np.ndarray, scores: np.ndarray, rows: dict[str, np.ndarray], names: str = "abc") -> np.ndarray:
    sections = np.array(["s"] * len(z))
    return refine(scores, z, rows, list(names), sections=sections, temperature=TEMPERATURE).scores


def shown_rows(truth: np.ndarray, n: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.choice(np.flatnonzero(truth == k), n, replace=False) for k, name in enumerate("abc")}


def balanced(scores: np.ndarray, truth: np.ndarray, rest: np.ndarray) -> float:
    best = scores[rest].argmax(1)
    return float(np.mean([(best[truth[rest] == k] == k).mean() for k in range(3)]))


def test_offsets_are_fitted_where_one_class_fills_the_section() -> None:
    z, scores, truth = simulated_rows(400)
    rows = shown_rows(truth, 5)
    rest = np.setdiff1d(np.arange(400), np.concatenate(list(rows.values())))
    assert (scores.argmax(1) == 2).mean() > 0.8
    assert balanced(refined(z, scores, rows), truth, rest) > 0.9


def test_words_and_examples_are_no_worse_than_examples_alone() -> None:
    """Mean over draws of one to five examples of each class."""
    both, alone, words = [], [], []
    for seed in range(6):
        z, scores, truth = simulated_rows(300, seed)
        for n in (1, 2, 5):
            rows = shown_rows(truth, n, seed)
            rest = np.setdiff1d(np.arange(300), np.concatenate(list(rows.values())))
            both.append(balanced(refined(z, scores, rows), truth, rest))
            alone.append(balanced(refined(z, np.zeros_like(scores), rows), truth, rest))
            words.append(balanced(scores, truth, rest))
    assert np.mean(both) >= np.mean(alone)
    assert np.mean(both) > np.mean(words)


def test_labels_without_examples_keep_the_probability_of_their_words() -> None:
    z, scores, truth = simulated_rows(200)
    rows = shown_rows(truth, 5)
    del rows["c"]
    z[7] = np.nan
    got = refined(z, scores, rows)
    whole = np.arange(200) != 7
    probability = softmax(got[whole] / TEMPERATURE)
    by_words = softmax(scores[whole] / TEMPERATURE)
    assert np.allclose(probability[:, 2], by_words[:, 2], atol=1e-5)
    assert np.allclose(probability.sum(1), 1, atol=1e-5)
    between = np.isin(truth[whole], [0, 1])
    assert (got[whole][between][:, :2].argmax(1) == truth[whole][between]).mean() > 0.9
    assert np.isnan(got[7]).all()


def test_examples_that_tell_nothing_apart_are_refused() -> None:
    z, scores, truth = simulated_rows(100)
    with pytest.raises(ValueError, match="Only a has examples with an embedding"):
        refined(z, scores, {"a": np.flatnonzero(truth == 0)[:3]})
    z[:5] = np.nan
    with pytest.raises(ValueError, match="No example has an embedding"):
        refined(z, scores, {"a": np.array([1]), "b": np.array([2])})


def test_rows_may_be_named_in_any_form(adata: Any) -> None:
    classes = ["fat", "a/b"]
    names = adata.obs_names
    mask = np.zeros(120, bool)
    mask[[3, 9]] = True
    for rows in ([9, 3, 3], np.array([3, 9]), names[[3, 9]], [names[9], names[3]], mask):
        got = example_rows(adata, {"a/b": rows, "fat": []}, classes)
        assert {k: v.tolist() for k, v in got.items()} == {"a/b": [3, 9]}
    adata.obs["few"] = pd.Series({names[3]: "a/b", names[9]: "fat"}).reindex(names).to_numpy()
    got = example_rows(adata, "few", classes)
    assert {k: v.tolist() for k, v in got.items()} == {"a/b": [3], "fat": [9]}


def test_a_mask_with_names_belongs_to_these_rows(adata: Any) -> None:
    few = pd.Series(False, index=adata.obs_names)
    few.iloc[[3, 9]] = True
    nullable = few.astype("boolean")
    nullable.iloc[[0, 1, 2]] = None
    shuffled = few.sample(frac=1, random_state=0)
    for mask in (few, few[::-1], shuffled, shuffled.astype("boolean"), nullable[::-1], few.reset_index(drop=True)):
        assert example_rows(adata, {"fat": mask}, ["fat"])["fat"].tolist() == [3, 9]
    for mask, message in (
        (
            few[:-1],
            r"mask of 'fat' in examples has 119 rows, the table 120.*mask\.reindex\(adata\.obs_names, fill_value=False\)",
        ),
        (few.rename({adata.obs_names[0]: "other"}), r"are not those of the table.*mask\.reset_index"),
        (few.reset_index(drop=True)[::-1], "are not those of the table"),
    ):
        with pytest.raises(ValueError, match=message):
            example_rows(adata, {"fat": mask}, ["fat"])
    brought = few[:-1].reindex(adata.obs_names, fill_value=False)
    assert example_rows(adata, {"fat": brought}, ["fat"])["fat"].tolist() == [3, 9]


def test_a_name_that_is_asked_for_is_that_of_one_row(adata: Any) -> None:
    names = adata.obs_names.to_list()
    adata.obs_names = [*names[:-2], names[0], names[1]]
    rows = example_rows(adata, {"fat": [names[3], names[2]], "bone": [names[117]]}, ["fat", "bone"])
    assert {label: own.tolist() for label, own in rows.items()} == {"fat": [2, 3], "bone": [117]}
    message = (
        rf"examples of 'fat' name '{names[1]}', which 2 rows.*positions of rows, or run adata\.obs_names_make_unique"
    )
    with pytest.raises(ValueError, match=message):
        example_rows(adata, {"fat": [names[3], names[1]]}, ["fat"])
    with pytest.raises(KeyError, match=r"not in \.obs_names: elsewhere"):
        example_rows(adata, {"fat": [names[1], "elsewhere"]}, ["fat"])


def test_examples_make_up_for_poor_words(section: Any, model: Any) -> None:
    table = section["table"]
    truth = table.obs["cell_type"].astype(str).to_numpy()
    labels = {name: "tissue" if i % 2 else "a sample" for i, name in enumerate(dict.fromkeys(truth))}
    labels = {name: f"{text} {i}" for i, (name, text) in enumerate(labels.items())}
    few = np.full(120, None, object)
    for name in labels:
        rows = np.flatnonzero(truth == name)[:8]
        few[rows] = name
    table.obs["few"] = few
    table.obs["rest"] = np.where(table.obs["few"].isna(), truth, None)
    auroc: dict[str | None, float] = {}
    for examples in (None, "few"):
        sw.tl.zero_shot_annotate(section, labels, model=model, examples=examples)
        auroc[examples] = sw.tl.evaluate_annotation(section, "rest")["auroc"]["macro"]
    assert auroc["few"] > auroc[None] + 0.1
    record: Any = recorded(table, "sw_label")
    assert record["scores"] == "logarithm"
    assert 0 < record["examples_weight"] < 1
    probability = softmax(table.obsm["sw_label_scores"] / record["temperature"]).max(1)
    assert np.allclose(table.obs["sw_label_confidence"], probability, atol=1e-4)
    assert record["examples"] == [min(8, (truth == name).sum()) for name in labels]


@pytest.mark.parametrize(
    ("examples", "error", "message"),
    [
        ("nowhere", KeyError, r"examples='nowhere' is not in \.obs"),
        (3, TypeError, "examples must be text, a mapping of names or None, not 3"),
        ({"bone": [1]}, ValueError, r"examples holds bone, which is not among the labels \(fat, tumour\)"),
        ("cell_type", ValueError, "which is not among the labels"),
        ({"fat": [1, 500]}, ValueError, "hold row 500; the table has rows 0 to 119"),
        ({"fat": [-1]}, ValueError, "hold row -1"),
        ({"fat": ["no_row"]}, KeyError, r"not in \.obs_names: no_row"),
        ({"fat": [1], "tumour": [1]}, ValueError, "for more than one label"),
        ({"fat": []}, ValueError, "no example"),
        ({"fat": np.ones(3, bool)}, ValueError, "the table 120 rows"),
    ],
)
def test_bad_examples_are_refused(section: Any, model: Any, examples: Any, error: Any, message: str, keys: Any) -> None:
    before = keys.of(section["table"])
    with pytest.raises(error, match=message):
        sw.tl.zero_shot_annotate(section, ["fat", "tumour"], model=model, examples=examples)
    assert keys.of(section["table"]) == before


@pytest.mark.slow
def test_words_and_examples_are_no_worse_than_examples_alone_on_real_sections(data_folder: Any) -> None:
    """Balanced accuracy of the pathologist's regions: mean over sections, draws, and one to five examples of each region."""
    both: list[float] = []
    alone: list[float] = []
    words: list[float] = []
    for name in ("A1", "C3"):
        section = sw.datasets.her2st(name, data_dir=data_folder)
        table = section["table"]
        regions = {"tumour": "invasive breast carcinoma", "stroma": "fibrous connective tissue stroma"}
        if name == "A1":
            regions["fat"] = "adipose tissue with fat cells"
        names = {"invasive cancer": "tumour", "cancer in situ": "tumour", "connective tissue": "stroma"}
        names |= {"adipose tissue": "fat"}
        truth = table.obs["pathologist_label"].astype(object).map(names).to_numpy()
        scores: Any = sw.tl.zero_shot_annotate(section, regions, normalize="none", inplace=False)
        sw.tl.embed(section)
        z, scores = table.obsm["X_sw_image"].astype(float), scores.to_numpy(float)
        whole = np.isfinite(z).all(1)
        for n in (1, 2, 5):
            for seed in range(4):
                rng = np.random.default_rng(seed)
                rows = {r: rng.choice(np.flatnonzero(whole & (truth == r)), n, replace=False) for r in regions}
                rest = np.setdiff1d(np.flatnonzero(whole), np.concatenate(list(rows.values())))
                options: dict[str, Any] = {"sections": np.full(len(z), name), "temperature": TEMPERATURE}
                for out, start in ((both, scores), (alone, np.zeros_like(scores))):
                    best = refine(start, z, rows, list(regions), **options).scores[rest].argmax(1)
                    out.append(np.mean([(best[truth[rest] == r] == k).mean() for k, r in enumerate(regions)]))
                best = scores[rest].argmax(1)
                words.append(np.mean([(best[truth[rest] == r] == k).mean() for k, r in enumerate(regions)]))
    assert np.mean(both) >= np.mean(alone)
    assert np.mean(both) > np.mean(words) + 0.05
