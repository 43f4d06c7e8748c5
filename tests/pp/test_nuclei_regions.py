"""The compiled loops behind nuclei, each beside its twin of SciPy or scikit-image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from spatialwhisperer.pp._nuclei import component_tree as tree
from spatialwhisperer.pp._nuclei.canvas import Canvas
from spatialwhisperer.pp._nuclei.outlines import joined, measure, without_repeats
from spatialwhisperer.pp._nuclei.regions import MARGIN_UM, Window, find_regions
from spatialwhisperer.pp._nuclei.tracing import trace
from tests.pp.nuclei_slides import draw


@pytest.fixture(scope="module")
def levels() -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(60, 75)), 1.5)
    return np.digitize(noise, np.quantile(noise, np.linspace(0.2, 0.98, 12))).astype(np.uint8)


def built(levels: np.ndarray) -> Any:
    slope = np.random.default_rng(1).integers(0, 1000, levels.shape).astype(np.int32)
    return slope, tree.component_tree(levels, slope, int(levels.max()))


def components(levels: np.ndarray) -> dict[frozenset[int], int]:
    """Every connected region at or above some level, with the highest such level."""
    out: dict[frozenset[int], int] = {}
    for level in range(1, int(levels.max()) + 1):
        labels, n = ndimage.label(levels >= level)
        for number in range(1, n + 1):
            out[frozenset(np.flatnonzero(labels == number).tolist())] = level
    return out


def pixels_of(parent: np.ndarray, joined_to: np.ndarray, region: np.ndarray) -> dict[int, set[int]]:
    """Pixels of each region of a tree, with those of the regions within it."""
    out: dict[int, set[int]] = {int(k): set() for k in np.flatnonzero(~joined_to)}
    for pixel in np.flatnonzero(region >= 0):
        k = region[pixel]
        k = parent[k] if joined_to[k] else k
        while k >= 0:
            out[k].add(int(pixel))
            k = parent[k]
    return out


def test_the_tree_holds_every_connected_region_of_every_level(levels: np.ndarray) -> None:
    _, (parent, joined_to, _, _, region) = built(levels)
    found = pixels_of(parent, joined_to, region)
    assert {frozenset(pixels) for pixels in found.values()} == set(components(levels))


def test_sums_and_boxes_are_those_of_the_pixels(levels: np.ndarray) -> None:
    slope, (parent, joined_to, sums, box, region) = built(levels)
    width = levels.shape[1]
    for k, pixels in pixels_of(parent, joined_to, region).items():
        y, x = np.divmod(np.array(sorted(pixels)), width)
        inside = np.zeros(levels.shape, bool)
        inside[y, x] = True
        assert sums[k, :6].tolist() == [len(x), x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()]
        assert box[k].tolist() == [y.min(), y.max(), x.min(), x.max()]
        edges = slopes = 0
        for axis in (0, 1):
            before, after = (np.moveaxis(a, axis, 0) for a in (inside, slope))
            cut = before[1:] != before[:-1]
            edges += cut.sum()
            slopes += ((after[1:] + after[:-1]) // 2)[cut].sum()
        assert sums[k, tree.CRACK] == edges
        assert sums[k, tree.SLOPE] == slopes


def test_the_chosen_regions_have_the_largest_sum_of_worth(levels: np.ndarray) -> None:
    _, (parent, joined_to, _, _, region) = built(levels)
    worth = np.random.default_rng(2).normal(0.2, 1, len(parent))
    kept, labels = tree.choose_regions(parent, joined_to, worth, region)
    children: dict[int, list[int]] = {}
    for k in np.flatnonzero(~joined_to):
        children.setdefault(int(parent[k]), []).append(int(k))

    def best(k: int) -> float:
        return max(worth[k], sum(map(best, children.get(k, []))))

    assert worth[kept].sum() == pytest.approx(sum(map(best, children[-1])))
    pixels = pixels_of(parent, joined_to, region)
    for number, k in enumerate(kept, 1):
        assert set(np.flatnonzero(labels == number).tolist()) == pixels[k]
    assert not (worth[kept] <= 0).any()


def test_gradients_are_those_of_sobel() -> None:
    plane = np.random.default_rng(0).random((30, 40)).astype(np.float32)
    expected = np.hypot(ndimage.sobel(plane, 0, mode="nearest"), ndimage.sobel(plane, 1, mode="nearest")) / 8
    np.testing.assert_allclose(tree.slopes(plane) / tree.SLOPE_UNIT, expected, atol=2e-6)


def test_holes_are_filled_and_what_lies_in_them_gives_way() -> None:
    labels = np.zeros((12, 12), np.int32)
    labels[1:11, 1:11] = 1
    labels[3:9, 3:9] = 0
    labels[5:7, 5:7] = 2
    expected = np.where(ndimage.binary_fill_holes(labels > 0), 1, 0)
    tree.fill_holes(labels, np.array([[1, 10, 1, 10], [5, 6, 5, 6]], np.int32), np.array([0, 1]))
    np.testing.assert_array_equal(labels, expected)


def test_outlines_are_those_of_find_contours(levels: np.ndarray) -> None:
    import shapely
    from skimage.measure import find_contours

    labels, n = ndimage.label(levels >= 6)
    boxes = np.array([(y.start, y.stop - 1, x.start, x.stop - 1) for y, x in ndimage.find_objects(labels)])
    corners, lengths = trace(labels.astype(np.int32), np.arange(1, n + 1), boxes)
    for number, ring in enumerate(np.split(corners, np.cumsum(lengths)[:-1]), 1):
        expected = max(find_contours(np.pad(labels == number, 1).astype(float), 0.5), key=len)[:, ::-1] - 0.5
        assert shapely.Polygon(ring).equals(shapely.Polygon(expected))


def test_a_region_does_not_depend_on_its_window() -> None:
    density = np.moveaxis(255 - draw(520, 520).image, 0, -1)[..., 0].astype(np.float32) / 200
    margin, core = int(np.ceil(MARGIN_UM / 0.5)), 200
    whole = find_regions(Window(density, 0.5, (False,) * 4, (core, 2 * core, core, 2 * core)), 16, 400)
    part = density[core - margin : 2 * core + margin, core - margin : 2 * core + margin]
    window = Window(part, 0.5, (True,) * 4, (margin, margin + core, margin, margin + core))
    own = find_regions(window, 16, 400)
    inner = whole[core - margin : 2 * core + margin, core - margin : 2 * core + margin]
    assert own.max() > 10
    np.testing.assert_array_equal(own > 0, inner > 0)
    pairs = np.unique(np.stack([own[own > 0], inner[own > 0]]), axis=1)
    assert len(pairs[0]) == len(np.unique(pairs[0])) == len(np.unique(pairs[1]))


@pytest.mark.slow
def test_of_two_parts_that_found_the_same_nucleus_the_first_keeps_it() -> None:
    labels = np.zeros((40, 40), np.int32)
    labels[5:15, 5:15], labels[25:35, 25:35] = 1, 2
    stain = np.ones(labels.shape, np.float32)
    place: dict[str, Any] = {"mpp": 0.5, "scale": (1.0, 1.0)}
    a = measure(labels, stain, origin=(0, 0), block=0, **place)
    b = measure(np.where(labels == 2, 1, 0), stain, origin=(1, 1), block=1, **place)
    both = without_repeats(joined([b, a]))
    assert both.block.tolist() == [0, 0]
    assert len(without_repeats(joined([a, a]))) == 4


def test_pixels_are_averaged_to_half_a_micron_and_edges_are_kept() -> None:
    from spatialwhisperer._access.images import Level, RasterImage

    pixels = np.random.default_rng(0).integers(30, 255, (3, 31, 43), dtype=np.uint8)
    canvas = Canvas(RasterImage("he", (Level(pixels, 1.0, 1.0),), (43, 31)), 0.2)
    assert (canvas.steps, canvas.mpp, canvas.shape) == ((2, 2), 0.4, (16, 22))
    np.testing.assert_array_equal(canvas.read(2, 3, 4, 5), pixels[:, 4:8, 6:10].reshape(3, 2, 2, 2, 2).sum(axis=(2, 4)))
    np.testing.assert_array_equal(canvas.read(15, 0, 16, 1)[:, 0, 0], 2 * pixels[:, 30, :2].astype(int).sum(axis=1))
