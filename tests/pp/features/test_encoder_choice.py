"""An encoder that needs fine images: what it writes, and what is done where an image is too coarse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anndata as ad
import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._provenance import recorded_as
from spatialwhisperer.encoders.image.nuclei import NucleiEncoder
from spatialwhisperer.pp.features.encoder_choice import choose_encoder, fine_enough
from spatialwhisperer.pp.features.images import FeatureRecord, image_features, image_recipe
from tests.encoders.image.drawn_nuclei import lattice, tile

COLUMNS = {"sw_nuclei_per_mm2", "sw_nucleus_median_area_um2", "sw_lymphocyte_like_fraction"}


def slide(factor: int = 1, name: str = "L") -> ad.AnnData:
    """Nuclei in a lattice around the centre of an image of 0.5 µm per pixel, averaged over squares of pixels."""
    image = tile(lattice(18), edge=640)
    image[:, 500:] = 255
    image = image.reshape(3, 640 // factor, factor, 640 // factor, factor).mean(axis=(2, 4)).astype(np.uint8)
    adata = ad.AnnData(np.zeros((2, 0), np.float32))
    adata.obsm["spatial"] = np.array([[320.0, 320.0], [300.0, 630.0]]) / factor
    adata.uns["spatial"] = {name: {"images": {"fullres": image.transpose(1, 2, 0)}, "scalefactors": {}}}
    return adata


@pytest.fixture(scope="module")
def embedded() -> ad.AnnData:
    adata = slide()
    sw.pp.tiles(adata, tile_um=56, tile_px=112, mpp=0.5)
    sw.pp.embed_images(adata, encoder="nuclei")
    return adata


def test_the_windows_are_those_of_the_encoder_whatever_tiles_stated(embedded):
    record = recorded_as(embedded, "X_nuclei", FeatureRecord)
    assert record is not None
    assert (record.recipe.tile_um, record.recipe.tile_px) == ((320,), 640)
    assert record.recipe.encoder == NucleiEncoder.identify("nuclei")
    assert embedded.obsm["X_nuclei"].shape == (2, NucleiEncoder().spec.dim)


def test_people_read_columns_of_obs(embedded, tmp_path):
    assert COLUMNS <= set(embedded.obs)
    np.testing.assert_allclose(embedded.obs["sw_nuclei_per_mm2"], [3600, 0], rtol=1e-4)
    area = embedded.obs["sw_nucleus_median_area_um2"].to_numpy()
    assert area[0] == pytest.approx(np.pi * 3.5**2, rel=0.05)
    assert np.isnan(area[1])
    embedded.write_h5ad(tmp_path / "slide.h5ad")
    again = ad.read_h5ad(tmp_path / "slide.h5ad")
    for column in COLUMNS:
        np.testing.assert_array_equal(again.obs[column], embedded.obs[column])


def test_features_that_are_not_written_write_no_columns():
    adata = slide()
    features = sw.pp.embed_images(adata, encoder="nuclei", mpp=0.5, inplace=False)
    assert features is not None
    assert not set(adata.obs)
    assert not set(adata.obsm) - {"spatial"}


@pytest.mark.parametrize("sizes", [{"tile_um": 100}, {"tile_px": 224}, {"tile_um": (100, 300), "tile_px": 48}])
@pytest.mark.parametrize("factor", [1, 4])
def test_other_sizes_are_refused(sizes: dict[str, Any], factor: int):
    adata = slide(factor)
    with pytest.raises(ValueError, match="windows of 100, 154, 300 µm.*Leave out tile_um and tile_px"):
        sw.pp.embed_images(adata, encoder="nuclei", mpp=0.5 * factor, **sizes)
    assert "X_nuclei" not in adata.obsm


def test_on_a_coarse_image_stain_texture_is_taken_and_said(capsys):
    adata = slide(4)
    sw.pp.embed_images(adata, encoder="nuclei", mpp=2.0)
    err = capsys.readouterr().err
    assert "'nuclei' needs 0.75 µm per pixel or finer, and L has 2: 'stain_texture' is taken instead" in err
    assert "X_stain_texture" in adata.obsm
    assert "X_nuclei" not in adata.obsm
    assert not COLUMNS & set(adata.obs)


@pytest.mark.parametrize(("mpp", "name"), [(0.75, "nuclei"), (0.76, "stain_texture")])
def test_the_limit_is_that_of_the_finest_level(mpp: float, name: str):
    assert fine_enough(choose_encoder("nuclei"), [Slide.open(slide(), mpp=mpp)]).spec.name == name
    assert fine_enough(choose_encoder(NucleiEncoder()), [Slide.open(slide(), mpp=mpp)]).spec.name == name


def test_one_coarse_object_decides_for_all():
    slides = [Slide.open(slide(), mpp=0.5), Slide.open(slide(4), mpp=2.0)]
    assert fine_enough(choose_encoder("nuclei"), slides[:1]).spec.name == "nuclei"
    assert fine_enough(choose_encoder("nuclei"), slides).spec.name == "stain_texture"
    assert fine_enough(choose_encoder("stain_texture"), slides).spec.name == "stain_texture"


def test_a_recipe_of_nuclei_is_refused_on_a_coarse_image():
    fine, coarse = Slide.open(slide(), mpp=0.5), Slide.open(slide(4), mpp=2.0)
    recipe = image_recipe(fine, choose_encoder("nuclei"))
    with pytest.raises(
        ValueError, match="has 2 µm per pixel, and encoder 'nuclei' needs 0.75 or finer.*too coarse for a model"
    ):
        image_features(coarse, recipe, NucleiEncoder)
    assert "X_nuclei" not in coarse.table.obsm


def test_features_of_other_words_are_computed_again(embedded, capsys):
    opened = Slide.open(embedded, mpp=0.5)
    recipe = image_recipe(opened, choose_encoder("nuclei"))
    assert image_features(opened, recipe, NucleiEncoder).result is None
    assert recipe.encoder is not None
    other = replace(recipe, encoder=replace(recipe.encoder, revision="another"))
    assert image_features(opened, other, NucleiEncoder).result is not None
    assert "holds features of another 'nuclei'" in capsys.readouterr().err
