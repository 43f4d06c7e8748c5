from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pytest
import torch

import spatialwhisperer as sw
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.tiles.plan import TilePlan, plan_tiles
from spatialwhisperer._messages import SpatialWhispererWarning
from spatialwhisperer._provenance import recorded, recorded_as
from spatialwhisperer.encoders.image.base import GivenEncoder
from spatialwhisperer.pp.features import tile_features
from spatialwhisperer.pp.features.images import FeatureRecord
from spatialwhisperer.pp.features.tile_features import embed_tiles, read_tiles

if TYPE_CHECKING:
    from pathlib import Path

SIZES = (40, 80, 160)
PX = 32


def plan_of(data: Any, **options: Any) -> TilePlan:
    return plan_tiles(Slide.open(data, **options))


# ------------------------------------------------------------------------------------------------- reading tiles


def test_tiles_come_in_the_order_of_the_table(build: Any) -> None:
    image = build.noise()
    sdata = build.spatialdata(image, build.XY)
    got = read_tiles(plan_of(sdata), 32, 64)
    assert got.dtype == np.uint8
    assert np.array_equal(got, [build.cut(image, x, y, 64) for x, y in build.XY])
    sdata.tables["table"] = sdata.tables["table"][[3, 1]].copy()
    assert np.array_equal(read_tiles(plan_of(sdata), 16, 32), [build.cut(image, *build.XY[k], 32) for k in (3, 1)])


def test_tiles_off_the_image_are_white(build: Any) -> None:
    xy = build.XY.copy()
    xy[2] = [900, 10]
    adata = build.visium({"L": build.noise()}, {"L": xy})
    got = read_tiles(plan_tiles(Slide.open(adata, mpp=0.5), "nan"), 32, 32)
    assert (got[2] == 255).all()
    assert not (got[1] == 255).all()


def test_tiles_beyond_memory_are_mapped(noisy: ad.AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(noisy, mpp=0.5)
    inside = read_tiles(plan, 32, 32)
    monkeypatch.setattr(tile_features, "_IN_MEMORY_BYTES", 100)
    outside = read_tiles(plan, 32, 32)
    assert isinstance(outside, np.memmap)
    assert np.array_equal(inside, outside)


def test_an_encoder_that_returns_other_rows_is_named(build: Any, noisy: ad.AnnData) -> None:
    class Flat(build.Pixels):
        def encode(self, tiles: np.ndarray, *, mpp: float, device: str | None = None) -> np.ndarray:
            return super().encode(tiles, mpp=mpp, device=device).ravel()

    with pytest.raises(ValueError, match=r"Encoder 'pixels' returned shape \(\d+,\) for 5 inputs; expected \(5, d\)"):
        embed_tiles(plan_of(noisy, mpp=0.5), GivenEncoder(Flat()), [32], 16, whole=False)


# ------------------------------------------------------------------------------------------------- several sizes


@pytest.fixture
def crowd(build: Any) -> Any:
    """A SpatialData with 60 rows all over an image, some of them close to its edge."""
    xy = np.random.default_rng(0).uniform(0, build.SIDE, (60, 2))
    return build.spatialdata(build.noise(), xy)


def embed(build: Any, data: Any, **arguments: Any) -> Any:
    return sw.pp.embed_images(data, encoder=build.Pixels(), **({"tile_px": PX, "inplace": False} | arguments))


@pytest.mark.parametrize("border", ["pad", "nan"])
def test_several_sizes_stand_side_by_side_in_the_order_given(build: Any, crowd: Any, border: str) -> None:
    alone = {um: embed(build, crowd, tile_um=um, border=border) for um in (40, 160)}
    dim = alone[40].shape[1]
    for sizes in ((40, 160), [160, 40], np.array([40.0, 160.0])):
        got = embed(build, crowd, tile_um=sizes, border=border)
        assert got.dtype == np.float32
        assert got.shape == (60, 2 * dim)
        for k, um in enumerate(sizes):
            inside = np.isfinite(alone[um]).all(axis=1) & np.isfinite(got).all(axis=1)
            assert inside.sum() > 10
            assert np.array_equal(got[inside, k * dim : (k + 1) * dim], alone[um][inside])


def test_the_first_size_decides_which_rows_are_cut(build: Any, crowd: Any) -> None:
    narrow, wide = (embed(build, crowd, tile_um=um, border="nan") for um in (40, 200))
    cut, wide_cut = np.isnan(narrow).any(axis=1), np.isnan(wide).any(axis=1)
    assert cut.sum() < wide_cut.sum() < len(cut)
    both = embed(build, crowd, tile_um=(40, 200), border="nan")
    assert np.array_equal(np.isnan(both).all(axis=1), cut)
    assert np.array_equal(np.isnan(both).any(axis=1), cut)
    padded = embed(build, crowd, tile_um=200)
    assert np.array_equal(both[~cut, narrow.shape[1] :], padded[~cut])
    turned = embed(build, crowd, tile_um=(200, 40), border="nan")
    assert np.array_equal(np.isnan(turned).all(axis=1), wide_cut)


def test_what_is_recorded_of_several_sizes_computes_the_same_again(build: Any, crowd: Any, tmp_path: Path) -> None:
    table = crowd["table"]
    given = embed(build, crowd, tile_um=SIZES, key_added="X_wide")
    assert "X_wide" not in table.obsm
    embed(build, crowd, tile_um=SIZES, key_added="X_wide", inplace=True)
    assert np.array_equal(table.obsm["X_wide"], given)
    table.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    assert np.array_equal(back.obsm["X_wide"], given)
    assert recorded(back, "X_wide") == recorded(table, "X_wide")
    record = recorded_as(back, "X_wide", FeatureRecord)
    assert record is not None
    recipe = record.recipe
    assert (recipe.tile_um, recipe.tile_px, recipe.key) == ((40.0, 80.0, 160.0), PX, "X_wide")
    again = embed(build, crowd, tile_um=recipe.tile_um, tile_px=recipe.tile_px, border=recipe.border)
    assert np.array_equal(again, given)


def test_one_size_in_a_sequence_is_that_size(build: Any, crowd: Any) -> None:
    embed(build, crowd, tile_um=[80], key_added="X_one", inplace=True)
    embed(build, crowd, tile_um=80, key_added="X_same", inplace=True)
    table = crowd["table"]
    assert np.array_equal(table.obsm["X_one"], table.obsm["X_same"])
    one, same = (recorded_as(table, key, FeatureRecord) for key in ("X_one", "X_same"))
    assert one is not None
    assert same is not None
    assert one.recipe.same_features(same.recipe)
    assert one.where == same.where


def test_each_size_is_encoded_at_its_own_scale(build: Any, crowd: Any) -> None:
    seen: list[Any] = []

    class Watching(build.Pixels):
        def encode(self, tiles: np.ndarray, *, mpp: float, device: str | None = None) -> np.ndarray:
            seen.append((mpp, tiles.shape[1:]))
            return super().encode(tiles, mpp=mpp, device=device)

    sw.pp.embed_images(crowd, encoder=Watching(), tile_um=SIZES, tile_px=PX, batch_size=7, inplace=False)
    assert list(dict.fromkeys(seen)) == [(um / PX, (3, PX, PX)) for um in SIZES]


def test_several_sizes_do_not_depend_on_batch_size(build: Any, crowd: Any) -> None:
    whole = embed(build, crowd, tile_um=(40, 160))
    assert np.array_equal(embed(build, crowd, tile_um=(40, 160), batch_size=13), whole)


def test_sizes_that_are_none_are_refused_before_anything_is_written(build: Any, crowd: Any) -> None:
    before = build.state(crowd)
    for sizes, text in (
        ((), "names no size"),
        (np.array([]), "names no size"),
        ((80, 80.0), "names a size twice: 80, 80.0"),
        ((80, 0), "tile_um must be a positive"),
        ((80, -1), "tile_um must be a positive"),
        ((80, np.nan), "tile_um must be a positive"),
    ):
        with pytest.raises(ValueError, match=text):
            embed(build, crowd, tile_um=sizes, key_added="X_bad")
    with pytest.raises(TypeError, match="tile_um must be one number here"):
        sw.pp.tiles(crowd, tile_um=(40, 80), tile_px=PX)  # type: ignore[arg-type]
    assert build.state(crowd) == before


def test_only_the_size_that_would_be_enlarged_warns(crowd: Any) -> None:
    with pytest.warns(SpatialWhispererWarning, match="would be enlarged") as caught:
        sw.pp.embed_images(crowd, tile_um=(20, 160), tile_px=64, inplace=False)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert "less: 20 um for" in str(caught[0].message)


# ------------------------------------------------------------------------------------------------- several batches


def test_a_gpu_gets_several_batches_in_a_call(crowd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    calls: list[Any] = []

    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            sizes.append(len(x))
            return x.mean(dim=(2, 3))

    def three(*given: Any) -> int:
        calls.append(given)
        return 3

    def features() -> Any:
        return sw.pp.embed_images(crowd, encoder=Net(), tile_um=40, tile_px=PX, batch_size=7, inplace=False)

    alone, forward = features(), list(sizes)
    sizes.clear()
    monkeypatch.setattr(tile_features, "_batches_at_a_time", three)
    assert np.array_equal(features(), alone)
    assert sizes == forward
    assert set(forward[:-1]) == {7}
    assert calls


def test_only_encoders_that_take_tiles_batch_by_batch_get_several_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    from spatialwhisperer.encoders.image.nuclei import NucleiEncoder
    from spatialwhisperer.encoders.image.stain_texture import StainTextureEncoder

    texture = StainTextureEncoder()
    assert tile_features._batches_at_a_time(texture, "cpu") == 1
    monkeypatch.setattr(type(sw.settings), "resolve_device", lambda *_: "cuda")
    monkeypatch.setattr(tile_features, "devices_of", lambda _: ["cuda:0", "cuda:1"])
    assert tile_features._batches_at_a_time(texture, None) == 2 * tile_features._BATCHES_OF_A_GPU
    assert tile_features._batches_at_a_time(NucleiEncoder(), None) == 1
    assert tile_features._batches_at_a_time(GivenEncoder(texture), None) == 1
