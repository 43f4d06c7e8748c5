from __future__ import annotations

import numpy as np

from spatialwhisperer.datasets._simulation import kernels


def test_a_nucleus_is_dark_inside_half_at_its_edge_and_nothing_beyond() -> None:
    haem, eosin = np.full((20, 20), 0.1), np.full((20, 20), 0.4)
    one = np.ones(1)
    kernels.paint_nuclei(
        haem, eosin, np.array([[10.0, 10.0]]), 4 * one, 4 * one, 0 * one, 0.8 * one, 0 * one, np.zeros((32, 32))
    )
    # centre, edge, just beyond the soft edge: covered by 1, 1/2 and 0
    np.testing.assert_allclose(haem[10, [10, 14, 15]], [0.8, 0.45, 0.1])
    np.testing.assert_allclose(eosin[10, [10, 14, 15]], [0.4 * 0.45, 0.4 * 0.725, 0.4])
    np.testing.assert_array_equal(haem[:5], 0.1)


def test_each_channel_is_light_through_both_stains_with_noise_of_its_own() -> None:
    rng = np.random.default_rng(0)
    haem, eosin = rng.random((2, 6, 9))
    vectors, light, fine = rng.random((2, 3)), np.array([240.0, 235.0, 245.0]), rng.normal(size=(16, 16))
    rgb = np.empty((3, 6, 9), np.uint8)
    kernels.stain(rgb, haem, eosin, vectors, light, fine, 2.0)
    density = np.einsum("shw,sc->chw", np.stack([haem, eosin]), vectors)
    channel, row, column = np.indices((3, 6, 9))
    noise = 2.0 * fine[(3 * row + 41 * channel) % 16, (5 * column + 7 * row) % 16]
    np.testing.assert_array_equal(rgb, np.uint8(np.clip(light[:, None, None] * np.exp(-density) + noise, 0, 255)))
