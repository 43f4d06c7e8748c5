from __future__ import annotations

import json
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

import spatialwhisperer as sw
from spatialwhisperer._access import Level, RasterImage, Section
from spatialwhisperer._access.prefetch import batches, prefetch
from spatialwhisperer._access.tile_reader import TileReader
from spatialwhisperer._provenance import recorded
from spatialwhisperer.pp.images import embed_images, read_tiles
from spatialwhisperer.pp.tiles import tiles

if TYPE_CHECKING:
    from pathlib import Path

SIDE = 600


class Pixels:
    """An encoder whose features are pixels, so that a feature says exactly which tile was read."""

    def __init__(self, **spec: Any) -> None:
        values = {
            "name": "pixels",
            "input_px": None,
            "mpp": None,
            "tile_um": None,
            "licence": "BSD-3-Clause",
            "dim": None,
        }
        self.spec = SimpleNamespace(**(values | spec))
        self.sizes: list[int] = []
        self.mpp: set[float] = set()

    def encode(self, tiles: np.ndarray, *, mpp: float, device: str | None = None) -> np.ndarray:
        assert tiles.dtype == np.uint8
        assert device is None
        self.sizes.append(len(tiles))
        self.mpp.add(mpp)
        return tiles.reshape(len(tiles), -1)[:, ::7].astype(np.float32)


def noise(seed: int = 0, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (3, height, width), dtype=np.uint8)


def cut(image: np.ndarray, x: float, y: float, p: int) -> np.ndarray:
    """The tile, by padding the whole image: slow and plain."""
    padded = np.pad(image, ((0, 0), (2 * p, 2 * p), (2 * p, 2 * p)), constant_values=255)
    left, top = (int(np.floor(v - p / 2 + 0.5)) + 2 * p for v in (x, y))
    return padded[:, top : top + p, left : left + p]


def as_features(tiles_: list[np.ndarray]) -> np.ndarray:
    return np.stack(tiles_).reshape(len(tiles_), -1)[:, ::7].astype(np.float32)


def slide(
    image: np.ndarray,
    xy: np.ndarray,
    *,
    name: str = "S",
    kind: str = "circles",
    multiscale: bool = False,
    image_map: np.ndarray | None = None,
    shapes_map: np.ndarray | None = None,
    with_table: bool = True,
    mpp: float | None = 0.5,
) -> Any:
    """A SpatialData of one section; the maps are affine matrices to its coordinate system."""
    import geopandas as gpd
    import shapely
    import spatialdata as sd
    from spatialdata.models import Image2DModel, Labels2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Affine, Identity, Scale

    def maps(matrix: np.ndarray | None) -> dict[str, Any]:
        place = Identity() if matrix is None else Affine(matrix, input_axes=("x", "y"), output_axes=("x", "y"))
        return {name: place} | ({} if mpp is None or matrix is not None else {"microns": Scale([mpp, mpp], ("x", "y"))})

    pyramid = {"scale_factors": [2, 2]} if multiscale else {}
    element = Image2DModel.parse(image, dims=("c", "y", "x"), transformations=maps(image_map), **pyramid)
    index = np.array([f"i{k}" for k in range(len(xy))])
    groups: dict[str, Any] = {"images": {f"{name}_image": element}}
    if kind == "labels":
        pixels = np.zeros(image.shape[1:], np.int64)
        for k, (x, y) in enumerate(xy.astype(int)):
            pixels[y - 2 : y + 2, x - 2 : x + 2] = k + 1
        index = np.arange(len(xy)) + 1
        groups["labels"] = {
            f"{name}_spots": Labels2DModel.parse(pixels, dims=("y", "x"), transformations=maps(shapes_map))
        }
    elif kind == "polygons":
        squares = gpd.GeoDataFrame(geometry=shapely.box(*(xy - 3).T, *(xy + 3).T), index=index)
        groups["shapes"] = {f"{name}_spots": ShapesModel.parse(squares, transformations=maps(shapes_map))}
    else:
        circles = ShapesModel.parse(xy, geometry=0, radius=5.0, index=index, transformations=maps(shapes_map))
        groups["shapes"] = {f"{name}_spots": circles}
    if with_table:
        obs = pd.DataFrame(
            {"region": pd.Categorical([f"{name}_spots"] * len(xy)), "instance_id": index},
            index=[f"{name}_{k}" for k in index],
        )
        table = ad.AnnData(csr_matrix(np.ones((len(xy), 3), np.float32)), obs=obs)
        groups["tables"] = {
            "table": TableModel.parse(table, region=f"{name}_spots", region_key="region", instance_key="instance_id")
        }
    return sd.SpatialData(**groups)


def visium(images: dict[str, np.ndarray], xy: dict[str, np.ndarray], factor: float | None = None) -> ad.AnnData:
    """The AnnData that scanpy's Visium reader makes; ``factor`` stores float images scaled by it as ``hires``."""
    library = np.concatenate([[name] * len(points) for name, points in xy.items()])
    adata = ad.AnnData(csr_matrix(np.ones((len(library), 3), np.float32)))
    adata.obs["library_id"] = pd.Categorical(library)
    adata.obsm["spatial"] = np.concatenate(list(xy.values()))
    for name, image in images.items():
        last = np.moveaxis(image, 0, -1)
        key, scale = ("fullres", {}) if factor is None else ("hires", {"tissue_hires_scalef": factor})
        entry = last if factor is None else (last / 255).astype(np.float32)
        adata.uns.setdefault("spatial", {})[name] = {"images": {key: entry}, "scalefactors": scale}
    return adata


def state(data: Any) -> str:
    """Everything that a failed call must leave alone."""
    if isinstance(data, ad.AnnData):
        return (
            str(sorted(data.obsm)) + str(sorted(data.uns)) + str(list(data.obs)) + str(data.uns.get("spatialwhisperer"))
        )
    return str(sorted(str(e[:2]) for e in data.gen_elements())) + "".join(state(t) for t in data.tables.values())


XY = np.array([[150.0, 120.0], [300.5, 410.2], [477.0, 222.0], [90.0, 505.0], [301.0, 300.0]])


@pytest.mark.parametrize("kind", ["circles", "polygons", "labels"])
@pytest.mark.parametrize("multiscale", [False, True])
def test_features_come_from_the_tile_around_each_row(kind: str, multiscale: bool) -> None:
    image, xy = noise(), np.floor(XY)
    sdata = slide(image, xy, kind=kind, multiscale=multiscale)
    encoder = Pixels()
    embed_images(sdata, encoder=encoder, tile_um=32, tile_px=64)
    table = sdata.tables["table"]
    assert np.array_equal(table.obsm["X_pixels"], as_features([cut(image, x, y, 64) for x, y in xy]))
    assert table.obsm["X_pixels"].dtype == np.float32
    assert encoder.mpp == {0.5}
    stored = recorded(table, "X_pixels")
    assert stored["encoder"] == "pixels"
    assert stored["mpp"] == {"S_spots": 0.5}
    assert stored["image"] == {"S_spots": "S_image"}
    assert stored["tile_um"] == 32.0


def test_a_coarse_level_is_read_where_it_has_enough_pixels() -> None:
    image = noise()
    sdata = slide(image, XY, multiscale=True)
    level = sdata.images["S_image"]["scale1"]["image"].to_numpy()
    got = embed_images(sdata, encoder=Pixels(), tile_um=64, tile_px=64, inplace=False)
    assert np.array_equal(got, as_features([cut(level, x / 2, y / 2, 64) for x, y in XY]))


@pytest.mark.parametrize("degrees", [0, 30, 90, 215])
def test_rotated_and_scaled_coordinate_systems(degrees: int) -> None:
    """Image and spots reach the common system by different maps; tiles stay axis-aligned in the image."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 40], [np.sin(angle), np.cos(angle), -70], [0, 0, 1]])
    to_system = turn @ np.diag([3.0, 3.0, 1])
    back = np.linalg.inv(np.diag([0.2, 0.2, 1])) @ to_system
    own = XY @ back[:2, :2].T + back[:2, 2]
    image = noise()
    sdata = slide(image, own, image_map=to_system, shapes_map=np.diag([0.2, 0.2, 1]))
    got = embed_images(sdata, encoder=Pixels(), tile_um=32, tile_px=64, mpp=0.5, inplace=False)
    assert np.array_equal(got, as_features([cut(image, x, y, 64) for x, y in XY]))


def test_scale_is_read_from_microns_and_from_the_pitch() -> None:
    image = noise()
    grid = np.stack(np.meshgrid([100.0, 200, 300], [100.0, 200, 300]), -1).reshape(-1, 2)
    for arguments, mpp in (({}, 0.5), ({"spot_pitch_um": 100}, 1.0), ({"mpp": {"S_spots": 2.0}}, 2.0)):
        sdata = slide(image, grid)
        embed_images(sdata, encoder=Pixels(), tile_um=40, tile_px=20, **arguments)
        assert recorded(sdata.tables["table"], "X_pixels")["mpp"]["S_spots"] == pytest.approx(mpp)


def test_a_shuffled_subset_of_two_sections_keeps_the_order_of_the_table() -> None:
    import spatialdata as sd

    a, b = noise(1), noise(2, 500, 700)
    other = XY * 0.9
    both = sd.concatenate(
        [slide(a, XY, name="A", mpp=None), slide(b, other, name="B", mpp=None)], concatenate_tables=True
    )
    keep = np.array([7, 0, 9, 3, 5, 2])
    attrs = both.tables["table"].uns["spatialdata_attrs"]
    both.tables["table"] = both.tables["table"][keep].copy()
    assert both.tables["table"].uns["spatialdata_attrs"] == attrs
    want = [cut(a, *XY[k], 48) if k < 5 else cut(b, *other[k - 5], 48) for k in keep]
    encoder = Pixels()
    got = embed_images(
        both, encoder=encoder, tile_um=24, tile_px=48, mpp={"A_spots": 0.5, "B_spots": 0.5}, inplace=False
    )
    assert np.array_equal(got, as_features(want))
    assert encoder.sizes == [6]


def test_results_do_not_depend_on_batch_size_or_row_order() -> None:
    rng = np.random.default_rng(3)
    xy = rng.uniform(0, SIDE, (60, 2))
    adata = visium({"L": noise()}, {"L": xy})
    arguments = {"encoder": Pixels(), "tile_um": 50, "tile_px": 37, "mpp": 0.5, "inplace": False}
    first = embed_images(adata, **arguments)
    order = rng.permutation(60)
    for batch_size in (1, 7, 60):
        assert np.array_equal(embed_images(adata[order].copy(), batch_size=batch_size, **arguments), first[order])
    # the rows of a part are the rows of the whole
    assert np.array_equal(embed_images(adata[order[:9]].copy(), **arguments), first[order[:9]])


@pytest.mark.parametrize("libraries", [("L",), ("L", "M")])
def test_visium_layout_with_float_hires(libraries: tuple[str, ...]) -> None:
    factor = 0.25
    images = {name: noise(k, 200, 200) for k, name in enumerate(libraries)}
    xy = {name: np.array([[100.0 + 40 * k, 300.0], [500.0, 420.0]]) for k, name in enumerate(libraries)}
    adata = visium(images, xy, factor)
    got = embed_images(adata, encoder=Pixels(), tile_um=80, tile_px=40, mpp=0.5, inplace=False)
    want = [cut(images[name], *(point * factor), 40) for name in libraries for point in xy[name]]
    assert np.array_equal(got, as_features(want))


def test_borders_are_glass_or_nan() -> None:
    image = noise()
    xy = np.array([[5.0, 5.0], [300.0, 300.0], [598.0, 598.0], [32.0, 32.0]])
    adata = visium({"L": image}, {"L": xy})
    arguments = {"encoder": Pixels(), "tile_um": 32, "tile_px": 64, "mpp": 0.5, "inplace": False}
    padded = embed_images(adata, **arguments)
    assert np.array_equal(padded, as_features([cut(image, x, y, 64) for x, y in xy]))
    whole = embed_images(adata, border="nan", **arguments)
    assert np.isnan(whole).all(axis=1).tolist() == [True, False, True, False]
    assert np.array_equal(whole[[1, 3]], padded[[1, 3]])
    with pytest.raises(ValueError, match="lies inside"):
        embed_images(adata[[0]].copy(), border="nan", **arguments)


def test_what_tiles_recorded_is_used() -> None:
    image = noise()
    sdata = slide(image, XY, mpp=None)
    tiles(sdata, tile_um=32, tile_px=64, mpp=0.5)
    encoder = Pixels(tile_um=999.0, input_px=11)
    embed_images(sdata, encoder=encoder)
    assert np.array_equal(sdata.tables["table"].obsm["X_pixels"], as_features([cut(image, x, y, 64) for x, y in XY]))
    # an argument wins over it
    assert read_tiles(sdata, tile_px=32).shape == (5, 3, 32, 32)
    # and it survives a subset
    sdata.tables["table"] = sdata.tables["table"][[3, 1]].copy()
    assert np.array_equal(read_tiles(sdata)[0], cut(image, *XY[3], 64))


def test_size_comes_from_the_encoder() -> None:
    adata = visium({"L": noise()}, {"L": XY})
    encoder = Pixels(input_px=32, mpp=0.25)
    embed_images(adata, encoder=encoder, mpp=0.25)
    stored = recorded(adata, "X_pixels")
    assert (stored["tile_um"], stored["tile_px"]) == (8.0, 32)
    assert encoder.mpp == {0.25}
    with pytest.raises(ValueError, match="size of the tiles is not known"):
        embed_images(adata, encoder=Pixels(), mpp=0.5)


def test_zarr_backed_equals_memory(tmp_path: Path) -> None:
    import spatialdata as sd

    sdata = slide(noise(), XY, multiscale=True)
    sdata.write(tmp_path / "slide.zarr")
    stored = sd.read_zarr(tmp_path / "slide.zarr")
    arguments = {"encoder": Pixels(), "tile_um": 32, "tile_px": 48, "inplace": False}
    assert np.array_equal(embed_images(stored, **arguments), embed_images(sdata, **arguments))
    embed_images(stored, encoder=Pixels(), tile_um=32, tile_px=48)
    stored.write(tmp_path / "again.zarr")
    again = sd.read_zarr(tmp_path / "again.zarr").tables["table"]
    assert np.array_equal(again.obsm["X_pixels"], stored.tables["table"].obsm["X_pixels"])
    assert recorded(again, "X_pixels") == recorded(stored.tables["table"], "X_pixels")


def test_h5ad_keeps_features_and_provenance(tmp_path: Path) -> None:
    adata = visium({"L": noise()}, {"L": XY})
    embed_images(adata, encoder=Pixels(name="org/model:v1"), tile_um=32, tile_px=48, mpp=0.5)
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    assert np.array_equal(again.obsm["X_org_model_v1"], adata.obsm["X_org_model_v1"])
    assert recorded(again, "X_org_model_v1") == recorded(adata, "X_org_model_v1")


def test_errors_leave_the_object_unchanged() -> None:
    class Broken(Pixels):
        def encode(self, tiles: np.ndarray, *, mpp: float, device: str | None = None) -> np.ndarray:
            if len(self.sizes) == 2:
                raise self.error
            return super().encode(tiles, mpp=mpp, device=device)

    class Short(Pixels):
        def encode(self, tiles: np.ndarray, *, mpp: float, device: str | None = None) -> np.ndarray:
            return super().encode(tiles, mpp=mpp, device=device)[:1]

    def broken(error: BaseException) -> Broken:
        encoder = Broken()
        encoder.error = error
        return encoder

    adata = visium({"L": noise()}, {"L": XY})
    sdata = slide(noise(), XY, mpp=None)
    away = visium({"L": noise()}, {"L": XY + [[0, 0], [0, 0], [500, 0], [0, 0], [0, 0]]})
    lost = visium({"L": noise()}, {"L": XY})
    lost.obsm["spatial"][2] = np.nan
    blind = visium({"L": noise()}, {"L": XY})
    del blind.uns["spatial"]
    good = {"encoder": Pixels(), "tile_um": 32, "tile_px": 16, "mpp": 0.5}
    cases = [
        (adata, {**good, "mpp": None}, ValueError, "microns per pixel of section 'L'"),
        (sdata, {**good, "mpp": None}, ValueError, "microns per pixel of section 'S_spots'"),
        (adata, {**good, "mpp": -1}, ValueError, "mpp must be a positive"),
        (adata, {**good, "tile_um": 0}, ValueError, "tile_um must be a positive"),
        (adata, {**good, "tile_px": 1.5}, ValueError, "tile_px must be"),
        (adata, {**good, "batch_size": 0}, ValueError, "batch_size"),
        (adata, {**good, "border": "wrap"}, ValueError, "border must be one of 'pad', 'nan'"),
        (adata, {**good, "off_slide": "drop"}, ValueError, "off_slide must be one of"),
        (adata, {**good, "coordinate_system": "x"}, ValueError, "applies to SpatialData"),
        (adata, {**good, "image_key": "nope"}, KeyError, "no image 'nope'"),
        (sdata, {**good, "image_key": "nope"}, KeyError, "S_image"),
        (sdata, {**good, "table_key": "nope"}, KeyError, "table_key='nope'"),
        (away, good, ValueError, "1 of 5 tile centres of section 'L' are off image 'L'"),
        (lost, good, ValueError, "NaN coordinates"),
        (blind, good, KeyError, "no H&E image"),
        (adata, {**good, "encoder": Short()}, ValueError, "for 5 tiles"),
        (adata, {**good, "encoder": broken(OSError("disk")), "batch_size": 1}, OSError, "disk"),
        (adata, {**good, "encoder": broken(KeyboardInterrupt()), "batch_size": 1}, KeyboardInterrupt, None),
    ]
    for data, arguments, error, text in cases:
        before = state(data)
        with pytest.raises(error, match=text):
            embed_images(data, **arguments)
        assert state(data) == before
    assert not [t for t in threading.enumerate() if t.name == "spatialwhisperer-prefetch"]


def test_off_slide_rows_can_be_left_empty() -> None:
    xy = XY.copy()
    xy[2] = [900, 10]
    adata = visium({"L": noise()}, {"L": xy})
    arguments = {"tile_um": 32, "tile_px": 32, "mpp": 0.5, "off_slide": "nan"}
    got = embed_images(adata, encoder=Pixels(), inplace=False, **arguments)
    assert np.isnan(got).all(axis=1).tolist() == [False, False, True, False, False]
    assert (read_tiles(adata, **arguments)[2] == 255).all()
    tiles(adata, **arguments)
    assert np.isnan(adata.obsm["sw_tiles"][2]).all()
    assert np.array_equal(embed_images(adata, encoder=Pixels(), inplace=False), got, equal_nan=True)


def test_enlarging_is_never_silent() -> None:
    adata = visium({"L": noise(0, 100, 100)}, {"L": XY}, factor=1 / 6)
    with pytest.warns(sw._utils.SpatialWhispererWarning, match="a tile of 11 pixels would be enlarged to 64") as caught:
        embed_images(adata, encoder=Pixels(), tile_um=32, tile_px=64, mpp=0.5)
    assert caught[0].filename == __file__


def test_read_tiles_beyond_memory_are_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    from spatialwhisperer.pp import images

    adata = visium({"L": noise()}, {"L": XY})
    inside = read_tiles(adata, tile_um=32, tile_px=32, mpp=0.5)
    monkeypatch.setattr(images, "_IN_MEMORY_BYTES", 100)
    outside = read_tiles(adata, tile_um=32, tile_px=32, mpp=0.5)
    assert isinstance(outside, np.memmap)
    assert np.array_equal(inside, outside)


def test_stain_texture_runs_on_tiles() -> None:
    pytest.importorskip("spatialwhisperer.encoders.image.timm")
    adata = visium({"L": noise()}, {"L": XY})
    embed_images(adata, tile_um=32, tile_px=64, mpp=0.5)
    assert np.isfinite(adata.obsm["X_stain_texture"]).all()


def test_a_timm_model_runs_on_tiles() -> None:
    encoders = pytest.importorskip("spatialwhisperer.encoders.image.timm")
    adata = visium({"L": noise()}, {"L": XY})
    encoder = encoders.image_encoder("resnet18", pretrained=False)
    got = embed_images(adata, encoder=encoder, tile_um=32, tile_px=64, mpp=0.5, inplace=False)
    assert got.shape == (5, 512)
    one = embed_images(adata, encoder=encoder, tile_um=32, tile_px=64, mpp=0.5, batch_size=1, inplace=False)
    np.testing.assert_allclose(one, got, rtol=1e-4, atol=1e-5)


def test_real_section(data_folder: Path) -> None:
    from PIL import Image

    for name in ("A1", "C2"):
        folder = data_folder / "her2st" / name
        meta = json.loads((folder / "meta.json").read_text())
        picture = np.asarray(Image.open(folder / meta["image"]).convert("RGB"))
        counts = ad.read_h5ad(folder / "counts.h5ad")
        adata = visium({name: np.moveaxis(picture, -1, 0)}, {name: np.asarray(counts.obsm["spatial"], float)})
        p = round(154 / meta["um_per_px"])
        got = embed_images(adata, encoder=Pixels(), tile_um=154, tile_px=p, spot_pitch_um=200, inplace=False)
        assert np.isfinite(got).all()
        # the pitch gives the scale that the data's authors state
        tiles(adata, tile_um=154, tile_px=p, spot_pitch_um=200)
        assert recorded(adata, "sw_tiles")["mpp"][name] == pytest.approx(meta["um_per_px"], rel=0.02)
        x, y = adata.obsm["spatial"][7]
        assert np.array_equal(read_tiles(adata, mpp=meta["um_per_px"])[7], cut(np.moveaxis(picture, -1, 0), x, y, p))


# ------------------------------------------------------------------------------------------------- the reader


@pytest.mark.parametrize("chunk", [None, 100, 700, 2100])
def test_reader_cuts_any_tile_from_any_chunks(chunk: int | None) -> None:
    import dask.array as da

    rng = np.random.default_rng(0)
    for width, height, p in ((50, 3000, 30), (4500, 700, 224), (2500, 2300, 301), (90, 80, 200)):
        image = rng.integers(0, 255, (3, height, width), dtype=np.uint8)
        everything = np.pad(image, ((0, 0), (3 * p, 3 * p), (3 * p, 3 * p)), constant_values=255)
        xy = rng.uniform(-1.2 * p, max(width, height) + 1.2 * p, (60, 2)).clip(
            -1.2 * p, [width + 1.2 * p, height + 1.2 * p]
        )
        pixels = image if chunk is None else da.from_array(image, chunks=(3, chunk, chunk))
        raster = RasterImage("i", (Level(pixels, 1.0, 1.0),), (width, height))
        reader = TileReader(Section("s", np.arange(60), xy, raster, 1.0), tile_um=p, tile_px=p)
        seen = np.zeros(60, int)
        for positions, got in reader.read():
            seen[positions] += 1
            for k, tile in zip(positions, got, strict=True):
                x, y = (np.floor(xy[k] - p / 2 + 0.5) + 3 * p).astype(int)
                assert np.array_equal(tile, everything[:, y : y + p, x : x + p]), (width, height, k)
                across = np.clip([x - 3 * p, x - 2 * p], 0, width), np.clip([y - 3 * p, y - 2 * p], 0, height)
                assert reader.inside[k] == pytest.approx(np.prod(np.diff(across)) / p**2)
        assert (seen == 1).all()


@pytest.mark.parametrize("chunks", [(3, 512, 512), (3, 4096, 4096), (3, (300, 2900, 1800), (2000, 3000))])
def test_reader_decodes_each_chunk_once(chunks: Any) -> None:
    import dask.array as da

    counts: dict[Any, int] = {}

    def touch(block: np.ndarray, block_info: Any = None) -> np.ndarray:
        place = tuple(block_info[0]["chunk-location"])
        counts[place] = counts.get(place, 0) + 1
        return block

    image = da.zeros((3, 5000, 5000), chunks=chunks, dtype=np.uint8)
    pixels = image.map_blocks(touch, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8))
    counts.clear()
    xy = np.random.default_rng(0).uniform(0, 5000, (800, 2))
    raster = RasterImage("i", (Level(pixels, 1.0, 1.0),), (5000, 5000))
    for _ in TileReader(Section("s", np.arange(800), xy, raster, 1.0), tile_um=224, tile_px=224).read():
        pass
    assert set(counts.values()) == {1}
    assert len(counts) == pixels.npartitions


def test_prefetch_ends_its_thread_and_passes_errors_on() -> None:
    def numbers(n: int) -> Any:
        yield from range(n)
        raise OSError("disk")

    ahead = prefetch(numbers(5))
    assert [next(ahead) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(OSError, match="disk"):
        next(ahead)
    ahead = prefetch(iter(range(10**9)))
    assert next(ahead) == 0
    ahead.close()
    time.sleep(0.01)
    assert not [t for t in threading.enumerate() if t.name == "spatialwhisperer-prefetch"]


def test_batches_have_one_size() -> None:
    pieces = [(np.arange(a, b), np.arange(a, b)[:, None]) for a, b in ((0, 3), (3, 4), (4, 15), (15, 16))]
    got = list(batches(pieces, 4))
    assert [len(rows) for rows, _ in got] == [4, 4, 4, 4]
    assert np.array_equal(np.concatenate([rows for rows, _ in got]), np.arange(16))
    assert all(np.array_equal(rows, values[:, 0]) for rows, values in got)
