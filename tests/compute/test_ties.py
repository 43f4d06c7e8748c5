from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from spatialwhisperer._compute.ties import ROUNDING, ranks


def test_ranks_are_the_mean_over_all_orders_of_what_is_tied() -> None:
    """Each order of the candidates in turn breaks the ties."""
    similar = np.array([0.2, 0.9, 0.2 + ROUNDING / 10, 0.2, -0.5])
    found = ranks(similar[None], np.array([2]))
    assert (found.above.tolist(), found.equal.tolist()) == ([1], [3])
    places = []
    for order in permutations(range(5)):
        by_rank = sorted(range(5), key=lambda i: (-round(float(similar[i]), 6), order[i]))
        places.append(by_rank.index(2) + 1)
    assert found.mean[0] == pytest.approx(np.mean(places))
    for k in range(1, 6):
        assert found.within(k)[0] == pytest.approx((np.array(places) <= k).mean())
