from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage, stats

from spatialwhisperer._compute import blocks
from spatialwhisperer.encoders.catalogue import get_spec
from spatialwhisperer.encoders.image._texture import kernels
from spatialwhisperer.encoders.image.stain import unmixing_matrix
from spatialwhisperer.encoders.image.stain_texture import StainTextureEncoder, grid_edge


def tissue(edge: int = 96, n: int = 3, seed: int = 0) -> np.ndarray:
    """Pink ground with smooth variation and purple discs, uint8 (n, 3, edge, edge)."""
    rng = np.random.default_rng(seed)
    out = np.empty((n, 3, edge, edge), np.uint8)
    y, x = np.mgrid[:edge, :edge]
    for tile in out:
        ground = ndimage.gaussian_filter(rng.normal(size=(edge, edge)), 4)
        e = np.clip(0.3 + 0.8 * ground / ground.std() * 0.1, 0, None)
        h = np.full((edge, edge), 0.05)
        for cy, cx in rng.uniform(0, edge, (edge * edge // 300, 2)):
            h[(y - cy) ** 2 + (x - cx) ** 2 < 16] = 0.7
        h = ndimage.gaussian_filter(h, 1)
        od = (
            h[None] * np.array([0.65, 0.704, 0.286])[:, None, None]
            + e[None] * np.array([0.072, 0.99, 0.105])[:, None, None]
        )
        tile[:] = np.clip(256 * 10**-od - 1, 0, 255).round()
    return out


@pytest.fixture(scope="module")
def plane() -> np.ndarray:
    return np.random.default_rng(1).normal(0.4, 0.2, (23, 23)).astype(np.float32)


@pytest.mark.parametrize(("p", "n"), [(24, 24), (24, 12), (23, 9), (224, 154)])
def test_area_resample_is_the_overlap_matrix(p, n):
    planes = np.random.default_rng(0).random((3, p, p), dtype=np.float32)
    starts, stops = np.arange(n)[:, None] * p / n, (np.arange(n)[:, None] + 1) * p / n
    weights = np.clip(np.minimum(stops, np.arange(p) + 1) - np.maximum(starts, np.arange(p)), 0, None) * n / p
    expected = weights @ planes @ weights.T
    np.testing.assert_allclose(kernels.area_resample(planes, n), expected, atol=1e-5)


def test_stain_planes_are_beer_lambert_times_the_inverse():
    rgb = np.random.default_rng(0).uniform(0, 255, (3, 11, 11)).astype(np.float32)
    od = -np.log10((rgb.astype(float) + 1) / 256)
    stains = np.einsum("cij,ck->kij", od, unmixing_matrix())
    got = kernels.stain_planes(rgb, unmixing_matrix())
    np.testing.assert_allclose(got[:3], stains, atol=1e-4)
    np.testing.assert_allclose(got[3], od.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(got[4], (rgb.max(0) - rgb.min(0)) / np.maximum(rgb.max(0), 1), atol=1e-5)


def test_pure_stains_unmix_to_themselves():
    for k, vector in enumerate(((0.650, 0.704, 0.286), (0.072, 0.990, 0.105))):
        unit = np.array(vector) / np.linalg.norm(vector)
        rgb = np.broadcast_to((256 * 10 ** (-0.5 * unit) - 1)[:, None, None], (3, 4, 4)).astype(np.float32)
        stains = kernels.stain_planes(np.ascontiguousarray(rgb), unmixing_matrix())[:3, 0, 0]
        np.testing.assert_allclose(stains, 0.5 * np.eye(3)[k], atol=1e-4)


def test_the_residual_stain_takes_blue_away():
    # haematoxylin x eosin by hand; its sign is part of the features that models were trained on
    residual = np.array([0.704 * 0.105 - 0.286 * 0.990, 0.286 * 0.072 - 0.650 * 0.105, 0.650 * 0.990 - 0.704 * 0.072])
    assert residual.argmax() == 2
    np.testing.assert_allclose(unmixing_matrix()[:, 2], residual / np.linalg.norm(residual), atol=1e-6)


def test_moments_and_correlation(plane):
    other = (plane + np.random.default_rng(2).normal(0, 0.2, plane.shape)).astype(np.float32)
    expected = (plane.mean(), plane.std(), stats.skew(plane, axis=None))
    np.testing.assert_allclose(kernels.moments(plane), expected, rtol=1e-3)
    np.testing.assert_allclose(
        kernels.correlation(plane, other), np.corrcoef(plane.ravel(), other.ravel())[0, 1], rtol=1e-4
    )
    flat = np.full_like(plane, 0.3)
    assert kernels.moments(flat)[2] == 0
    assert kernels.correlation(plane, flat) == 0


def test_gated_means_are_means_under_a_mask():
    planes = np.random.default_rng(3).random((5, 13, 13), dtype=np.float32)
    mask = (planes[3] > 0.3) & (planes[0] > 0.2) & (planes[0] <= 0.7)
    expected = np.r_[mask.mean(), planes[:, mask].mean(axis=1)]
    np.testing.assert_allclose(kernels.gated_means(planes, 0.3, 0.2, 0.7), expected, rtol=1e-5)
    np.testing.assert_array_equal(kernels.gated_means(planes, 2.0, -np.inf, np.inf), 0)


def test_edges_are_central_differences_and_the_five_point_laplacian(plane):
    gy, gx = np.gradient(plane.astype(float))
    inner = np.s_[1:-1, 1:-1]
    laplacian = ndimage.laplace(plane.astype(float))[inner]
    expected = (np.hypot(gy, gx)[inner].mean(), np.sqrt((laplacian**2).mean()))
    np.testing.assert_allclose(kernels.edges(plane), expected, rtol=1e-5)


def test_smooth_is_the_binomial_kernel(plane):
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    np.testing.assert_allclose(kernels.smooth(plane), ndimage.convolve(plane, kernel, mode="nearest"), atol=1e-6)


@pytest.mark.parametrize("tolerance", [0.0, 0.1])
def test_binary_patterns_count_uniform_codes(plane, tolerance):
    n = plane.shape[0]
    shifts = [(0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1)]
    floor = plane[1:-1, 1:-1] + np.float32(tolerance)
    bits = np.array([plane[1 + y : n - 1 + y, 1 + x : n - 1 + x] >= floor for y, x in shifts]).astype(int)
    changes = (bits != np.roll(bits, 1, axis=0)).sum(axis=0)
    codes = np.where(changes <= 2, bits.sum(axis=0), 9)
    expected = np.bincount(codes.ravel(), minlength=10) / codes.size
    np.testing.assert_allclose(kernels.binary_patterns(plane, tolerance), expected)


def test_peaks_are_strict_local_maxima(plane):
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    top = (plane > ndimage.maximum_filter(plane, footprint=ring)) & (plane > 0.5)
    heights = plane[1:-1, 1:-1][top[1:-1, 1:-1]]
    expected = (top[1:-1, 1:-1].mean(), heights.mean(), heights.std())
    np.testing.assert_allclose(kernels.peaks(plane, 0.5), expected, rtol=1e-4)
    assert kernels.peaks(plane, 99.0) == (0, 0, 0)


@pytest.mark.parametrize("width", [3, 5, 9, 17, 61])
def test_openings_are_scipy_grey_openings(plane, width):
    expected = ndimage.minimum_filter(plane, size=width, mode="nearest")
    np.testing.assert_array_equal(kernels.window_minimum(plane, width), expected)
    opened = ndimage.grey_opening(plane, size=(width, width), mode="nearest").mean()
    np.testing.assert_allclose(kernels.opened_mean(plane, width), opened, rtol=1e-5)


def test_names_match_columns_and_the_registry():
    encoder = StainTextureEncoder()
    names = encoder.feature_names()
    features = encoder.encode(tissue(), mpp=0.7)
    assert features.dtype == np.float32
    assert features.shape == (3, len(names))
    assert len(set(names)) == len(names) == get_spec("stain_texture").dim == encoder.spec.dim
    assert encoder.spec.tile_um == 154


@pytest.mark.parametrize("mpp", [0.1, 0.5, 3.19, 40.0])
@pytest.mark.parametrize("edge", [16, 17, 50])
def test_every_tile_gives_finite_numbers(edge, mpp):
    noise = np.random.default_rng(0).integers(0, 256, (3, edge, edge), dtype=np.uint8)
    tiles = [np.full((3, edge, edge), v, np.uint8) for v in (0, 1, 128, 254, 255)]
    tiles += [
        noise,
        np.where(noise > 127, 255, 0).astype(np.uint8),
        np.eye(edge, dtype=np.uint8)[None].repeat(3, 0) * 255,
    ]
    assert np.isfinite(StainTextureEncoder().encode(np.stack(tiles), mpp=mpp)).all()


def test_rows_depend_on_their_own_tile_alone_whatever_the_number_of_threads(monkeypatch):
    tiles, encoder = tissue(64, n=5), StainTextureEncoder()
    together = encoder.encode(tiles, mpp=1.0)
    for cores in (1, 3):
        monkeypatch.setattr(blocks, "cores", lambda cores=cores: cores)
        np.testing.assert_array_equal(encoder.encode(tiles, mpp=1.0), together)
    apart = np.concatenate([encoder.encode(t[None], mpp=1.0) for t in tiles[::-1]])[::-1]
    np.testing.assert_array_equal(together, apart)
    assert encoder.encode(tiles[:0], mpp=1.0).shape == (0, together.shape[1])


def test_masked_background_counts_as_white_background():
    white, black = tissue(64, n=1), tissue(64, n=1)
    white[..., :20], black[..., :20] = 255, 5
    encoder = StainTextureEncoder()
    np.testing.assert_array_equal(encoder.encode(white, mpp=1.0), encoder.encode(black, mpp=1.0))


def test_scales_are_microns():
    fine = tissue(192, n=12, seed=4)
    coarse = fine.reshape(12, 3, 96, 2, 96, 2).mean(axis=(3, 5)).round().astype(np.uint8)
    encoder = StainTextureEncoder()
    a, b, wrong = encoder.encode(fine, mpp=0.5), encoder.encode(coarse, mpp=1.0), encoder.encode(coarse, mpp=0.5)
    sd = np.maximum(np.concatenate([a, b, wrong]).std(axis=0), 1e-6)
    same, other = np.abs(a - b).mean(axis=0) / sd, np.abs(a - wrong).mean(axis=0) / sd
    assert np.median(same) < 0.05
    assert np.median(other) > 10 * np.median(same)


def test_a_scale_finer_than_the_pixels_is_one_pixel():
    assert grid_edge(48, 3.19, 1.0) == 48
    assert grid_edge(224, 0.6881, 2.0) == 77
    assert grid_edge(32, 0.25, 16.0) == 8


def test_more_nuclei_raise_the_nuclear_features():
    sparse, encoder = tissue(64, n=1), StainTextureEncoder()
    dense = np.minimum(sparse, np.roll(sparse, 31, axis=-1))
    column = encoder.feature_names().index
    a, b = encoder.encode(sparse, mpp=1.0)[0], encoder.encode(dense, mpp=1.0)[0]
    assert all(b[column(name)] > a[column(name)] for name in ("h_mean", "nuclear_fraction", "h_peak_fraction_1um"))


def test_bad_input_is_named():
    encoder, tiles = StainTextureEncoder(), tissue(32, n=2)
    with pytest.raises(TypeError, match="uint8"):
        encoder.encode(tiles / 255, mpp=0.5)
    with pytest.raises(ValueError, match=r"transpose\(0, 3, 1, 2\)"):
        encoder.encode(tiles.transpose(0, 2, 3, 1), mpp=0.5)
    with pytest.raises(ValueError, match="at least 16 px"):
        encoder.encode(tiles[..., :12, :12], mpp=0.5)
    for mpp in (0, -1, np.nan):
        with pytest.raises(ValueError, match="mpp"):
            encoder.encode(tiles, mpp=mpp)


def test_it_has_no_weights_to_train_and_a_name_that_is_enough():
    encoder = StainTextureEncoder()
    with pytest.raises(ValueError, match="'stain_texture' has no weights to train. Lock it"):
        encoder.module()
    assert encoder.identity.by_name
    assert encoder.artifact() is None
    with pytest.raises(ValueError, match="'stain_texture' takes none"):
        StainTextureEncoder.open("stain_texture", weights="somewhere")
