"""Scores: the correction of cosines, their probabilities, groups that share an embedding, and rows without any."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw
from spatialwhisperer._compute import blocks as parallel
from spatialwhisperer._compute.blocks import blocks
from spatialwhisperer._messages import SpatialWhispererWarning
from spatialwhisperer._provenance import recorded
from spatialwhisperer.models.configuration.annotation import Annotation
from spatialwhisperer.models.reference import Reference
from spatialwhisperer.tl._annotation import scoring
from spatialwhisperer.tl._annotation.labels import class_embeddings
from spatialwhisperer.tl._annotation.scoring import (
    Correction,
    best_labels,
    choose_correction,
    pooled,
    score_rows,
    top_codes,
)

NAMES = ["fat", "tumour", "stroma"]


# ------------------------------------------------------------------------------------------------- arrays


@pytest.fixture
def cosines() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    z, text = rng.normal(size=(9, 4)), rng.normal(size=(3, 4))
    z[4] = np.nan
    unit = [(x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for x in (z, text)]
    return unit[0], unit[1]


def correction(normalize: str, temperature: float = 0.1, mean: Any = None) -> Correction:
    return Correction(normalize, None, mean, temperature, False)


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum(1, keepdims=True)


def test_scores_and_probabilities_are_those_by_hand(cosines: tuple[np.ndarray, np.ndarray]) -> None:
    z, text = cosines
    sections = np.array(["b"] * 5 + ["a"] * 4)
    raw = z.astype(np.float64) @ text.T.astype(np.float64)
    ok = np.arange(9) != 4
    none, probability = score_rows(z, text, sections=sections, correction=correction("none"))
    assert np.allclose(none[ok], raw[ok], atol=1e-6)
    assert np.isnan(none[4]).all()
    assert np.isnan(probability[4]).all()
    softmaxed, same = score_rows(z, text, sections=sections, correction=correction("softmax"))
    assert np.allclose(softmaxed[ok], softmax(10 * raw)[ok], atol=1e-5)
    assert np.array_equal(softmaxed, same, equal_nan=True)
    assert np.array_equal(probability, same, equal_nan=True)
    centred, centred_probability = score_rows(z, text, sections=sections, correction=correction("centre"))
    for rows in (np.arange(4), np.arange(5, 9)):
        expected = raw[rows] - raw[rows].mean(0)
        assert np.allclose(centred[rows], expected, atol=1e-6)
        assert np.allclose(centred_probability[rows], softmax(10 * expected), atol=1e-5)
    mean = np.array([0.2, 0, -0.1, 0.4])
    against, _ = score_rows(z, text, sections=sections, correction=correction("centre", mean=mean))
    assert np.allclose(against[ok], (raw - text @ mean)[ok], atol=1e-6)
    assert all(x.dtype == np.float32 for x in (none, softmaxed, centred, probability, against))


def test_a_section_without_any_tile_has_no_scores(cosines: tuple[np.ndarray, np.ndarray]) -> None:
    z, text = cosines
    scores, _ = score_rows(z * np.nan, text, sections=np.array(["a"] * 9), correction=correction("centre"))
    assert np.isnan(scores).all()


def test_the_best_label_has_a_margin_and_the_top_labels_an_order() -> None:
    probability = np.array([[0.5, 0.2, 0.3], [0.1, 0.1, 0.8], [np.nan] * 3], np.float32)
    best = best_labels(probability)
    assert best.code.tolist() == [0, 2, -1]
    assert np.allclose(best.confidence, [0.5, 0.8, np.nan], equal_nan=True)
    assert np.allclose(best.margin, [0.2, 0.7, np.nan], equal_nan=True)
    top = top_codes(probability, 2, best.code)
    assert top.dtype == np.int16
    assert top.tolist() == [[0, 2], [2, 0], [-1, -1]]
    assert top_codes(probability, 3, np.array([2, 1, -1])).tolist() == [[2, 0, 1], [1, 2, 0], [-1] * 3]


@pytest.mark.parametrize("seed", range(4))
def test_blocks_and_threads_change_nothing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside whole matrices in float64: random shapes, ties, rows of NaN, rows without a section, sections without rows."""
    rng = np.random.default_rng(seed)
    n, c, u = int(rng.integers(1, 60)), int(rng.integers(2, 40)), 5
    z, text = unit(rng.integers(-2, 3, (n, u))), unit(rng.integers(-2, 3, (c, u)))
    z[rng.random(n) < 0.2] = np.nan
    sections = np.array(["a", "b", None], object)[rng.integers(0, 3, n)]
    raw = z.astype(np.float64) @ text.T.astype(np.float64)
    for name in ("a", "b"):
        rows = sections == name
        if np.isfinite(raw[rows]).any():
            raw[rows] -= np.nanmean(raw[rows], axis=0)
    known = np.isfinite(raw).all(axis=1)
    found = []
    for numbers, threads in ((1, 1), (7, 2), (10**6, 3)):
        monkeypatch.setattr(scoring, "blocks", lambda rows, width, _=0, n=numbers: blocks(rows, width, n))
        monkeypatch.setattr(parallel, "cores", lambda t=threads: t)
        scores, probability = score_rows(z, text, sections=sections, correction=correction("centre"))
        assert np.allclose(scores, raw, atol=1e-6, equal_nan=True)
        assert np.allclose(probability[known], softmax(10 * raw[known]), atol=1e-5)
        rounded = probability.round(2)
        best = best_labels(rounded)
        order = np.argsort(-rounded, axis=1, kind="stable")
        for k in (1, 3, 30):
            assert np.array_equal(top_codes(rounded, k, best.code), np.where(known[:, None], order[:, :k], -1))
        ranked = np.take_along_axis(rounded, order, 1)[known]
        assert np.array_equal(best.code, np.where(known, order[:, 0], -1))
        assert np.array_equal(best.confidence[known], ranked[:, 0])
        assert np.array_equal(best.margin[known], ranked[:, 0] - ranked[:, 1])
        assert np.isnan(best.confidence[~known]).all()
        other = best_labels(rounded, order[:, 1])
        assert np.array_equal(other.confidence[known], ranked[:, 1])
        assert (other.margin[known] == 0).all()
        found.append((scores, probability))
    for scores, probability in found:
        assert np.allclose(scores, found[0][0], atol=1e-6, equal_nan=True)
        assert np.allclose(probability, found[0][1], atol=1e-6, equal_nan=True)


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-9)).astype(np.float32)


def test_the_temperature_is_the_fitted_one_only_for_its_own_correction(own: Any) -> None:
    trained = choose_correction(own, None, None, modality="image")
    assert (trained.normalize, trained.background, trained.calibrated) == ("none", None, False)
    assert trained.temperature == pytest.approx(1 / own.scale)
    own.update(annotation=Annotation(normalize="centre", background="training", temperature=0.02))
    fitted = choose_correction(own, None, None, modality="image")
    assert (fitted.normalize, fitted.background, fitted.temperature) == ("centre", "training", 0.02)
    assert fitted.calibrated
    other = choose_correction(own, "centre", "section", modality="image")
    assert (other.background, other.calibrated) == ("section", False)
    assert other.temperature == pytest.approx(1 / own.scale)


# ------------------------------------------------------------------------------------------------- backgrounds


@pytest.fixture(scope="module")
def text(model: Any) -> np.ndarray:
    return class_embeddings(model, [[n] for n in NAMES])


def test_the_mean_of_the_background_is_subtracted(section: Any, model: Any, text: np.ndarray) -> None:
    z: Any = sw.tl.embed(section, model=model, inplace=False)
    options: dict[str, Any] = {"model": model, "normalize": "centre", "inplace": False}
    own: Any = sw.tl.zero_shot_annotate(section, NAMES, **options)
    assert np.allclose(own.mean(), 0, atol=1e-5)
    same: Any = sw.tl.zero_shot_annotate(section, NAMES, background="section", **options)
    pd.testing.assert_frame_equal(own, same)
    given = np.random.default_rng(0).normal(size=(7, 64)).astype(np.float32)
    given[2] = np.nan
    got: Any = sw.tl.zero_shot_annotate(section, NAMES, background=given, **options)
    assert np.allclose(got, (z - np.nanmean(given, axis=0)) @ text.T, atol=1e-5)
    other = section["table"].copy()
    other.obsm["X_sw_image"] = given[[0] * 120]
    got = sw.tl.zero_shot_annotate(section, NAMES, background=other, **options)
    assert np.allclose(got, (z - given[0]) @ text.T, atol=1e-5)


def test_the_training_tissue_is_a_background(section: Any, model: Any, own: Any, text: np.ndarray) -> None:
    z: Any = sw.tl.embed(section, model=model, inplace=False)
    mean = np.linspace(-0.2, 0.3, 64).astype(np.float32)
    own.reference = Reference(arrays={"mean_image": mean})
    sw.tl.zero_shot_annotate(section, NAMES, model=own, normalize="centre", background="training")
    scores = section["table"].obsm["sw_label_scores"]
    assert np.allclose(scores, (z - mean) @ text.T, atol=1e-5)
    record: Any = recorded(section["table"], "sw_label")
    assert record["background"] == "training"
    with pytest.raises(ValueError, match="has no gene embeddings of training tissue"):
        sw.tl.zero_shot_annotate(section, NAMES, model=own, normalize="centre", background="training", modality="gene")
    own.reference = None
    with pytest.raises(ValueError, match=r"has no sample of training tissue. Train it with sw\.tl\.train"):
        sw.tl.zero_shot_annotate(section, NAMES, model=own, normalize="centre", background="training")


def test_a_trained_model_stores_its_background(section: Any, model: Any) -> None:
    scores: Any = sw.tl.zero_shot_annotate(
        section, NAMES, model=model, normalize="centre", background="training", inplace=False
    )
    assert np.isfinite(scores).all(axis=None)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"background": "slide"}, ValueError, "'section', 'training', an array or an AnnData, not 'slide'"),
        ({"background": np.zeros((3, 5))}, ValueError, r"must have shape \(n, 64\).*found \(3, 5\)"),
        ({"background": np.zeros(64)}, ValueError, r"found \(64,\)"),
        ({"background": np.full((2, 64), np.nan)}, ValueError, "None of the 2 rows of background is finite"),
        ({"background": object()}, TypeError, "not object"),
        ({"background": "section", "normalize": "none"}, ValueError, "'none' does not use it"),
        ({"group_key": "cluster"}, KeyError, r"group_key='cluster' is not in \.obs"),
    ],
)
def test_a_bad_background_is_refused(
    section: Any, model: Any, options: Any, error: Any, message: str, keys: Any
) -> None:
    before = keys.of(section["table"])
    with pytest.raises(error, match=message):
        sw.tl.zero_shot_annotate(section, NAMES, **({"model": model, "normalize": "centre"} | options))
    assert keys.of(section["table"]) == before


def test_a_background_needs_an_embedding(section: Any, model: Any) -> None:
    other = section["table"].copy()
    with pytest.raises(KeyError, match=r"The background has no \.obsm\['X_sw_image'\].*sw\.tl\.embed\(background"):
        sw.tl.zero_shot_annotate(section, NAMES, model=model, normalize="centre", background=other)


@pytest.mark.parametrize(("modality", "expected"), [("gene", 0.5), ("image", 1.0), (None, 1.0)])
def test_a_background_gives_the_embeddings_of_the_modality(modality: str | None, expected: float) -> None:
    model: Any = SimpleNamespace(config=SimpleNamespace(annotation=None, projection_dim=2), scale=10.0)
    embeddings = {"X_sw_image": np.ones((3, 2), np.float32), "X_sw_gene": np.full((3, 2), 0.5, np.float32)}
    background: Any = SimpleNamespace(obsm=embeddings)
    got = choose_correction(model, "centre", background, modality=modality)
    assert got.mean is not None
    assert (got.background, got.mean.tolist()) == ("given", [expected, expected])


# ------------------------------------------------------------------------------------------------- groups


def test_rows_of_a_group_share_a_unit_embedding() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(6, 4)).astype(np.float32)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    z[5] = np.nan
    groups = np.array(["a", "a", "b", None, "a", "b"], object)
    got = pooled(z, groups)
    mean = z[[0, 1, 4]].mean(0)
    assert np.allclose(got[[0, 1, 4]], mean / np.linalg.norm(mean), atol=1e-6)
    assert np.array_equal(got[[2, 3]], z[[2, 3]])
    assert np.isnan(got[5]).all()
    assert np.allclose(np.linalg.norm(got[:5], axis=1), 1, atol=1e-6)
    assert pooled(z, None) is z


def test_a_group_whose_unit_embeddings_cancel_has_a_mean_of_zero_and_no_nan() -> None:
    z = np.array([[1.0, 0], [-1, 0], [0, 1]], np.float32)
    got = pooled(z, np.array(["a", "a", "b"], object))
    assert got.tolist() == [[0, 0], [0, 0], [0, 1]]


def test_rows_of_a_group_get_the_same_scores(section: Any, model: Any) -> None:
    table = section["table"]
    table.obs["region"] = pd.Categorical(np.where(np.arange(120) < 40, "left", "right"))
    sw.tl.zero_shot_annotate(section, NAMES, model=model, group_key="region")
    scores = table.obsm["sw_label_scores"]
    assert np.allclose(scores[:40], scores[0])
    assert np.allclose(scores[40:], scores[40])
    assert not np.allclose(scores[0], scores[40])
    assert not np.allclose(table.obsm["X_sw_image"][0], table.obsm["X_sw_image"][1])
    record: Any = recorded(table, "sw_label")
    assert record["group_key"] == "region"


# ------------------------------------------------------------------------------------------------- nothing to score


def test_a_slide_without_any_embedding_is_refused(section: Any, model: Any, keys: Any) -> None:
    table = section["table"]
    table.obsm["X_sw_image"] = old = np.ones((120, 64), np.float32)
    table.obsm["X_stain_texture"][:] = np.nan
    before = keys.of(table)
    with pytest.raises(ValueError, match=r"None of the 120 rows has an embedding.*embed_images\(data, border='pad'\)"):
        sw.tl.zero_shot_annotate(section, NAMES, model=model)
    assert keys.of(table) == before
    assert np.array_equal(table.obsm["X_sw_image"], old)
    table.obsm["X_mine"] = np.full((120, 64), np.nan, np.float32)
    with pytest.raises(ValueError, match=r"\.obsm\['X_mine'\] holds NaN"):
        sw.tl.zero_shot_annotate(section, NAMES, model=model, embedding_key="X_mine")


def test_a_slide_without_tissue_is_refused(section: Any, model: Any) -> None:
    """Where the model stores a sample of its training tissue, and before anything is written."""
    from spatialwhisperer.encoders.image.stain_texture import StainTextureEncoder

    table = section["table"]
    fraction = StainTextureEncoder().feature_names().index("tissue_fraction")
    table.obsm["X_stain_texture"][:, fraction] = 0
    with pytest.raises(ValueError, match="None of the 120 rows has a whole tile on tissue"):
        sw.tl.zero_shot_annotate(section, NAMES, model=model)
    assert "X_sw_image" not in table.obsm
    assert "sw_label" not in table.obs


def test_images_outside_the_training_range_are_named(section: Any, model: Any) -> None:
    table = section["table"]
    table.obsm["X_stain_texture"] += 40 * table.obsm["X_stain_texture"].std(axis=0)
    with pytest.warns(SpatialWhispererWarning, match="standard deviations from the nearest training section"):
        sw.tl.zero_shot_annotate(section, NAMES, model=model)
    assert "sw_label" in table.obs
