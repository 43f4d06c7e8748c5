"""Small data sets with labelled nuclei in the layouts of their authors, and the published rule for tiles as a plain loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.io import savemat

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


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


@pytest.fixture(name="masks")
def _masks() -> Callable[..., Any]:
    return masks


@pytest.fixture(name="naive_tiles")
def _naive_tiles() -> Callable[..., Any]:
    return naive_tiles


@pytest.fixture(name="assert_same")
def _assert_same() -> Callable[..., None]:
    return assert_same


@pytest.fixture(name="write_lizard")
def _write_lizard() -> Callable[..., Any]:
    return write_lizard


@pytest.fixture(name="write_hdf")
def _write_hdf() -> Callable[..., Any]:
    return write_hdf
