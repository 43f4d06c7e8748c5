from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer.encoders.image.nuclei import NucleiEncoder
from spatialwhisperer.protocols.benchmarks.folder.hest import read_hest
from spatialwhisperer.protocols.benchmarks.folder.materials import Materials
from spatialwhisperer.protocols.benchmarks.folder.sections import FolderOptions


@pytest.fixture(scope="module")
def slide():
    data = sw.datasets.simulate_sections(1, 90, n_genes=80, n_reference_cells=30, mpp=2.0, random_state=1)
    return data.sections["P1"]


def test_features_and_darkness_are_those_of_the_slide(hest, slide, corner_colour):
    found: Any = read_hest(hest, FolderOptions(only=("SIMP1",)))[0]
    encoder = sw.models.image_encoder(corner_colour)
    expected = sw.pp.embed_images(slide, encoder=encoder, tile_um=112, tile_px=56, off_slide="nan", inplace=False)
    np.testing.assert_array_equal(found.pixels.features(encoder), expected)
    darkness = sw.tl.tissue_darkness(slide, tile_um=112, tile_px=56, inplace=False)
    np.testing.assert_array_equal(found.pixels.darkness(), darkness)


@pytest.mark.slow
def test_an_encoder_that_looks_at_the_image_looks_at_the_patches(hest, slide):
    found: Any = read_hest(hest, FolderOptions(only=("SIMP1",)))[0]
    encoder = sw.models.image_encoder("stain_texture")
    by_patches = found.pixels.features(encoder)
    expected: Any = sw.pp.embed_images(slide, tile_um=112, tile_px=56, inplace=False)
    r = [np.corrcoef(a, b)[0, 1] for a, b in zip(by_patches.T, expected.T, strict=True) if np.ptp(a) and np.ptp(b)]
    # stains are estimated where rows are, and not over the whole image: alike, and not equal
    assert np.median(r) > 0.95
    assert not np.array_equal(by_patches, sw.models.image_encoder("stain_texture").encode(_tiles(found), mpp=2.0))


def _tiles(section):
    return np.concatenate(list(section.pixels.tiles(64, "")))


def test_an_encoder_that_looks_further_than_a_patch_is_refused(hest):
    found: Any = read_hest(hest, FolderOptions(only=("SIMP1",)))[0]
    with pytest.raises(
        ValueError, match="'nuclei' looks at 300 µm around a row, and the patches of SIMP1.h5 show 112 µm"
    ):
        found.pixels.features(NucleiEncoder())


def test_features_are_computed_once_and_anew_where_the_pixels_are_others(hest, corner_colour, tmp_path, monkeypatch):
    calls = []
    found: Any = read_hest(hest, FolderOptions(only=("SIMP1",)))[0]
    compute = type(found.pixels).features

    def watched(pixels, encoder):
        calls.append(1)
        return compute(pixels, encoder)

    monkeypatch.setattr(type(found.pixels), "features", watched)
    materials = Materials(tmp_path)
    key = materials.add_features(found, corner_colour)
    first = found.table.obsm[key]
    again: Any = read_hest(hest, FolderOptions(only=("SIMP1",)))[0]
    materials.add_features(again, corner_colour)
    np.testing.assert_array_equal(again.table.obsm[key], first)
    assert len(calls) == 1
    fewer: Any = read_hest(hest, FolderOptions(only=("SIMP1",), rows=40))[0]
    materials.add_features(fewer, corner_colour)
    assert fewer.table.obsm[key].shape == (40, 12)
    wider: Any = read_hest(hest, FolderOptions(only=("SIMP1",), tile_um=224.0))[0]
    materials.add_features(wider, corner_colour)
    touched: Any = read_hest(hest, FolderOptions(only=("SIMP1",)))[0]
    touched.pixels.stamp += " later"
    materials.add_features(touched, corner_colour)
    assert len(calls) == 4
