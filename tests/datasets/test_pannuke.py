from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from spatialwhisperer.datasets.pannuke import CHANNELS, CLASSES, pannuke

if TYPE_CHECKING:
    from pathlib import Path


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
def test_pannuke_canvas(tmp_path, windows, assert_same) -> None:
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
                    counts[CLASSES.index(name)] += len(np.unique(part[..., channel])) - (part[..., channel] == 0).any()
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
