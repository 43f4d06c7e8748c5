"""Examples: a few labelled rows that move the embedding of a label."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw
from spatialwhisperer._provenance import recorded
from spatialwhisperer.tl._annotation.examples import HALF, example_rows, refine


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_examples_are_mixed_in_by_their_number() -> None:
    rng = np.random.default_rng(0)
    z, text = unit(rng.normal(size=(30, 5))).astype(np.float32), unit(rng.normal(size=(3, 5))).astype(np.float32)
    z[7] = np.nan
    sections = np.array(["a"] * 10 + ["b"] * 20)
    rows = {"x": np.array([0, 1, 12]), "y": np.array([20, 7])}
    got = refine(text, z, rows, ["x", "y", "z"], sections)
    centred = z.astype(float).copy()
    centred[:10] -= np.nanmean(z[:10], axis=0, dtype=float)
    centred[10:] -= z[10:].mean(axis=0, dtype=float)
    means = np.stack([centred[[0, 1, 12]].mean(0), centred[20], np.zeros(5)])
    contrast = unit(means - means.mean(0))
    for i, n in ((0, 3), (1, 1)):
        w = n / (n + HALF)
        assert np.allclose(got[i], unit((1 - w) * text[i] + w * contrast[i]), atol=1e-6)
    assert np.array_equal(got[2], text[2])
    with pytest.raises(ValueError, match="No example has an embedding"):
        refine(text, z, {"x": np.array([7])}, ["x", "y", "z"], sections)


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
