from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer._messages import SpatialWhispererWarning
from spatialwhisperer._provenance import recorded, recorded_as
from spatialwhisperer.pp.features.images import FeatureRecord

if TYPE_CHECKING:
    from pathlib import Path


# without the ``None`` that its type allows
embed: Any = sw.pp.embed_images


def record_of(table: ad.AnnData, key: str = "X_pixels") -> FeatureRecord:
    out = recorded_as(table, key, FeatureRecord)
    assert out is not None
    return out


def expected(build: Any, image: np.ndarray, xy: np.ndarray, px: int) -> np.ndarray:
    return build.as_features([build.cut(image, x, y, px) for x, y in xy])


# ------------------------------------------------------------------------------------------------- which tile is read


@pytest.mark.parametrize("kind", ["circles", "polygons", "labels"])
@pytest.mark.parametrize("multiscale", [False, True])
def test_features_come_from_the_tile_around_each_row(build: Any, kind: str, multiscale: bool) -> None:
    image, xy = build.noise(), np.floor(build.XY)
    sdata = build.spatialdata(image, xy, kind=kind, multiscale=multiscale)
    encoder = build.Pixels()
    embed(sdata, encoder=encoder, tile_um=32, tile_px=64)
    table = sdata.tables["table"]
    assert np.array_equal(table.obsm["X_pixels"], expected(build, image, xy, 64))
    assert table.obsm["X_pixels"].dtype == np.float32
    assert encoder.seen["mpp"] == {0.5}
    record = record_of(table)
    assert record.recipe.name == "pixels"
    assert (record.recipe.tile_um, record.recipe.tile_px, record.recipe.border) == ((32.0,), 64, "pad")
    assert record.licence == "BSD-3-Clause"
    assert record.where.mpp == {"S_spots": 0.5}
    assert record.where.rule == {"S_spots": "coordinate system 'microns'"}
    assert record.where.image == {"S_spots": "S_image"}


@pytest.mark.parametrize("multiscale", [False, True])
def test_a_pixel_of_a_tile_is_a_mean_also_where_there_are_coarse_levels(build: Any, multiscale: bool) -> None:
    image = build.noise()
    means = image.astype(float).reshape(3, build.SIDE // 2, 2, build.SIDE // 2, 2).mean(axis=(2, 4))
    sdata = build.spatialdata(image, 2 * np.rint(build.XY / 2), multiscale=multiscale)
    got = embed(sdata, encoder=build.Pixels(), tile_um=64, tile_px=64, inplace=False)
    assert np.array_equal(got, expected(build, np.floor(means + 0.501).astype(np.uint8), np.rint(build.XY / 2), 64))


@pytest.mark.parametrize("degrees", [0, 30, 90, 215])
def test_tiles_stay_axis_aligned_in_the_image_whatever_the_coordinate_systems(build: Any, degrees: int) -> None:
    """Image and spots reach the common system by different maps."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 40], [np.sin(angle), np.cos(angle), -70], [0, 0, 1]])
    to_system = turn @ np.diag([3.0, 3.0, 1])
    back = np.linalg.inv(np.diag([0.2, 0.2, 1])) @ to_system
    own = build.XY @ back[:2, :2].T + back[:2, 2]
    image = build.noise()
    sdata = build.spatialdata(image, own, image_map=to_system, shapes_map=np.diag([0.2, 0.2, 1]))
    got = embed(sdata, encoder=build.Pixels(), tile_um=32, tile_px=64, mpp=0.5, inplace=False)
    assert np.array_equal(got, expected(build, image, build.XY, 64))


def test_scale_is_read_from_microns_from_the_pitch_or_from_the_caller(build: Any) -> None:
    grid = np.stack(np.meshgrid([100.0, 200, 300], [100.0, 200, 300]), -1).reshape(-1, 2)
    for own, arguments, mpp in (
        (0.5, {}, 0.5),
        (None, {"spot_pitch_um": 100}, 1.0),
        (None, {"mpp": {"S_spots": 2.0}}, 2.0),
        (0.5, {"mpp": 0.51}, 0.51),
    ):
        sdata = build.spatialdata(build.noise(), grid, mpp=own)
        embed(sdata, encoder=build.Pixels(), tile_um=40, tile_px=20, **arguments)
        assert record_of(sdata.tables["table"]).where.mpp["S_spots"] == pytest.approx(mpp)


def test_an_argument_against_what_the_object_states_is_refused(build: Any) -> None:
    sdata = build.spatialdata(build.noise(), build.XY, mpp=0.5)
    before = build.state(sdata)
    with pytest.raises(ValueError, match=r"disagree: 2 µm per pixel by mpp=…, 0\.5 by coordinate system 'microns'"):
        embed(sdata, encoder=build.Pixels(), tile_um=40, tile_px=20, mpp=2.0)
    assert build.state(sdata) == before


def test_a_shuffled_subset_of_two_sections_keeps_the_order_of_the_table(build: Any) -> None:
    import spatialdata as sd

    a, b, xy = build.noise(1), build.noise(2, 500, 700), build.XY
    other = xy * 0.9
    both = sd.concatenate(
        [build.spatialdata(a, xy, name="A", mpp=None), build.spatialdata(b, other, name="B", mpp=None)],
        concatenate_tables=True,
    )
    keep = np.array([7, 0, 9, 3, 5, 2])
    attrs = both.tables["table"].uns["spatialdata_attrs"]
    both.tables["table"] = both.tables["table"][keep].copy()
    assert both.tables["table"].uns["spatialdata_attrs"] == attrs
    want = [build.cut(a, *xy[k], 48) if k < 5 else build.cut(b, *other[k - 5], 48) for k in keep]
    encoder = build.Pixels()
    mpp = {"A_spots": 0.5, "B_spots": 0.5}
    got = embed(both, encoder=encoder, tile_um=24, tile_px=48, mpp=mpp, inplace=False)
    assert np.array_equal(got, build.as_features(want))
    assert encoder.seen["sizes"] == [6]


def test_results_do_not_depend_on_batch_size_or_row_order(build: Any) -> None:
    rng = np.random.default_rng(3)
    adata = build.visium({"L": build.noise()}, {"L": rng.uniform(0, build.SIDE, (60, 2))})
    arguments: dict[str, Any] = {
        "encoder": build.Pixels(),
        "tile_um": 50,
        "tile_px": 37,
        "mpp": 0.5,
        "inplace": False,
    }
    first = embed(adata, **arguments)
    order = rng.permutation(60)
    for batch_size in (1, 7, 60):
        got = embed(adata[order].copy(), batch_size=batch_size, **arguments)
        assert np.array_equal(got, first[order])
    # the rows of a part are the rows of the whole
    assert np.array_equal(embed(adata[order[:9]].copy(), **arguments), first[order[:9]])


@pytest.mark.parametrize("libraries", [("L",), ("L", "M")])
def test_visium_layout_with_float_hires(build: Any, libraries: tuple[str, ...]) -> None:
    factor = 0.25
    images = {name: build.noise(k, 200, 200) for k, name in enumerate(libraries)}
    xy = {name: np.array([[100.0 + 40 * k, 300.0], [500.0, 420.0]]) for k, name in enumerate(libraries)}
    adata = build.visium(images, xy, factor)
    got = embed(adata, encoder=build.Pixels(), tile_um=80, tile_px=40, mpp=0.5, inplace=False)
    want = [build.cut(images[name], *(point * factor), 40) for name in libraries for point in xy[name]]
    assert np.array_equal(got, build.as_features(want))


def test_tiles_that_leave_the_image_are_filled_up_or_nan(build: Any) -> None:
    image = build.noise()
    xy = np.array([[5.0, 5.0], [300.0, 300.0], [598.0, 598.0], [32.0, 32.0]])
    adata = build.visium({"L": image}, {"L": xy})
    arguments: dict[str, Any] = {
        "encoder": build.Pixels(),
        "tile_um": 32,
        "tile_px": 64,
        "mpp": 0.5,
        "inplace": False,
    }
    padded = embed(adata, **arguments)
    whole = embed(adata, border="nan", **arguments)
    assert np.array_equal(padded, expected(build, image, xy, 64))
    assert np.isnan(whole).all(axis=1).tolist() == [True, False, True, False]
    assert np.array_equal(whole[[1, 3]], padded[[1, 3]])
    with pytest.raises(ValueError, match="No tile of 32 um lies inside its image"):
        embed(adata[[0]].copy(), border="nan", **arguments)


def test_rows_off_the_slide_can_be_left_empty(build: Any) -> None:
    xy = build.XY.copy()
    xy[2] = [900, 10]
    adata = build.visium({"L": build.noise()}, {"L": xy})
    arguments: dict[str, Any] = {"tile_um": 32, "tile_px": 32, "mpp": 0.5, "off_slide": "nan"}
    got = embed(adata, encoder=build.Pixels(), inplace=False, **arguments)
    assert np.isnan(got).all(axis=1).tolist() == [False, False, True, False, False]
    sw.pp.tiles(adata, **arguments)
    assert np.isnan(adata.obsm["sw_tiles"][2]).all()
    assert np.array_equal(embed(adata, encoder=build.Pixels(), inplace=False), got, equal_nan=True)


# ------------------------------------------------------------------------------------------------- sizes


def test_what_tiles_recorded_is_used(build: Any) -> None:
    image = build.noise()
    sdata = build.spatialdata(image, build.XY, mpp=None)
    sw.pp.tiles(sdata, tile_um=32, tile_px=64, mpp=0.5)
    embed(sdata, encoder=build.Pixels(tile_um=999.0, input_px=11))
    table = sdata.tables["table"]
    assert np.array_equal(table.obsm["X_pixels"], expected(build, image, build.XY, 64))
    assert record_of(table).where.mpp == {"S_spots": 0.5}


def test_size_comes_from_the_encoder_where_nobody_states_it(build: Any, noisy: ad.AnnData) -> None:
    encoder = build.Pixels(input_px=32, mpp=0.25)
    embed(noisy, encoder=encoder, mpp=0.25)
    recipe = record_of(noisy).recipe
    assert (recipe.tile_um, recipe.tile_px) == ((8.0,), 32)
    assert encoder.seen["mpp"] == {0.25}
    with pytest.raises(ValueError, match="size of the tiles is not known"):
        embed(noisy, encoder=build.Pixels(), mpp=0.5)


def test_enlarging_is_never_silent(build: Any) -> None:
    adata = build.visium({"L": build.noise(0, 100, 100)}, {"L": build.XY}, factor=1 / 6)
    with pytest.warns(SpatialWhispererWarning, match=r"would be enlarged to 64 pixels.*at most tile_px=10\)") as caught:
        embed(adata, encoder=build.Pixels(), tile_um=32, tile_px=64, mpp=0.5)
    assert caught[0].filename == __file__


# ------------------------------------------------------------------------------------------------- storage


@pytest.mark.slow
def test_zarr_backed_equals_memory(build: Any, tmp_path: Path) -> None:
    import spatialdata as sd

    sdata = build.spatialdata(build.noise(), build.XY, multiscale=True)
    sdata.write(tmp_path / "slide.zarr")
    stored = sd.read_zarr(tmp_path / "slide.zarr")
    arguments: dict[str, Any] = {"encoder": build.Pixels(), "tile_um": 32, "tile_px": 48}
    got = embed(stored, inplace=False, **arguments)
    assert np.array_equal(got, embed(sdata, inplace=False, **arguments))
    embed(stored, **arguments)
    stored.write(tmp_path / "again.zarr")
    again = sd.read_zarr(tmp_path / "again.zarr").tables["table"]
    assert np.array_equal(again.obsm["X_pixels"], stored.tables["table"].obsm["X_pixels"])
    assert recorded(again, "X_pixels") == recorded(stored.tables["table"], "X_pixels")
    assert record_of(again) == record_of(stored.tables["table"])


def test_h5ad_keeps_features_and_provenance(build: Any, noisy: ad.AnnData, tmp_path: Path) -> None:
    embed(noisy, encoder=build.Pixels(name="org/model:v1"), tile_um=32, tile_px=48, mpp=0.5)
    noisy.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    assert np.array_equal(again.obsm["X_org_model_v1"], noisy.obsm["X_org_model_v1"])
    assert record_of(again, "X_org_model_v1") == record_of(noisy, "X_org_model_v1")


# ------------------------------------------------------------------------------------------------- what is refused


def test_errors_leave_the_object_unchanged(build: Any) -> None:
    class Broken(build.Pixels):
        def __init__(self, error: BaseException) -> None:
            super().__init__()
            self.error = error

        def encode(self, tiles: np.ndarray, *, mpp: float, device: str | None = None) -> np.ndarray:
            if len(self.seen["sizes"]) == 2:
                raise self.error
            return super().encode(tiles, mpp=mpp, device=device)

    class Short(build.Pixels):
        def encode(self, tiles: np.ndarray, *, mpp: float, device: str | None = None) -> np.ndarray:
            return super().encode(tiles, mpp=mpp, device=device)[:1]

    def on_noise(xy: np.ndarray) -> ad.AnnData:
        return build.visium({"L": build.noise()}, {"L": xy})

    adata = on_noise(build.XY)
    sdata = build.spatialdata(build.noise(), build.XY, mpp=None)
    away = on_noise(build.XY + [[0, 0], [0, 0], [500, 0], [0, 0], [0, 0]])
    lost, blind = on_noise(build.XY), on_noise(build.XY)
    lost.obsm["spatial"][2] = np.nan
    del blind.uns["spatial"]
    good: dict[str, Any] = {"encoder": build.Pixels(), "tile_um": 32, "tile_px": 16, "mpp": 0.5}
    cases: list[tuple[Any, dict[str, Any], type[BaseException], str | None]] = [
        (adata, {"mpp": None}, ValueError, "microns per pixel of section 'L'"),
        (sdata, {"mpp": None}, ValueError, "microns per pixel of section 'S_spots'"),
        (adata, {"mpp": -1}, ValueError, "mpp must be a positive"),
        (adata, {"mpp": 20}, ValueError, "mpp=20 looks like the magnification"),
        (adata, {"tile_um": 0}, ValueError, "tile_um must be a positive"),
        (adata, {"tile_px": 1.5}, ValueError, "tile_px must be"),
        (adata, {"encoder": build.Pixels(tile_um=32.0), "tile_um": None, "tile_px": 0}, ValueError, "tile_px must be"),
        (adata, {"batch_size": 0}, ValueError, "batch_size"),
        (adata, {"border": "wrap"}, ValueError, "border must be one of 'pad', 'nan'"),
        (adata, {"off_slide": "drop"}, ValueError, "off_slide must be one of"),
        (adata, {"coordinate_system": "x"}, ValueError, "applies to SpatialData"),
        (adata, {"image_key": "nope"}, KeyError, "image_key='nope' is not an image"),
        (sdata, {"image_key": "nope"}, KeyError, "S_image"),
        (sdata, {"table_key": "nope"}, KeyError, "table_key='nope'"),
        (adata, {"imagekey": "L"}, TypeError, "Did you mean image_key"),
        (away, {}, ValueError, "1 of 5 tile centres of section 'L' are off image 'L'"),
        (lost, {}, ValueError, "NaN coordinates"),
        (blind, {}, KeyError, "no H&E image"),
        (adata, {"encoder": Short()}, ValueError, "for 5 inputs"),
        (adata, {"encoder": Broken(OSError("disk")), "batch_size": 1}, OSError, "disk"),
        (adata, {"encoder": Broken(KeyboardInterrupt()), "batch_size": 1}, KeyboardInterrupt, None),
    ]
    for data, changes, error, text in cases:
        before = build.state(data)
        with pytest.raises(error, match=text):
            embed(data, **(good | changes))
        assert build.state(data) == before
    assert not [t for t in threading.enumerate() if t.name == "spatialwhisperer-prefetch"]


# ------------------------------------------------------------------------------------------------- encoders, real data


def test_a_network_runs_on_tiles(noisy: ad.AnnData) -> None:
    encoder = sw.models.image_encoder("resnet18", pretrained=False)
    arguments: dict[str, Any] = {"encoder": encoder, "tile_um": 32, "tile_px": 64, "mpp": 0.5, "inplace": False}
    got = embed(noisy, **arguments)
    assert got.shape == (5, 512)
    one = embed(noisy, batch_size=1, **arguments)
    np.testing.assert_allclose(one, got, rtol=1e-4, atol=1e-5)


def test_the_encoder_without_weights_is_the_default(noisy: ad.AnnData) -> None:
    embed(noisy, tile_um=32, tile_px=64, mpp=0.5)
    assert np.isfinite(noisy.obsm["X_stain_texture"]).all()


@pytest.mark.slow
def test_real_sections(build: Any, data_folder: Path) -> None:
    from PIL import Image

    for name in ("A1", "C2"):
        folder = data_folder / "her2st" / name
        meta = json.loads((folder / "meta.json").read_text())
        picture = np.moveaxis(np.asarray(Image.open(folder / meta["image"]).convert("RGB")), -1, 0)
        counts = ad.read_h5ad(folder / "counts.h5ad")
        adata = build.visium({name: picture}, {name: np.asarray(counts.obsm["spatial"], float)})
        p = round(154 / meta["um_per_px"])
        embed(adata, encoder=build.Pixels(), tile_um=154, tile_px=p, spot_pitch_um=200)
        assert np.isfinite(adata.obsm["X_pixels"]).all()
        # the pitch gives the scale that the data's authors state
        assert record_of(adata).where.mpp[name] == pytest.approx(meta["um_per_px"], rel=0.02)
        embed(adata, encoder=build.Pixels(), tile_um=p * meta["um_per_px"], tile_px=p, mpp=meta["um_per_px"])
        assert np.array_equal(adata.obsm["X_pixels"][[7]], expected(build, picture, adata.obsm["spatial"][[7]], p))
