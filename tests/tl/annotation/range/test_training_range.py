"""Images compared with those that a model was trained on, and the sentences that say so."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer._access.result import Result
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._provenance import recorded_as
from spatialwhisperer.models.configuration.model import ModelConfig
from spatialwhisperer.models.reference import Reference, ReferenceConfig
from spatialwhisperer.models.whisperer import Whisperer
from spatialwhisperer.pp.features.images import FeatureRecord
from spatialwhisperer.tl._annotation.range.training_range import (
    SectionRange,
    image_mpp,
    range_warnings,
    section_ranges,
)

if TYPE_CHECKING:
    from pathlib import Path

    import anndata as ad

KEY = "X_stain_texture"
TILES: dict[str, Any] = {"tile_um": 80, "tile_px": 64}
MPP = {"P3_spots": 0.5}


def changed(adata: ad.AnnData, change: Any = np.array, mpp: float = 0.5) -> ad.AnnData:
    """The section with other pixels or at another scale, embedded anew."""
    out = adata.copy()
    out.obsm.pop(KEY, None)
    library = out.uns["spatial"]["P3"]
    library["images"]["fullres"] = change(library["images"]["fullres"])
    library["scalefactors"]["microns_per_pixel"] = mpp
    sw.pp.embed_images(out, **TILES)
    return out


def grey(image: np.ndarray) -> np.ndarray:
    return np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2).round().astype(np.uint8)


def ranges_of(data: Any, model: Any) -> list[SectionRange]:
    """As an annotation compares a slide with its model."""
    slide = Slide.open(data)
    return section_ranges(model, np.asarray(slide.table.obsm[KEY]), slide.sections, image_mpp(slide, KEY))


def warnings_of(data: Any, model: Any) -> list[str]:
    return range_warnings(ranges_of(data, model), model)


def one(**values: Any) -> SectionRange:
    usual: dict[str, Any] = {
        "name": "s",
        "n_rows": 100,
        "n_tissue": 100,
        "mpp": 0.5,
        "factor": 1.0,
        "distance": 0.5,
        "limit": 2.0,
    }
    return SectionRange(**(usual | values))


@pytest.fixture(scope="module")
def trained_coarsely(model: Any) -> Any:
    """A model whose reference says no more than the scale of its images."""
    out = Whisperer(model.config, encoders=model.encoders)
    out.reference = Reference(ReferenceConfig(mpp=(3.0, 4.0), tile_um=(80.0,), tile_px=64))
    return out


# ------------------------------------------------------------------------------------------------- sections


def test_another_patient_is_within_range(model: Any, section: Any) -> None:
    assert warnings_of(section, model) == []
    (found,) = ranges_of(section, model)
    assert (found.name, found.n_rows, found.n_tissue) == ("P3_spots", 120, 120)
    assert found.factor == 1
    assert found.mpp == pytest.approx(80 / 64)
    assert found.distance is not None
    assert found.limit is not None
    assert found.distance < found.limit


@pytest.mark.parametrize("change", [grey, lambda image: 255 - image], ids=["grey", "inverted"])
def test_other_colours_are_named(model: Any, adata: ad.AnnData, change: Any) -> None:
    (sentence,) = warnings_of(changed(adata, change), model)
    assert "colours and textures of section 'P3'" in sentence
    assert "standard deviations" in sentence


def test_another_scale_is_named(model: Any, adata: ad.AnnData) -> None:
    with pytest.warns(UserWarning, match="enlarged"):
        coarse = changed(adata, mpp=4.0)
    sentences = warnings_of(coarse, model)
    assert "4 µm per pixel, 3.2 times coarser than the images in training (0.5 µm per pixel)" in sentences[0]
    # a finer image is brought to the pixels of the tiles
    assert warnings_of(changed(adata, mpp=0.5), model) == []


def test_an_image_may_be_finer_than_those_of_the_training(trained_coarsely: Any, section: Any) -> None:
    (found,) = section_ranges(trained_coarsely, section["table"].obsm[KEY], np.array(["P3_spots"] * 120), MPP)
    assert found.distance is None
    (sentence,) = range_warnings([found], trained_coarsely)
    assert "2.4 times finer than the images in training (3 to 4 µm per pixel)" in sentence


def test_few_rows_and_empty_tiles_are_named(model: Any, section: Any) -> None:
    x = section["table"].obsm[KEY]
    sections = np.array(["P3_spots"] * 120)
    (sentence,) = range_warnings(section_ranges(model, x[:12], sections[:12], MPP), model)
    assert "has 12 rows with a whole tile on tissue" in sentence
    empty = sw.models.image_encoder("stain_texture").encode(np.full((1, 3, 64, 64), 255, np.uint8), mpp=80 / 64)
    x = np.where(np.arange(120)[:, None] < 40, x, empty)
    (sentence,) = range_warnings(section_ranges(model, x, sections, MPP), model)
    assert "Of 120 rows of section 'P3_spots' only 40" in sentence
    x[:30] = np.nan
    assert any("has 10 rows" in s for s in range_warnings(section_ranges(model, x, sections, MPP), model))


def test_features_may_be_missing(model: Any) -> None:
    """An encoder that is trained with the model has none: only the scale is compared."""
    (found,) = section_ranges(model, None, np.array(["A"] * 30), {"A": 0.5})
    assert (found.n_rows, found.n_tissue, found.distance, found.limit) == (30, 30, None, None)
    assert found.factor == 1
    assert range_warnings([found], model) == []


def test_a_single_recorded_scale_holds_under_any_name(model: Any) -> None:
    (found,) = section_ranges(model, None, np.array(["A"] * 30), {"P3_spots": 4.0})
    assert found.mpp == 4
    (unknown,) = section_ranges(model, None, np.array(["A"] * 30), {"B": 4.0, "C": 0.5})
    assert (unknown.mpp, unknown.factor) == (None, None)


def test_the_recorded_scale_of_features_counts(section: Any, adata: ad.AnnData) -> None:
    slide = Slide.open(section)
    assert image_mpp(slide, KEY) == {"P3_spots": 0.5}
    # of features that were just computed, before they replace the stored ones
    record = recorded_as(slide.table, KEY, FeatureRecord)
    assert record is not None
    fresh = replace(record, where=replace(record.where, mpp={"P3_spots": 0.7}))
    assert image_mpp(slide, KEY, [Result(KEY, fresh)]) == {"P3_spots": 0.7}
    # without a record the scale is that of the slide
    assert image_mpp(Slide.open(adata), "X_other") == {"P3": 0.5}


def test_many_sections_are_summed_up(model: Any) -> None:
    sentences = range_warnings([one(name=str(i), distance=3.0) for i in range(5)], model)
    assert len(sentences) == 4
    assert sentences[-1] == "… and likewise 2 more sections."
    assert all("3.0 standard deviations" in s for s in sentences[:3])


@pytest.mark.parametrize(
    ("usual", "unusual", "says"),
    [
        ({"n_rows": 40, "n_tissue": 20}, {"n_rows": 40, "n_tissue": 19}, "fewer than 20"),
        ({"n_rows": 60, "n_tissue": 30}, {"n_rows": 61, "n_tissue": 30}, "only 30 have a tile on tissue"),
        ({"distance": 2.0}, {"distance": 2.1}, "2.1 standard deviations"),
        ({"factor": 1.25, "mpp": 0.625}, {"factor": 1.26, "mpp": 0.63}, "1.3 times coarser"),
        ({"factor": 0.8, "mpp": 0.4}, {"factor": 0.75, "mpp": 0.375}, "1.3 times finer"),
    ],
)
def test_what_lies_at_a_limit_is_usual(model: Any, usual: Any, unusual: Any, says: str) -> None:
    assert range_warnings([one(**usual)], model) == []
    (sentence,) = range_warnings([one(**unusual)], model)
    assert says in sentence


def test_nothing_is_said_of_usual_sections(model: Any) -> None:
    assert range_warnings([one(), one(distance=None, limit=None, factor=None, mpp=None)], model) == []


def test_a_model_without_images_or_reference_compares_nothing(model: Any) -> None:
    config = model.config
    genes = ModelConfig(config.projection_dim, {"gene": config.modalities["gene"]})
    without_images = Whisperer(genes, encoders=model.encoders)
    without_images.reference = model.reference
    without_reference = Whisperer(config, encoders=model.encoders)
    for one_model in (without_images, without_reference):
        assert section_ranges(one_model, None, np.array(["A"] * 30), {"A": 4.0}) == []


# ------------------------------------------------------------------------------------------------- real sections


@pytest.mark.slow
def test_real_sections_of_another_patient_are_within_range_and_changed_ones_are_not(data_folder: Path) -> None:
    """A1 and the sections of patient C lie within each other's range; their pictures in grey or inverted do not."""
    from spatialwhisperer._access.tiles.plan import plan_tiles
    from spatialwhisperer.pp.features.tile_features import read_tiles

    tiles = sw.tl.ImageFeatures(tile_um=154.0, tile_px=48)
    data = {name: sw.datasets.her2st(name, data_dir=data_folder) for name in ("A1", "C3")}
    encoder = sw.models.image_encoder("stain_texture")
    for train, test in (("A1", "C3"), ("C3", "A1")):
        model = sw.tl.train(data[train], image=tiles, max_epochs=1, expression=False)
        sw.pp.embed_images(data[test], tile_um=154.0, tile_px=48)
        assert [s for s in warnings_of(data[test], model) if "colours" in s] == []
        slide = Slide.open(data[test])
        pixels = read_tiles(plan_tiles(slide), 154.0, 48)
        for change in (lambda t: 255 - t, lambda t: np.repeat(t.mean(1, keepdims=True), 3, 1).round().astype(np.uint8)):
            features = encoder.encode(change(pixels), mpp=154 / 48)
            ranges = section_ranges(model, features, slide.sections, image_mpp(slide, KEY))
            assert any("colours and textures" in s for s in range_warnings(ranges, model))
