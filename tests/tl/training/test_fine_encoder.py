"""Training and prediction with an image encoder that needs fine images."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw
from tests.encoders.image.drawn_nuclei import tile

GENES = ["CD3D", "COL1A1", "ERBB2", "KRT8", "MKI67"]


def section(factor: int = 1) -> Any:
    """Spots on drawn nuclei, more of them to the right; the image averaged over squares of pixels."""
    rng = np.random.default_rng(0)
    centres = 900 * np.sqrt(rng.uniform(0, 1, (700, 2)))
    image = tile(centres, edge=912).reshape(3, 912 // factor, factor, 912 // factor, factor).mean(axis=(2, 4))
    xy = np.stack(np.meshgrid(np.linspace(200, 700, 6), np.linspace(200, 700, 6)), -1).reshape(-1, 2)
    counts = rng.poisson(np.outer(xy[:, 0] / 50, np.arange(1, 6)))
    adata = ad.AnnData(counts.astype(np.float32), var=pd.DataFrame(index=GENES))
    adata.obs["patient"] = "p"
    adata.obsm["spatial"] = xy / factor
    name = f"L{factor}"
    pixels = image.astype(np.uint8).transpose(1, 2, 0)
    adata.uns["spatial"] = {name: {"images": {"fullres": pixels}, "scalefactors": {}}}
    sw.pp.tiles(adata, tile_um=60, tile_px=60 // factor, mpp=0.5 * factor)
    return adata


@pytest.fixture(scope="module")
def model() -> Any:
    preset = sw.models.get_preset("bleep")
    return sw.tl.train(section(), preset=preset, image="nuclei", gene="identity", max_epochs=1, random_state=0)


@pytest.mark.slow
def test_a_model_of_nuclei_reads_them_wherever_it_is_used(model: Any) -> None:
    recipe = model.config.modalities["image"].features
    assert (recipe.name, recipe.tile_um, recipe.tile_px) == ("nuclei", (320.0,), 640)
    other = section()
    sw.tl.embed(other, model=model, modality="image")
    assert np.isfinite(other.obsm["X_sw_image"]).all()
    assert "sw_nuclei_per_mm2" in other.obs


def test_a_coarse_slide_is_refused_before_anything_is_written(model: Any) -> None:
    coarse = section(4)
    before = set(coarse.obsm), set(coarse.obs)
    with pytest.raises(
        ValueError, match="2 µm per pixel, and encoder 'nuclei' needs 0.75 or finer.*too coarse for a model"
    ):
        sw.tl.embed(coarse, model=model, modality="image")
    assert (set(coarse.obsm), set(coarse.obs)) == before


def test_sizes_are_refused_before_anything_is_read() -> None:
    with pytest.raises(ValueError, match="takes no other sizes; found tile_um=100"):
        sw.tl.train(section(), preset="bleep", image=sw.tl.ImageFeatures("nuclei", tile_um=100))
