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
