from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.segmentation import watershed

from spatialwhisperer.encoders.image._nuclei import filters, measures, segmentation
from spatialwhisperer.encoders.image._nuclei.table import MEASURES


@pytest.fixture(scope="module")
def plane() -> np.ndarray:
    noise = np.random.default_rng(1).normal(size=(61, 53))
    return (ndimage.gaussian_filter(noise, 2) * 5).astype(np.float32)


@pytest.mark.parametrize("sigma", [0.4, 1.6, 6.25, 30.0])
def test_gaussian_is_that_of_scipy(plane, sigma):
    expected = ndimage.gaussian_filter(plane, sigma, truncate=3.0, mode="reflect")
    np.testing.assert_allclose(filters.gaussian(plane, filters.gaussian_taps(sigma)), expected, atol=2e-6)


def test_pooled_squares_are_means_and_the_last_ones_are_smaller(plane):
    got = filters.pooled(plane, 4)
    assert got.shape == (16, 14)
    np.testing.assert_allclose(got[2, 3], plane[8:12, 12:16].mean(), rtol=1e-4)
    np.testing.assert_allclose(got[15, 13], plane[60:, 52:].mean(), rtol=1e-4)


def test_enlarged_is_linear_between_the_centres_of_squares(plane):
    cells = filters.pooled(plane, 4)
    y, x = ((np.arange(n) + 0.5) / 4 - 0.5 for n in (64, 56))
    at = np.meshgrid(y.clip(0, 15), x.clip(0, 13), indexing="ij")
    expected = ndimage.map_coordinates(cells, at, order=1)
    np.testing.assert_allclose(filters.enlarged(cells, 4, 64, 56), expected, atol=1e-5)


def test_laplacian_is_the_five_point_stencil(plane):
    np.testing.assert_allclose(filters.laplacian(plane), ndimage.laplace(plane, mode="nearest"), atol=1e-5)


@pytest.mark.parametrize("steps", [1, 2])
def test_opened_is_the_binary_opening(plane, steps):
    np.testing.assert_array_equal(filters.opened(plane > 0, steps), ndimage.binary_opening(plane > 0, iterations=steps))


def test_small_holes_are_filled_and_no_others(plane):
    mask = plane > -0.2
    parts, n = ndimage.label(~mask)
    size = np.bincount(parts.ravel())
    expected = mask | ((size < 12)[parts] & (parts > 0))
    assert 0 < (size[1:] < 12).sum() < n
    filters.fill_small_holes(mask, 12.0)
    np.testing.assert_array_equal(mask, expected)


def test_distance_inside_is_euclidean_up_to_a_limit(plane):
    mask = ndimage.zoom(plane, 3, order=1) > 0
    expected = np.minimum(ndimage.distance_transform_edt(mask), 6)
    np.testing.assert_allclose(filters.distance_inside(mask, 6), expected, atol=1e-5)


def test_stain_planes_are_densities_times_a_matrix_and_black_has_none():
    rng = np.random.default_rng(0)
    tile = rng.integers(0, 256, (3, 9, 9), dtype=np.uint8)
    tile[:, 0, 0] = 20, 3, 7
    densities, matrix = rng.random((3, 256), dtype=np.float32), rng.normal(size=(3, 4)).astype(np.float32)
    od = np.stack([densities[c][tile[c]] for c in range(3)])
    got = filters.stain_planes(tile, densities, matrix, 20)
    assert (got[:, 0, 0] == 0).all()
    np.testing.assert_allclose(got[:, 1:], np.einsum("cij,ck->kij", od, matrix)[:, 1:], atol=1e-5)


def test_seeds_are_maxima_far_enough_apart_and_of_equal_ones_the_first():
    height = np.zeros((30, 30), np.float32)
    height[5, 5], height[5, 8], height[20, 5:8], height[20, 25] = 2, 1, 1.5, 3
    mask, depth = np.ones_like(height, bool), np.full_like(height, 4)
    depth[20, 25] = 1
    scale = segmentation.scale_of(0.75)  # apart by four pixels
    seeds = segmentation.find_seeds(height, mask, depth, 1.2, scale.apart)
    found = [tuple(divmod(int(s), 30)) for s in seeds if height.ravel()[s] > 0]
    assert found == [(5, 5), (20, 5)]


def test_flood_is_a_watershed(plane):
    height = np.ascontiguousarray(ndimage.zoom(plane, 3, order=3) + 1).clip(0, 2.4).astype(np.float32)
    mask = height > 0.8
    depth = filters.distance_inside(mask, 10)
    seeds = segmentation.find_seeds(height, mask, depth, 1.8, segmentation.scale_of(0.5).apart)
    markers = np.zeros(height.shape, np.int32)
    markers.ravel()[seeds] = np.arange(1, len(seeds) + 1)
    expected = watershed(-height, markers, mask=mask)
    got = segmentation.flood(height, mask, seeds)
    assert len(seeds) > 20
    np.testing.assert_array_equal(got > 0, expected > 0)
    assert (got == expected)[mask].mean() > 0.98


def test_sizes_outside_the_range_are_removed_and_numbers_have_no_gap():
    labels = np.array([[1, 2, 2, 3, 3, 3, 0, 4, 4]], np.int32)
    assert segmentation.keep_sizes(labels, 4, 2, 2) == 2
    np.testing.assert_array_equal(labels, [[0, 1, 1, 0, 0, 0, 0, 2, 2]])


def test_rings_are_octagons_of_the_nearest_nucleus():
    labels = np.zeros((41, 41), np.int32)
    labels[18:23, 18:23] = 1
    ring = measures.rings(labels, 6)
    away = ndimage.distance_transform_edt(labels == 0)
    assert (ring[(away > 0) & (away <= 5.5)] == 1).all()
    assert not ring[(away > 6.8) | (away == 0)].any()
    two = np.zeros((9, 30), np.int32)
    two[:, 10], two[:, 15] = 1, 2
    assert measures.rings(two, 6)[4, 11:15].tolist() == [1, 1, 2, 2]


def test_neighbours_are_those_of_a_tree():
    places = np.column_stack([np.random.default_rng(0).uniform(0, 400, (150, 2)), np.full(150, 100.0)])
    nearest, sixth, within = measures.neighbours(places, 400.0, 400.0, 0.5)
    tree = cKDTree(places[:, :2] * 0.5)
    distance = tree.query(places[:, :2] * 0.5, k=7)[0]
    np.testing.assert_allclose(nearest, np.maximum(distance[:, 1], 0.5))
    np.testing.assert_allclose(sixth, distance[:, 6])
    inner = (np.abs(places[:, :2] - 200) < 145).all(axis=1)
    count = tree.query_ball_point(places[:, :2] * 0.5, 25.0, return_length=True) - 1
    np.testing.assert_allclose(within[inner], count[inner])
    corner = np.array([[-0.5, -0.5, 9.0], [9.5, 9.5, 9.0]])
    # a quarter of the surroundings lies inside the tile
    assert measures.neighbours(corner, 400.0, 400.0, 0.5)[2][0] == pytest.approx(4)
    assert measures.neighbours(corner[:1], 400.0, 400.0, 0.5)[0].tolist() == [100]


def test_shape_and_stain_of_one_nucleus():
    labels = np.zeros((80, 80), np.int32)
    y, x = np.mgrid[:80, :80]
    labels[((x - 40) / 16) ** 2 + ((y - 40) / 8) ** 2 <= 1] = 1
    h = np.where(labels == 1, 0.8, 0.1).astype(np.float32)
    e = np.full_like(h, 0.3)
    od = np.where(x < 40, 0.02, 0.2).astype(np.float32)
    depth = filters.distance_inside(labels == 1, 10)
    places, found = measures.measure(labels, 1, np.stack([h, e, od]), h, depth, 0.5)
    got = dict(zip(MEASURES, found[0], strict=True))
    np.testing.assert_allclose(places[0, :2], 40)
    assert np.exp(got["log_area"]) == pytest.approx(np.pi * 16 * 8 / 4, rel=0.03)
    assert got["axis_ratio"] == pytest.approx(0.5, abs=0.01)
    assert got["circularity"] == pytest.approx(0.8, abs=0.08)
    assert got["h"] == pytest.approx(0.8)
    assert got["ring_h"] == pytest.approx(0.1)
    assert got["contrast"] == pytest.approx(0.7)
    assert got["ring_e"] == got["e"] == pytest.approx(0.3)
    assert got["ring_white"] == pytest.approx(0.5, abs=0.03)
    assert got["ring_od"] == pytest.approx(0.11, abs=0.01)
    assert [got[k] for k in ("h_sd", "h_fine", "h_core_rim", "ring_e_sd")] == pytest.approx([0] * 4, abs=1e-3)
