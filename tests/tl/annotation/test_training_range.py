from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer.models.reference import FAR, Reference
from spatialwhisperer.tl._annotation.training_range import check_range, section_ranges

if TYPE_CHECKING:
    from pathlib import Path

SLOT = "X_stain_texture"
TILES = {"tile_um": 80, "tile_px": 64}


def changed(adata: ad.AnnData, change: Any, **options: Any) -> ad.AnnData:
    """The section with other pixels, embedded anew."""
    out = adata.copy()
    out.obsm.pop(SLOT, None)
    image = out.uns["spatial"]["P3"]["images"]["fullres"]
    out.uns["spatial"]["P3"]["images"]["fullres"] = change(image)
    sw.pp.embed_images(out, **TILES, **options)
    return out


def grey(image: np.ndarray) -> np.ndarray:
    return np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2).round().astype(np.uint8)


# ------------------------------------------------------------------------------------------------- distances


def test_distance_of_known_features() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 5))
    arrays = {"feature_mean": np.array([[0.0] * 5, [1.0] * 5], np.float32), "feature_std": np.ones((2, 5), np.float32)}
    reference = Reference({}, arrays)
    assert reference.image_limit() == FAR
    assert reference.image_distance(x) == pytest.approx(0, abs=0.05)
    assert reference.image_distance(x + 1.5) == pytest.approx(0.5, abs=0.05)
    assert reference.image_distance(x - 3) == pytest.approx(3, abs=0.05)
    # one feature that runs away counts for ten standard deviations, no more
    assert reference.image_distance(x + [1e6, 0, 0, 0, 0]) == pytest.approx(np.sqrt(100 / 5), abs=0.05)
    x[7] = np.nan
    assert np.isfinite(reference.image_distance(x))
    with pytest.raises(ValueError, match="complete rows of 5 values"):
        reference.image_distance(x[:, :3])
    with pytest.raises(ValueError, match="complete rows"):
        reference.image_distance(x[7:8])
    wide = Reference({}, arrays | {"feature_mean": np.array([[0.0] * 5, [4.0] * 5], np.float32)})
    assert wide.image_limit() == pytest.approx(6)
    one = Reference({}, {k: v[:1] for k, v in arrays.items()})
    assert one.image_limit() == FAR
    with pytest.raises(KeyError, match="no image features"):
        Reference({}, {}).image_distance(x)


def test_a_constant_feature_does_not_count_at_any_scale() -> None:
    arrays = {"feature_mean": np.array([[5.0, 0.0]], np.float32), "feature_std": np.array([[0.0, 1.0]], np.float32)}
    x = np.column_stack([np.full(30, 5.001), np.zeros(30)])
    assert Reference({}, arrays).image_distance(x) < 0.01


# ------------------------------------------------------------------------------------------------- sections


def test_another_patient_is_within_range(model: Any, section: Any) -> None:
    assert check_range(section["table"], model) == []
    (one,) = section_ranges(section["table"], model)
    assert (one.name, one.n_rows, one.n_tissue) == ("P3_spots", 120, 120)
    assert one.factor == 1
    assert one.mpp == pytest.approx(80 / 64)
    assert one.distance < one.limit


@pytest.mark.parametrize("change", [grey, lambda image: 255 - image], ids=["grey", "inverted"])
def test_other_colours_are_said(model: Any, adata: ad.AnnData, change: Any) -> None:
    (sentence,) = check_range(changed(adata, change), model)
    assert "colours and textures of section 'P3'" in sentence
    assert "standard deviations" in sentence


def test_another_scale_is_said(model: Any, adata: ad.AnnData) -> None:
    with pytest.warns(UserWarning, match="enlarged"):
        coarse = changed(adata, lambda image: image, mpp=4.0)
    sentences = check_range(coarse, model)
    assert "4 µm per pixel, 3.2 times coarser than the images in training (0.5 µm per pixel)" in sentences[0]
    # a finer image is brought to the pixels of the tiles
    assert check_range(changed(adata, lambda image: image, mpp=0.5), model) == []


def test_scale_of_an_image_finer_than_a_coarse_training(model: Any, section: Any) -> None:
    model = type("Model", (), {**{k: getattr(model, k) for k in ("config", "modalities", "towers")}})()
    model.feature_dim = lambda _: section["table"].obsm[SLOT].shape[1]
    model.reference = Reference({"mpp": [3.0, 4.0], "tile_um": 80, "tile_px": 64}, {})
    (sentence,) = check_range(section["table"], model)
    assert "2.4 times finer than the images in training (3 to 4 µm per pixel)" in sentence


def test_few_rows_and_empty_tiles_are_said(model: Any, section: Any) -> None:
    table = section["table"]
    (sentence,) = check_range(table[:12].copy(), model)
    assert "has 12 rows with a whole tile on tissue" in sentence
    glass = sw.models.image_encoder("stain_texture").encode(np.full((1, 3, 64, 64), 255, np.uint8), mpp=80 / 64)
    table.obsm[SLOT] = np.where(np.arange(120)[:, None] < 40, table.obsm[SLOT], glass)
    (sentence,) = check_range(table, model)
    assert "Of 120 rows of section 'P3_spots' only 40" in sentence
    table.obsm[SLOT][:30] = np.nan
    assert any("has 10 rows" in s for s in check_range(table, model))


def test_features_may_be_given_and_may_be_missing(model: Any, adata: ad.AnnData) -> None:
    bad = changed(adata, grey).obsm[SLOT]
    bare = adata.copy()
    del bare.obsm[SLOT]
    assert check_range(bare, model) == []
    assert len(check_range(bare, model, features=bad)) == 1


def test_many_sections_are_summed_up(model: Any, adata: ad.AnnData) -> None:
    table = ad.concat([changed(adata, grey)] * 5, label="library", index_unique="-")
    table.uns["spatial"] = {str(i): {} for i in range(5)}
    sentences = check_range(table, model)
    assert len(sentences) == 4
    assert sentences[-1] == "… and likewise 2 more sections."


def test_a_model_without_images_says_nothing(simulated: Any, section: Any) -> None:
    model = sw.tl.train(simulated.reference, max_epochs=1)
    assert check_range(section["table"], model) == []


# ------------------------------------------------------------------------------------------------- real sections


@pytest.mark.slow
def test_real_sections_of_another_patient_and_their_negatives(data_folder: Path) -> None:
    """A1 and the sections of patient C lie within each other's range; their pictures in grey or at another scale do not."""
    from spatialwhisperer.encoders.image.timm import image_encoder
    from spatialwhisperer.pp.images import read_tiles

    tables = {}
    for name in ("A1", "C3"):
        data = sw.datasets.her2st(name, data_dir=data_folder)
        sw.pp.embed_images(data, tile_um=154.0, tile_px=48, key_added="X_48")
        tables[name] = data
    encoder = image_encoder("stain_texture")
    for train, test in (("A1", "C3"), ("C3", "A1")):
        model = sw.tl.train(tables[train], image_features="X_48", max_epochs=1, expression=False)
        assert [s for s in check_range(tables[test]["table"], model) if "colours" in s] == []
        tiles = read_tiles(tables[test], tile_um=154.0, tile_px=48)
        for change in (lambda t: 255 - t, lambda t: np.repeat(t.mean(1, keepdims=True), 3, 1).round().astype(np.uint8)):
            features = encoder.encode(change(tiles), mpp=154 / 48)
            said = check_range(tables[test]["table"], model, features=features)
            assert any("colours and textures" in s for s in said)
