from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw
from spatialwhisperer._messages import SpatialWhispererWarning
from spatialwhisperer._provenance import recorded
from spatialwhisperer.tl._embedding.texts import embed_texts


def test_every_row_gets_a_score(section: Any, model: Any, keys: Any) -> None:
    table = section["table"]
    before = keys.of(table)
    assert sw.tl.query(section, "fat tissue", model=model) is None
    assert keys.added(before, table) == {
        "obs": {"sw_query"},
        "obsm": {"X_sw_image"},
        "recorded": {"sw_query", "X_sw_image"},
    }
    record: Any = recorded(table, "sw_query")
    assert record["text"] == ["fat tissue"]
    score = table.obs["sw_query"]
    assert score.dtype == np.float32
    expected = table.obsm["X_sw_image"] @ embed_texts(model, ["fat tissue"])[0]
    assert np.allclose(score, expected, atol=1e-6)


def test_several_descriptions_are_averaged(section: Any, model: Any) -> None:
    texts = ["fat tissue", "adipocytes"]
    got = sw.tl.query(section, texts, model=model, key_added="fat", inplace=False)
    assert isinstance(got, pd.Series)
    assert got.name == "fat"
    assert got.index.equals(section["table"].obs_names)
    mean = embed_texts(model, texts).mean(0)
    z: Any = sw.tl.embed(section, model=model, inplace=False)
    assert np.allclose(got, z @ mean / np.linalg.norm(mean), atol=1e-6)
    assert "fat" not in section["table"].obs
    assert "X_sw_image" not in section["table"].obsm


def test_rows_that_fit_the_text_score_high(section: Any, model: Any, labels: dict[str, str]) -> None:
    from sklearn.metrics import roc_auc_score

    score = sw.tl.query(section, labels["T cell"], model=model, inplace=False)
    assert roc_auc_score(section["table"].obs["cell_type"] == "T cell", score) > 0.8


@pytest.mark.parametrize("text", ["", "  ", " \u200b", [], ["fat", ""]])
def test_an_empty_text_is_refused(section: Any, model: Any, text: Any) -> None:
    with pytest.raises(ValueError, match="text must be a sentence"):
        sw.tl.query(section, text, model=model)


def test_an_embedding_of_another_model_is_refused(section: Any, model: Any) -> None:
    section["table"].obsm["X_other"] = np.zeros((120, 3), np.float32)
    with pytest.raises(ValueError, match="3 dimensions, the model 64"):
        sw.tl.query(section, "fat", model=model, embedding_key="X_other")
    with pytest.raises(KeyError, match=r"'X_none' not in \.obsm"):
        sw.tl.query(section, "fat", model=model, embedding_key="X_none")


def test_what_is_no_text_is_refused(section: Any, model: Any) -> None:
    with pytest.raises(TypeError, match="found 3"):
        sw.tl.query(section, 3, model=model)  # type: ignore[arg-type]


def without_tissue(table: Any, rows: Any) -> None:
    """Let rows show the empty background."""
    from spatialwhisperer.encoders.image.stain_texture import StainTextureEncoder

    fraction = StainTextureEncoder().feature_names().index("tissue_fraction")
    table.obsm["X_stain_texture"][rows, fraction] = 0


def test_rows_without_tissue_get_no_score_and_the_others_the_same(section: Any, model: Any, caplog: Any) -> None:
    with caplog.at_level("INFO", logger="spatialwhisperer"):
        every = sw.tl.query(section, "fat tissue", model=model, inplace=False)
    assert isinstance(every, pd.Series)
    assert every.notna().all()
    assert "no whole tile on tissue" not in caplog.text
    without_tissue(section["table"], slice(7))
    with caplog.at_level("INFO", logger="spatialwhisperer"):
        sw.tl.query(section, "fat tissue", model=model)
    score = section["table"].obs["sw_query"]
    assert score.isna().tolist() == [True] * 7 + [False] * 113
    assert "7 of 120 rows have no whole tile on tissue and no score (NaN)." in caplog.text
    assert len(sw.pl.top_tiles(section, "sw_query", n=200)) <= 113
    stored = sw.tl.query(section, "fat tissue", model=model, embedding_key="X_sw_image", inplace=False)
    assert isinstance(stored, pd.Series)
    assert stored.notna().all()


def test_a_slide_without_tissue_is_refused_before_anything_is_written(section: Any, model: Any, keys: Any) -> None:
    table = section["table"]
    without_tissue(table, slice(None))
    before = keys.of(table)
    with pytest.raises(ValueError, match="None of the 120 rows has a whole tile on tissue"):
        sw.tl.query(section, "fat tissue", model=model)
    assert keys.of(table) == before


def test_images_unlike_the_training_tissue_are_scored_with_a_warning(section: Any, model: Any) -> None:
    table = section["table"]
    table.obsm["X_stain_texture"] += 40 * table.obsm["X_stain_texture"].std(axis=0)
    with pytest.warns(SpatialWhispererWarning, match="standard deviations from the nearest training section"):
        sw.tl.query(section, "fat tissue", model=model)
    assert table.obs["sw_query"].notna().all()


@pytest.mark.parametrize(
    "text", [{"x": ["fat tissue", "adipocytes"]}, {"fat tissue", "adipocytes"}, pd.DataFrame({"fat": ["tissue"]})]
)
def test_texts_without_an_order_or_with_names_are_refused(section: Any, model: Any, text: Any) -> None:
    with pytest.raises(TypeError, match=f"not a {type(text).__name__}. Pass the list of descriptions"):
        sw.tl.query(section, text, model=model)
    assert "sw_query" not in section["table"].obs
