from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer._messages import SpatialWhispererWarning
from spatialwhisperer._provenance import recorded
from spatialwhisperer.pp.images import read_tiles

SIZES = (40, 80, 160)
PX = 32


@pytest.mark.parametrize("border", ["pad", "nan"])
def test_several_sizes_stand_side_by_side_in_the_order_given(section: Any, border: str) -> None:
    alone = {um: sw.pp.embed_images(section, tile_um=um, tile_px=PX, border=border, inplace=False) for um in (40, 160)}
    dim = alone[40].shape[1]
    for sizes in ((40, 160), [160, 40], np.array([40.0, 160.0])):
        got = sw.pp.embed_images(section, tile_um=sizes, tile_px=PX, border=border, inplace=False)
        assert got.dtype == np.float32
        assert got.shape == (120, 2 * dim)
        for k, um in enumerate(sizes):
            inside = np.isfinite(alone[um]).all(axis=1) & np.isfinite(got).all(axis=1)
            assert inside.sum() > 20
            assert np.array_equal(got[inside, k * dim : (k + 1) * dim], alone[um][inside])


def test_the_first_size_decides_which_rows_are_cut(adata: Any) -> None:
    arguments = {"tile_px": PX, "mpp": 0.5, "border": "nan", "inplace": False}
    narrow, wide = (sw.pp.embed_images(adata, tile_um=um, **arguments) for um in (40, 320))
    cut, wide_cut = np.isnan(narrow).any(axis=1), np.isnan(wide).any(axis=1)
    assert cut.sum() < wide_cut.sum() < len(cut)
    both = sw.pp.embed_images(adata, tile_um=(40, 320), **arguments)
    assert np.array_equal(np.isnan(both).all(axis=1), cut)
    assert np.array_equal(np.isnan(both).any(axis=1), cut)
    padded = sw.pp.embed_images(adata, tile_um=320, **(arguments | {"border": "pad"}))
    assert np.array_equal(both[~cut, narrow.shape[1] :], padded[~cut])
    turned = sw.pp.embed_images(adata, tile_um=(320, 40), **arguments)
    assert np.array_equal(np.isnan(turned).all(axis=1), wide_cut)


def test_what_is_written_and_read_back(section: Any, tmp_path: Any) -> None:
    table = section["table"]
    given = sw.pp.embed_images(section, tile_um=SIZES, tile_px=PX, inplace=False, key_added="X_wide")
    assert "X_wide" not in table.obsm
    sw.pp.embed_images(section, tile_um=SIZES, tile_px=PX, key_added="X_wide")
    assert np.array_equal(table.obsm["X_wide"], given)
    stored = recorded(table, "X_wide")
    assert stored["tile_um"] == [40.0, 80.0, 160.0]
    assert stored["tile_px"] == PX
    # what the provenance says computes the same again, after a round through JSON
    again = json.loads(json.dumps({k: stored[k] for k in ("tile_um", "tile_px", "border")}))
    assert np.array_equal(sw.pp.embed_images(section, inplace=False, **again), given)
    import anndata as ad

    table.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    assert np.array_equal(back.obsm["X_wide"], given)
    assert recorded(back, "X_wide") == stored


def test_one_size_in_a_sequence_is_that_size(section: Any) -> None:
    sw.pp.embed_images(section, tile_um=[80], tile_px=PX, key_added="X_one")
    sw.pp.embed_images(section, tile_um=80, tile_px=PX, key_added="X_same")
    table = section["table"]
    assert np.array_equal(table.obsm["X_one"], table.obsm["X_same"])
    assert recorded(table, "X_one") == recorded(table, "X_same")


def test_each_size_is_encoded_at_its_own_scale(section: Any) -> None:
    from spatialwhisperer.encoders.image.timm import image_encoder

    encoder, seen = image_encoder("stain_texture"), []

    class Watching:
        spec = encoder.spec

        def encode(self, tiles: np.ndarray, *, mpp: float, device: str | None = None) -> np.ndarray:
            seen.append((mpp, tiles.shape[1:]))
            return encoder.encode(tiles, mpp=mpp, device=device)

    sw.pp.embed_images(section, encoder=Watching(), tile_um=SIZES, tile_px=PX, batch_size=7, inplace=False)
    assert list(dict.fromkeys(seen)) == [(um / PX, (3, PX, PX)) for um in SIZES]


def test_results_do_not_depend_on_batch_size(section: Any) -> None:
    arguments = {"tile_um": (40, 160), "tile_px": PX, "inplace": False}
    whole = sw.pp.embed_images(section, **arguments)
    assert np.array_equal(sw.pp.embed_images(section, batch_size=13, **arguments), whole)


def test_sizes_that_are_none_are_refused_before_anything_is_written(section: Any) -> None:
    table = section["table"]
    before = sorted(table.obsm), json.dumps(table.uns["spatialwhisperer"], default=str)
    for sizes, text in (
        ((), "names no size"),
        (np.array([]), "names no size"),
        ((80, 80.0), "names a size twice: 80, 80.0"),
        ((80, 0), "tile_um must be a positive"),
        ((80, -1), "tile_um must be a positive"),
        ((80, np.nan), "tile_um must be a positive"),
    ):
        with pytest.raises(ValueError, match=text):
            sw.pp.embed_images(section, tile_um=sizes, tile_px=PX, key_added="X_bad")
    for call in (sw.pp.tiles, read_tiles):
        with pytest.raises(TypeError, match="tile_um must be one number here"):
            call(section, tile_um=(40, 80), tile_px=PX)
    assert before == (sorted(table.obsm), json.dumps(table.uns["spatialwhisperer"], default=str))


def test_only_the_size_that_would_be_enlarged_warns(adata: Any) -> None:
    with pytest.warns(SpatialWhispererWarning, match="would be enlarged") as caught:
        sw.pp.embed_images(adata, tile_um=(20, 160), tile_px=64, mpp=0.5, inplace=False)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert "over 20 um" in str(caught[0].message)
