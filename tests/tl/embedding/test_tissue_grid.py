"""Tiles over a slide without a table."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

import spatialwhisperer as sw
from spatialwhisperer._provenance import record
from spatialwhisperer.encoders.recipe import EncoderIdentity, FeatureRecipe
from spatialwhisperer.models.configuration.model import HeadConfig, ModalityConfig, ModelConfig
from spatialwhisperer.models.whisperer import Whisperer
from spatialwhisperer.tl._embedding.tissue_grid import on_tissue

if TYPE_CHECKING:
    import spatialdata as sd


def reading(tile_um: float) -> Whisperer:
    """A model of tiles of that size."""
    recipe = FeatureRecipe(EncoderIdentity("stain_texture"), "X_stain_texture", (tile_um,), 64)
    return Whisperer(ModelConfig(3, {"image": ModalityConfig(recipe, 4, HeadConfig("linear", 4))}))


@pytest.fixture
def slide() -> sd.SpatialData:
    """An image and nothing else."""
    made = sw.datasets.simulate_sections(1, 80, n_genes=20, n_reference_cells=20, random_state=0)
    return made.sections["P1"].subset(["P1_image"])


def said(caplog: Any, *args: Any) -> tuple[Any, str]:
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="spatialwhisperer"):
        found = on_tissue(*args, keeps=True)
        found.keep()
    return found, " ".join(caplog.messages)


def test_a_grid_that_is_not_kept_is_said_to_be_of_this_call(slide: Any, caplog: Any) -> None:
    with caplog.at_level(logging.INFO, logger="spatialwhisperer"):
        on_tissue(slide, reading(80), None, {}, keeps=False)
        assert "tiles, 80 µm apart, was laid over its tissue for this call alone. " in caplog.text
        assert "sw.pp.tiles(data, at='grid', tile_um=80) makes one that is kept" in caplog.text
        caplog.clear()
        laid = on_tissue(slide, reading(80), None, {}, keeps=True)
        assert caplog.text == "" or "tables[" not in caplog.text
    assert not slide.tables
    laid.keep()
    assert "sw_tiles" in slide.tables


def test_a_grid_that_was_laid_for_another_model_is_said(slide: Any, caplog: Any) -> None:
    found, text = said(caplog, slide, reading(80), None, {"mpp": None})
    assert "tiles, 80 µm apart, was laid over its tissue" in text
    assert "the model reads a square of 80 µm." in text
    assert found.caller is slide
    again, text = said(caplog, slide, reading(80), None, {})
    assert (again.data, text) == (slide, "")
    again, text = said(caplog, slide, reading(120), None, {})
    assert again.data is slide
    assert "tables['sw_tiles'] holds a grid of tiles 80 µm apart, which an earlier call laid" in text
    assert "sw.pp.tiles(data, at='grid', tile_um=120, key_added=…)" in text
    # predictions on these tiles are no other rows
    slide.tables["predicted"] = slide.tables["sw_tiles"].copy()
    record(slide.tables["predicted"], "sw_expression", {})
    assert said(caplog, slide, reading(120), None, {})[1] == text
    # a name says which rows are meant, and an embedding is taken as it is
    assert said(caplog, slide, reading(120), None, {"table_key": "sw_tiles"})[1] == ""
    assert said(caplog, slide, reading(120), "stored", {})[1] == ""


def test_a_grid_that_the_user_chose_needs_no_word(slide: Any, caplog: Any) -> None:
    sw.pp.tiles(slide, tile_um=80, at="grid")
    assert said(caplog, slide, reading(120), None, {})[1] == ""


@pytest.mark.parametrize("option", [{"spot_pitch_um": 100.0}, {"library_key": "section"}])
def test_options_of_rows_do_not_apply_to_a_slide_without_any(slide: Any, option: Any) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(option))} is meant for tiles on the rows of a table"):
        on_tissue(slide, reading(80), None, option, keeps=True)
    assert not slide.tables
