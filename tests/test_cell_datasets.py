from __future__ import annotations

import functools
import hashlib
import http.server
import json
import threading
import zipfile
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.io import savemat

from spatialwhisperer.datasets._cells import CellImages, count_tiles, find_nuclei
from spatialwhisperer.datasets.lizard import CLASSES as LIZARD
from spatialwhisperer.datasets.lizard import lizard
from spatialwhisperer.datasets.pannuke import CHANNELS, pannuke
from spatialwhisperer.datasets.pannuke import CLASSES as PANNUKE
from spatialwhisperer.datasets.pathocell import pathocell
from spatialwhisperer.settings import settings

if TYPE_CHECKING:
    from pathlib import Path

COARSE = ("Background", "B cells", "T cells", "Tumor cells", "Other cells")


def masks(size: tuple[int, int], n: int, n_classes: int, seed: int) -> tuple[np.ndarray, dict[int, int]]:
    """Square nuclei with ids in no order and some ids left out, and their classes."""
    rng = np.random.default_rng(seed)
    instances = np.zeros(size, np.int32)
    for number in rng.permutation(np.arange(1, 2 * n))[:n]:
        y, x = (int(rng.integers(0, s - 6)) for s in size)
        instances[y : y + 6, x : x + 6] = number
    ids = np.unique(instances)[1:]
    return instances, {int(i): int(rng.integers(1, n_classes)) for i in ids}


def naive_tiles(instances: np.ndarray, class_of, n_classes: int, tile: int, *, always: bool) -> dict:
    """The published rule, one nucleus at a time."""
    where = {}
    for i in np.unique(instances):
        if i > 0:
            y, x = np.nonzero(instances == i)
            where[i] = (int(x.mean() / tile), int(y.mean() / tile), class_of(i, y[0], x[0]))
    last_x, last_y = max(w[0] for w in where.values()), max(w[1] for w in where.values())
    out: dict[tuple[int, int], np.ndarray] = {}
    for x, y, code in where.values():
        if (always or (last_x > 0 and last_y > 0)) and (x >= last_x or y >= last_y):
            continue
        out.setdefault((x, y), np.zeros(n_classes, int))[code] += 1
    return out


def as_dict(table) -> dict:
    return {
        (x, y): c for x, y, c in zip(table.obs["x_array"], table.obs["y_array"], table.obsm["cell_counts"], strict=True)
    }


def assert_same(table, expected: dict) -> None:
    got = as_dict(table)
    assert got.keys() == expected.keys()
    for key in got:
        np.testing.assert_array_equal(got[key], expected[key])


def write_lizard(root: Path, *, nested: bool = False, names=("crag_11", "glas_2"), size=(120, 150)) -> dict:
    truth = {}
    for number, name in enumerate(names):
        part = 1 if name.startswith("crag") else 2
        images = root / (f"lizard_images{part}" if nested else "") / f"Lizard_Images{part}"
        labels = root / ("lizard_labels" if nested else "") / "Lizard_Labels"
        images.mkdir(parents=True, exist_ok=True)
        (labels / "Labels").mkdir(parents=True, exist_ok=True)
        instances, classes = masks(size, 60, 7, number)
        pixels = np.random.default_rng(number).integers(0, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{name}.png")
        ids = np.random.default_rng(number).permutation(list(classes))
        zeros = np.zeros((len(ids), 4))
        savemat(
            labels / "Labels" / f"{name}.mat",
            {
                "inst_map": instances,
                "id": ids[:, None],
                "class": np.array([classes[i] for i in ids])[:, None],
                "bbox": zeros,
                "centroid": zeros[:, :2],
            },
        )
        truth[name] = (instances, classes, pixels)
    splits = [1 + i % 3 for i in range(len(names))]
    pd.DataFrame({"Filename": list(names), "Source": "x", "Split": splits}).to_csv(labels / "info.csv", index=False)
    return truth


@pytest.mark.parametrize("nested", [False, True])
def test_lizard_layout(tmp_path, nested) -> None:
    truth = write_lizard(tmp_path, nested=nested)
    images = lizard(data_dir=tmp_path, tile_px=40)
    assert isinstance(images, CellImages)
    assert list(images) == ["crag_11", "glas_2"]
    for name, sdata in images.items():
        instances, classes, pixels = truth[name]
        assert_same(sdata["table"], naive_tiles(instances, lambda i, *_, c=classes: c[i], 7, 40, always=False))
        np.testing.assert_array_equal(np.asarray(sdata[f"{name}_image"]["scale0"]["image"]).transpose(1, 2, 0), pixels)
        table, nuclei = sdata["table"], sdata["nuclei"]
        assert list(table.uns["cell_counts"]["classes"]) == list(LIZARD)
        np.testing.assert_array_equal(table.obsm["spatial"], (table.obs[["x_array", "y_array"]].to_numpy() + 0.5) * 40)
        assert (table.obs["n_cells"] == table.obsm["cell_counts"].sum(axis=1)).all()
        dominant = [LIZARD[c.argmax()] for c in table.obsm["cell_counts"]]
        assert list(table.obs["cell_type"]) == dominant
        assert set(table.obs["section"]) == {name}
        assert json.loads(table.uns["lizard"])["mpp"] == 0.5
        by_id = dict(zip(nuclei.obs["instance"], nuclei.obs["cell_type"], strict=True))
        assert by_id == {i: LIZARD[c] for i, c in classes.items()}
        centroids = sdata[f"{name}_tiles"].geometry.centroid
        np.testing.assert_allclose(np.column_stack([centroids.x, centroids.y]), table.obsm["spatial"])


def test_lizard_images_can_be_chosen(tmp_path) -> None:
    write_lizard(tmp_path)
    assert list(lizard(data_dir=tmp_path, images="glas_2")) == ["glas_2"]
    assert list(lizard(data_dir=tmp_path, split=1)) == ["crag_11"]
    with pytest.raises(ValueError, match="no split 3"):
        lizard(data_dir=tmp_path, split=3)
    with pytest.raises(ValueError, match="no image crag_99"):
        lizard(data_dir=tmp_path, images=["crag_99"])
    with pytest.raises(KeyError, match="no image 'x'"):
        lizard(data_dir=tmp_path)["x"]


def test_lizard_says_what_is_missing(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="Lizard_Images1"):
        lizard(data_dir=tmp_path)
    write_lizard(tmp_path)
    next(tmp_path.rglob("glas_2.mat")).unlink()
    with pytest.raises(FileNotFoundError, match="glas_2"):
        lizard(data_dir=tmp_path)


def test_lizard_refuses_masks_of_another_image(tmp_path) -> None:
    write_lizard(tmp_path)
    Image.fromarray(np.zeros((50, 50, 3), np.uint8)).save(tmp_path / "Lizard_Images1" / "crag_11.png")
    images = lizard(data_dir=tmp_path, tile_px=40)
    with pytest.raises(ValueError, match="do not belong together"):
        images["crag_11"]


def test_lizard_refuses_a_nucleus_without_a_class(tmp_path) -> None:
    write_lizard(tmp_path)
    savemat(
        tmp_path / "Lizard_Labels/Labels/crag_11.mat",
        {"inst_map": np.full((120, 150), 7), "id": np.array([[1]]), "class": np.array([[2]])},
    )
    with pytest.raises(ValueError, match="have no class"):
        lizard(data_dir=tmp_path)["crag_11"]


def test_an_image_smaller_than_the_grid_keeps_its_only_tile(tmp_path) -> None:
    truth = write_lizard(tmp_path, names=("crag_11",))
    table = lizard(data_dir=tmp_path, tile_px=150)["crag_11"]["table"]
    assert table.n_obs == 1
    assert table.obs["n_cells"].sum() == len(truth["crag_11"][1])


# ------------------------------------------------------------------------------------------------- PanNuke


def write_pannuke(root: Path, fold: int = 2, n: int = 60, edge: int = 32, folder: str = "Fold {}") -> tuple:
    rng = np.random.default_rng(fold)
    base = root / folder.format(fold)
    for kind in ("images", "masks"):
        (base / kind / f"fold{fold}").mkdir(parents=True)
    images = rng.integers(0, 255, (n, edge, edge, 3)).astype(np.float64)
    mask = np.zeros((n, edge, edge, 6))
    for patch in range(n):
        for number in range(1, 6):
            y, x = rng.integers(0, edge - 4, 2)
            mask[patch, y : y + 4, x : x + 4, :] = 0
            mask[patch, y : y + 4, x : x + 4, rng.integers(0, 5)] = number
    mask[..., 5] = mask[..., :5].sum(axis=-1) == 0
    np.save(base / "images" / f"fold{fold}" / "images.npy", images)
    np.save(base / "images" / f"fold{fold}" / "types.npy", np.array([f"Tissue{i % 3}" for i in range(n)]))
    np.save(base / "masks" / f"fold{fold}" / "masks.npy", mask)
    return images, mask


@pytest.mark.parametrize("windows", ["quarters", "corners"])
def test_pannuke_canvas(tmp_path, windows) -> None:
    images, mask = write_pannuke(tmp_path)
    canvases = pannuke(data_dir=tmp_path, windows=windows, tile_px=28)
    assert list(canvases) == ["fold2_00000", "fold2_00050"]
    sdata = canvases["fold2_00000"]
    table = sdata["table"]
    pixels = np.asarray(sdata["fold2_00000_image"]["scale0"]["image"])
    assert pixels.shape == (3, 7 * 56, 8 * 56)  # 50 patches on 8 columns and 7 rows, four tiles each
    order = sorted(range(60), key=str)[:50]
    size, margin = (16, 6) if windows == "quarters" else (28, 0)
    expected: dict = {}
    for position, patch in enumerate(order):
        for row in (0, 1):
            for column in (0, 1):
                y, x = (k * (32 - size) for k in (row, column))
                x_array, y_array = position % 8 * 2 + column, position // 8 * 2 + row
                tile = pixels[:, y_array * 28 : y_array * 28 + 28, x_array * 28 : x_array * 28 + 28]
                inside = tile[:, margin : margin + size, margin : margin + size]
                np.testing.assert_array_equal(inside, images[patch, y : y + size, x : x + size].transpose(2, 0, 1))
                if windows == "quarters":
                    assert tile.sum() == inside.sum()  # black around
                counts = np.zeros(6, int)
                part = mask[patch, y : y + size, x : x + size]
                for channel, name in enumerate(CHANNELS):
                    counts[PANNUKE.index(name)] += len(np.unique(part[..., channel])) - (part[..., channel] == 0).any()
                # what lies in the last column and the last occupied row is left out
                if counts.sum() and x_array < 15 and y_array < 13:
                    expected[x_array, y_array] = counts
    assert_same(table, expected)
    first = table[(table.obs["x_array"] < 2) & (table.obs["y_array"] < 2)]
    assert set(first.obs["tissue"]) == {f"Tissue{order[0] % 3}"}
    assert len(canvases["fold2_00050"]["table"]) > 0


@pytest.mark.parametrize("folder", ["fold_{0}/Fold {0}", "fold{}", "Fold{}"])
def test_pannuke_folders(tmp_path, folder) -> None:
    write_pannuke(tmp_path, 3, n=4, folder=folder)
    assert list(pannuke(data_dir=tmp_path, folds=[3], tile_px=28)) == ["fold3_00000"]


def test_pannuke_refuses(tmp_path) -> None:
    write_pannuke(tmp_path, n=4)
    with pytest.raises(FileNotFoundError, match="Fold 1"):
        pannuke(data_dir=tmp_path, folds=[1])
    with pytest.raises(ValueError, match="folds"):
        pannuke(data_dir=tmp_path, folds=[4])
    with pytest.raises(ValueError, match="windows"):
        pannuke(data_dir=tmp_path, windows="centre")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tile_px must be between 16 and 32"):
        pannuke(data_dir=tmp_path)["fold2_00000"]
    np.save(tmp_path / "Fold 2/masks/fold2/masks.npy", np.zeros((4, 32, 32, 5)))
    with pytest.raises(ValueError, match="256, 256, 6"):
        pannuke(data_dir=tmp_path, tile_px=28)["fold2_00000"]


def test_pannuke_does_not_unpickle(tmp_path) -> None:
    write_pannuke(tmp_path, n=4)
    np.save(tmp_path / "Fold 2/images/fold2/types.npy", np.array([{}] * 4, dtype=object))
    with pytest.raises(ValueError, match="[Oo]bject arrays|allow_pickle"):
        pannuke(data_dir=tmp_path, tile_px=28)["fold2_00000"]


def test_pannuke_maps_the_arrays(tmp_path) -> None:
    """A canvas reads its own patches: the files of a fold are larger than many machines' memory."""
    import tracemalloc

    n, base = 2656, tmp_path / "Fold 1"
    for kind, channels in (("images", 3), ("masks", 6)):
        (base / kind / "fold1").mkdir(parents=True)
        # sparse on disk; 4 and 8 GB if it were loaded
        path = base / kind / "fold1" / f"{kind}.npy"
        values = np.lib.format.open_memmap(path, mode="w+", dtype=np.float64, shape=(n, 256, 256, channels))
        values[[0, 1, 10, 100], 20:60, 20:60, 0] = 1
        del values
    np.save(base / "images/fold1/types.npy", np.full(n, "Breast"))
    images = pannuke(data_dir=tmp_path, folds=[1])
    assert len(images) == 54
    tracemalloc.start()
    assert images["fold1_00000"]["table"].n_obs == 4
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**30


# ------------------------------------------------------------------------------------------------- PathoCell and HDF


def write_hdf(
    path: Path, *, size=(100, 130), n_classes: int = 5, seed: int = 0, dtype=np.uint8, coarse: bool = True
) -> tuple:
    import h5py

    instances, classes = masks(size, 40, n_classes, seed)
    code = np.zeros(size, np.uint8)
    for i, c in classes.items():
        code[instances == i] = c
        y, x = np.argwhere(instances == i)[-1]
        code[y, x] = 0  # only the first pixel decides
    pixels = np.random.default_rng(seed).integers(0, 255, (3, *size), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = {
        np.uint8: pixels,
        np.uint16: pixels.astype(np.uint16) * 256,
        np.float32: (pixels / 255).astype(np.float32),
    }
    with h5py.File(path, "w") as file:
        file["img"] = stored[dtype]
        file["gt_inst"] = instances[None].astype(np.uint16)
        file["gt_ct"] = code[None]
        if coarse:
            file["gt_ct_coarse"] = code[None]
        file["ifl"] = np.zeros((2, 4, 4))
    return instances, code, pixels


def write_pathocell(root: Path) -> None:
    folder = root / "pathocell_hdf"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "CT_coarse_mapping.txt").write_text(
        "coarse_mapping = {\n" + ",\n".join(f"    {i}: '{c}'" for i, c in enumerate(COARSE)) + "\n}\n"
    )
    (folder / "CT_mapping.txt").write_text("{" + ", ".join(f'{i}: "fine {i}"' for i in range(5)) + "}")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_pathocell_layout(tmp_path, dtype) -> None:
    write_pathocell(tmp_path)
    instances, code, pixels = write_hdf(tmp_path / "pathocell_hdf/reg001_A.hdf", dtype=dtype)
    images = pathocell(data_dir=tmp_path, tile_px=30)
    assert images.classes == list(COARSE)
    sdata = images["reg001_A"]
    assert_same(sdata["table"], naive_tiles(instances, lambda _, y, x: code[y, x], 5, 30, always=True))
    read = np.asarray(sdata["reg001_A_image"]["scale0"]["image"])
    np.testing.assert_allclose(read, pixels, atol=1 if dtype is np.float32 else 0)
    assert pathocell(data_dir=tmp_path / "pathocell_hdf", level="fine").classes[4] == "fine 4"


def test_pathocell_says_how_to_get_it(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="hf download Kainmueller-Lab/PathoCell"):
        pathocell()
    with pytest.raises(FileNotFoundError, match="pathocell_hdf"):
        pathocell(data_dir=tmp_path)
    write_hdf(tmp_path / "reg001_A.hdf")
    with pytest.raises(FileNotFoundError, match="CT_coarse_mapping.txt"):
        pathocell(data_dir=tmp_path)
    write_pathocell(tmp_path)
    write_hdf(tmp_path / "pathocell_hdf/reg002_A.hdf", coarse=False)
    with pytest.raises(KeyError, match="gt_ct_coarse"):
        pathocell(data_dir=tmp_path)["reg002_A"]


@pytest.mark.parametrize("reader", [lizard, pannuke])
def test_canvases_of_the_published_benchmark(tmp_path, reader) -> None:
    instances, code, _ = write_hdf(tmp_path / "batch_00000.hdf", coarse=False)
    images = reader(data_dir=tmp_path, tile_px=30)
    table = images["batch_00000"]["table"]
    n = len(images.classes)
    assert_same(table, naive_tiles(instances, lambda _, y, x: code[y, x], n, 30, always=False))


def test_unknown_class_codes_are_refused(tmp_path) -> None:
    write_pathocell(tmp_path)
    write_hdf(tmp_path / "pathocell_hdf/reg001_A.hdf", n_classes=9)
    with pytest.raises(ValueError, match="known are 0 to 4"):
        pathocell(data_dir=tmp_path, tile_px=30)["reg001_A"]


# ------------------------------------------------------------------------------------------------- tiles


@pytest.mark.parametrize("always", [False, True])
def test_tiles_equal_a_naive_loop(always) -> None:
    for seed in range(5):
        instances, classes = masks((200, 260), 80, 6, seed)
        code = np.vectorize(lambda i, c=classes: c.get(i, 0))(instances)
        tiles = count_tiles(find_nuclei(instances, code), 6, tile_px=56, always_drop=always)
        got = {tuple(c): n for c, n in zip(tiles.cells.tolist(), tiles.counts, strict=True)}
        expected = naive_tiles(instances, lambda _, y, x, m=code: m[y, x], 6, 56, always=always)
        assert got.keys() == expected.keys()
        assert all((got[k] == expected[k]).all() for k in got)


def test_no_nuclei() -> None:
    nuclei = find_nuclei(np.zeros((4, 4), int), np.zeros((4, 4), int))
    assert not len(nuclei)
    assert not len(count_tiles(nuclei, 3, tile_px=2, always_drop=True).cells)


def test_sizes_are_checked(tmp_path) -> None:
    write_lizard(tmp_path)
    with pytest.raises(ValueError, match="tile_px"):
        lizard(data_dir=tmp_path, tile_px=0)
    with pytest.raises(ValueError, match="mpp"):
        lizard(data_dir=tmp_path, mpp=-1)
    with pytest.raises(FileNotFoundError, match="not a folder"):
        lizard(data_dir=tmp_path / "absent")


def test_tiles_can_be_embedded_and_stored(tmp_path) -> None:
    import spatialdata as sd

    import spatialwhisperer as sw

    write_lizard(tmp_path)
    sdata = lizard(data_dir=tmp_path, tile_px=40)["crag_11"]
    sw.pp.embed_images(sdata, tile_um=20, tile_px=40)
    assert sdata["table"].obsm["X_stain_texture"].shape[0] == sdata["table"].n_obs
    sdata.write(tmp_path / "x.zarr")
    again = sd.read_zarr(tmp_path / "x.zarr")["table"]
    np.testing.assert_array_equal(again.obsm["cell_counts"], sdata["table"].obsm["cell_counts"])


# ------------------------------------------------------------------------------------------------- download


@pytest.fixture
def served(tmp_path, monkeypatch):
    """The archives behind a local web server, packed as the authors' are."""
    root, files = tmp_path / "served", tmp_path / "files"
    root.mkdir()
    write_lizard(files)
    packed = {
        "lizard_images1.zip": "Lizard_Images1",
        "lizard_images2.zip": "Lizard_Images2",
        "lizard_labels.zip": "Lizard_Labels",
    }
    known = {}
    for name, folder in packed.items():
        with zipfile.ZipFile(root / name, "w") as archive:
            for path in sorted((files / folder).rglob("*")):
                archive.write(path, path.relative_to(files).as_posix())
            archive.writestr("__MACOSX/Lizard_Images1/._crag_11.png", b"x")
        known[name] = hashlib.sha256((root / name).read_bytes()).hexdigest()
    monkeypatch.setattr(import_module("spatialwhisperer.datasets.lizard"), "ARCHIVES", known)
    seen = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_) -> None:
            pass

        def do_GET(self) -> None:
            seen.append(self.path)
            super().do_GET()

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(root)))
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    with settings.override(cache_dir=tmp_path / "cache", offline=False):
        yield root, f"http://127.0.0.1:{httpd.server_port}", seen
    httpd.shutdown()
    httpd.server_close()


def test_lizard_is_downloaded_once(served) -> None:
    _, url, seen = served
    assert list(lizard(base_url=url)) == ["crag_11", "glas_2"]
    assert len(seen) == 3
    with settings.override(offline=True):
        assert list(lizard(base_url=url)) == ["crag_11", "glas_2"]
    assert len(seen) == 3
    assert not list((settings.cache_dir / "lizard").glob("*.zip"))


def test_another_archive_is_refused(served) -> None:
    root, url, _ = served
    with zipfile.ZipFile(root / "lizard_images2.zip", "a") as archive:
        archive.writestr("more.png", b"x")
    with pytest.raises(ValueError, match="not the file that is known"):
        lizard(base_url=url)
    assert not (settings.cache_dir / "lizard" / "lizard_images2").exists()


def test_offline_says_where_to_get_it(tmp_path) -> None:
    with settings.override(offline=True, cache_dir=tmp_path):
        with pytest.raises(FileNotFoundError, match="lizard-dataset"):
            lizard()
        with pytest.raises(FileNotFoundError, match=r"fold_2\.zip"):
            pannuke()


def test_no_server(tmp_path) -> None:
    with settings.override(offline=False, cache_dir=tmp_path), pytest.raises(ConnectionError, match="Cannot download"):
        lizard(base_url="http://127.0.0.1:9")
