"""What is taken off scores, groups that share an embedding, and rows without any."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw
from spatialwhisperer._provenance import recorded
from spatialwhisperer.models.reference import Reference
from spatialwhisperer.tl._annotation.labels import class_embeddings
from spatialwhisperer.tl._annotation.scoring import pooled

NAMES = ["fat", "tumour", "stroma"]


@pytest.fixture(scope="module")
def text(model: Any) -> np.ndarray:
    return class_embeddings(model, [[n] for n in NAMES])


def test_backgrounds(section: Any, model: Any, text: np.ndarray) -> None:
    z = sw.tl.embed(section, model=model, inplace=False)
    options = {"model": model, "normalize": "centre", "inplace": False}
    own = sw.tl.zero_shot_annotate(section, NAMES, **options)
    assert np.allclose(own.mean(), 0, atol=1e-5)
    same = sw.tl.zero_shot_annotate(section, NAMES, background="section", **options)
    pd.testing.assert_frame_equal(own, same)
    given = np.random.default_rng(0).normal(size=(7, 64)).astype(np.float32)
    given[2] = np.nan
    got = sw.tl.zero_shot_annotate(section, NAMES, background=given, **options)
    assert np.allclose(got, (z - np.nanmean(given, axis=0)) @ text.T, atol=1e-5)
    other = section["table"].copy()
    other.obsm["X_sw_image"] = given[[0] * 120]
    got = sw.tl.zero_shot_annotate(section, NAMES, background=other, **options)
    assert np.allclose(got, (z - given[0]) @ text.T, atol=1e-5)


def test_the_training_tissue_as_background(section: Any, model: Any, text: np.ndarray) -> None:
    own = copy.deepcopy(model)
    z = sw.tl.embed(section, model=model, inplace=False)
    mean = np.linspace(-0.2, 0.3, 64).astype(np.float32)
    own.reference = Reference({}, {"mean_image": mean})
    sw.tl.zero_shot_annotate(section, NAMES, model=own, normalize="centre", background="training")
    scores = section["table"].obsm["sw_label_scores"]
    assert np.allclose(scores, (z - mean) @ text.T, atol=1e-5)
    assert recorded(section["table"], "sw_label")["background"] == "training"
    with pytest.raises(ValueError, match="has no gene embeddings of training tissue"):
        sw.tl.zero_shot_annotate(section, NAMES, model=own, normalize="centre", background="training", modality="gene")
    own.reference = None
    with pytest.raises(ValueError, match=r"remembers no training tissue. Train it with sw\.tl\.train"):
        sw.tl.zero_shot_annotate(section, NAMES, model=own, normalize="centre", background="training")


def test_a_trained_model_serves_as_background(section: Any, model: Any) -> None:
    scores = sw.tl.zero_shot_annotate(
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
        ({"background": "section", "normalize": "none"}, ValueError, "means nothing to 'none'"),
        ({"group_key": "cluster"}, KeyError, r"group_key='cluster' is not in \.obs"),
    ],
)
def test_what_is_refused(section: Any, model: Any, options: Any, error: Any, message: str) -> None:
    table = section["table"]
    before = set(table.obs), set(table.obsm), set(table.uns)
    with pytest.raises(error, match=message):
        sw.tl.zero_shot_annotate(section, NAMES, **({"model": model, "normalize": "centre"} | options))
    assert (set(table.obs), set(table.obsm), set(table.uns)) == before


def test_a_background_without_an_embedding(section: Any, model: Any) -> None:
    other = section["table"].copy()
    with pytest.raises(KeyError, match=r"The background has no \.obsm\['X_sw_image'\].*sw\.tl\.embed\(background"):
        sw.tl.zero_shot_annotate(section, NAMES, model=model, normalize="centre", background=other)


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


def test_groups_in_an_annotation(section: Any, model: Any) -> None:
    table = section["table"]
    table.obs["region"] = pd.Categorical(np.where(np.arange(120) < 40, "left", "right"))
    sw.tl.zero_shot_annotate(section, NAMES, model=model, group_key="region")
    scores = table.obsm["sw_label_scores"]
    assert np.allclose(scores[:40], scores[0])
    assert np.allclose(scores[40:], scores[40])
    assert not np.allclose(scores[0], scores[40])
    assert not np.allclose(table.obsm["X_sw_image"][0], table.obsm["X_sw_image"][1])
    assert recorded(table, "sw_label")["group_key"] == "region"


# ------------------------------------------------------------------------------------------------- nothing to score


def test_no_row_with_an_embedding(section: Any, model: Any) -> None:
    table = section["table"]
    table.obsm["X_sw_image"] = old = np.ones((120, 64), np.float32)
    table.obsm["X_stain_texture"][:] = np.nan
    before = set(table.obs), set(table.obsm), set(table.uns), dict(table.uns["spatialwhisperer"])
    with pytest.raises(ValueError, match=r"None of the 120 rows has an embedding.*embed_images\(data, border='pad'\)"):
        sw.tl.zero_shot_annotate(section, NAMES, model=model)
    assert (set(table.obs), set(table.obsm), set(table.uns), table.uns["spatialwhisperer"]) == before
    assert np.array_equal(table.obsm["X_sw_image"], old)
    table.obsm["X_mine"] = np.full((120, 64), np.nan, np.float32)
    with pytest.raises(ValueError, match=r"\.obsm\['X_mine'\] holds NaN"):
        sw.tl.zero_shot_annotate(section, NAMES, model=model, embedding_key="X_mine")


def test_a_slide_of_glass(section: Any, model: Any) -> None:
    """Tiles that hold no tissue are refused where the model remembers its training tissue, before anything is written."""
    from spatialwhisperer.encoders.image.stain_texture import StainTextureEncoder

    table = section["table"]
    share = StainTextureEncoder().feature_names().index("tissue_share")
    table.obsm["X_stain_texture"][:, share] = 0
    with pytest.raises(ValueError, match="None of the 120 rows has a whole tile on tissue"):
        sw.tl.zero_shot_annotate(section, NAMES, model=model)
    assert "X_sw_image" not in table.obsm
    assert "sw_label" not in table.obs


def test_strange_images_are_named(section: Any, model: Any) -> None:
    table = section["table"]
    table.obsm["X_stain_texture"] += 40 * table.obsm["X_stain_texture"].std(axis=0)
    with pytest.warns(sw._utils.SpatialWhispererWarning, match="standard deviations from the nearest training section"):
        sw.tl.zero_shot_annotate(section, NAMES, model=model)
    assert "sw_label" in table.obs
