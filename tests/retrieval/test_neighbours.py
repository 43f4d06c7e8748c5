from __future__ import annotations

import numpy as np
import pytest

from spatialwhisperer.retrieval.neighbours import section_neighbours


def lattice(side: int, spacing: float = 7.0) -> np.ndarray:
    return spacing * np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2).astype(float)


def test_neighbours_are_the_nearest_rows_of_the_own_section() -> None:
    rng = np.random.default_rng(0)
    xy, section = rng.uniform(0, 100, (80, 2)), np.repeat(["a", "b"], 40)
    got = section_neighbours(xy, section, 5)
    for i in range(80):
        distance = np.where(section == section[i], np.linalg.norm(xy - xy[i], axis=1), np.inf)
        assert got.index[i].tolist() == np.argsort(distance)[:6].tolist()
    nearest = np.sort(np.linalg.norm(xy[:40, None] - xy[None, :40], axis=2), axis=1)[:, 1]
    np.testing.assert_allclose(got.offsets[3], (xy[got.index[3]] - xy[3]) / np.median(nearest), rtol=1e-5)
    assert got.index.dtype == np.int64
    assert got.offsets.dtype == np.float32


@pytest.mark.parametrize("k", [3, 6, 8])
def test_order_of_rows_and_other_sections_do_not_matter(k: int) -> None:
    """Also on a lattice, where most neighbours are equally near."""
    rng = np.random.default_rng(1)
    xy = lattice(7)
    alone = section_neighbours(xy, np.zeros(49), k)
    order = rng.permutation(49)
    permuted = section_neighbours(xy[order], np.zeros(49), k)
    assert np.array_equal(order[permuted.index], alone.index[order])
    assert np.array_equal(permuted.offsets, alone.offsets[order])
    more = section_neighbours(np.concatenate([xy, xy * 3 + 1]), np.repeat([0, 1], 49), k)
    assert np.array_equal(more.index[:49], alone.index)
    assert np.array_equal(more.index[49:] - 49, alone.index)
    np.testing.assert_allclose(more.offsets[49:], alone.offsets, atol=1e-6)


def test_small_sections_and_rows_without_position_or_section() -> None:
    xy = np.array([[0, 0], [3, 0], [np.nan, 0], [9, 9], [0, 6], [1, 1]], float)
    got = section_neighbours(xy, np.array(["a", "a", "a", "b", "a", None], dtype=object), 4)
    assert got.index.tolist() == [
        [0, 1, 4, -1, -1],
        [1, 0, 4, -1, -1],
        [2, -1, -1, -1, -1],
        [3, -1, -1, -1, -1],
        [4, 0, 1, -1, -1],
        [5, -1, -1, -1, -1],
    ]
    assert (got.offsets[got.index < 0] == 0).all()
    assert len(got) == 6


def test_rows_in_one_place_are_neighbours_of_each_other_and_not_of_themselves() -> None:
    stacked = np.array([[0, 0]] * 6 + [[2, 0]], float)
    got = section_neighbours(stacked, np.zeros(7), 3)
    for i in range(7):
        assert i not in got.index[i, 1:]
        assert (got.index[i] >= 0).all()
        assert len(set(got.index[i])) == 4
    assert np.isfinite(got.offsets).all()
    assert np.abs(got.offsets[6, 1:]).max() == 1
    assert np.isfinite(section_neighbours(np.zeros((4, 2)), np.zeros(4), 2).offsets).all()


def test_no_rows_have_no_neighbours() -> None:
    assert section_neighbours(np.empty((0, 2)), [], 2).index.shape == (0, 3)


def test_input_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        section_neighbours(np.zeros((3, 3)), np.zeros(3), 2)
    with pytest.raises(ValueError, match="shape"):
        section_neighbours(np.zeros((3, 2)), np.zeros(2), 2)
    for k in (0, 1.5, True):
        with pytest.raises(ValueError, match="k must be a positive whole number"):
            section_neighbours(np.zeros((3, 2)), np.zeros(3), k)  # type: ignore[arg-type]
