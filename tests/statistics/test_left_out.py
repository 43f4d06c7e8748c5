from __future__ import annotations

import numpy as np
import pytest

from spatialwhisperer.statistics.left_out import BLOCKS, left_out_units, neighbour_blocks

GRID = np.stack(np.meshgrid(np.arange(20), np.arange(12), indexing="ij"), axis=-1).reshape(-1, 2).astype(float)
N = len(GRID)
ONE = np.full(N, "one", object)


def test_units_are_patients_where_there_are_several() -> None:
    patients = np.array(["a", "b", "c"], object)[np.arange(N) // 80]
    units = left_out_units(patients, np.arange(N), GRID)
    assert np.array_equal(units, np.arange(N) // 80)


@pytest.mark.parametrize("patients", [ONE, np.where(np.arange(N) % 3, "a", "b").astype(object)], ids=["one", "two"])
def test_units_are_sections_of_one_or_two_patients(patients: np.ndarray) -> None:
    sections = np.arange(N) % 3
    assert np.array_equal(left_out_units(patients, sections, GRID), sections)


def test_units_are_two_patients_where_sections_are_not_known() -> None:
    patients = np.where(np.arange(N) < 100, "a", "b").astype(object)
    assert np.array_equal(left_out_units(patients, None, GRID), np.arange(N) >= 100)


def test_units_are_blocks_of_one_section() -> None:
    shuffled = np.random.default_rng(0).permutation(N)
    units = left_out_units(ONE, ONE, GRID[shuffled])
    sizes = np.bincount(units)
    assert len(sizes) == BLOCKS
    assert sizes.min() >= 0.75 * N / BLOCKS
    for unit in range(BLOCKS):
        block = GRID[shuffled][units == unit]
        # a block is a filled rectangle: most neighbours of a spot are left out with it
        assert len(block) == np.prod(np.ptp(block, axis=0) + 1)
        assert (np.ptp(block, axis=0) + 1).min() >= 4


def test_rows_at_one_position_are_left_out_together() -> None:
    units = left_out_units(np.repeat(ONE, 3), None, np.repeat(GRID, 3, axis=0))
    assert (units.reshape(-1, 3) == units[::3, None]).all()
    assert len(np.unique(units)) == BLOCKS


@pytest.mark.parametrize("positions", [None, np.full((N, 2), np.nan), np.zeros((N, 2))])
def test_blocks_are_runs_of_rows_where_positions_are_not_known(positions: np.ndarray | None) -> None:
    units = left_out_units(ONE, ONE, positions)
    assert (np.diff(units) >= 0).all()
    assert np.bincount(units).tolist() == [N // BLOCKS] * BLOCKS


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_few_rows_are_few_units(n: int) -> None:
    units = left_out_units(ONE[:n], None, GRID[:n])
    assert units.shape == (n,)
    assert len(np.unique(units)) == n


def test_blocks_are_neighbours_within_sections() -> None:
    rng = np.random.default_rng(0)
    xy, sections = rng.uniform(size=(300, 2)), np.repeat(["a", "b"], 150)
    blocks = neighbour_blocks(xy, sections)
    sizes = np.bincount(blocks)
    assert 8 <= sizes[sizes > 0].min() <= sizes.max() <= 18
    assert not set(blocks[:150]) & set(blocks[150:])
    extent = np.mean([xy[blocks == b].std(axis=0).mean() for b in np.unique(blocks)])
    assert extent < 0.5 * xy.std(axis=0).mean()


def test_rows_without_positions_are_blocks_of_their_own() -> None:
    sections = np.repeat(["a", "b"], 3)
    assert np.array_equal(neighbour_blocks(None, sections), np.arange(6))
    assert np.array_equal(neighbour_blocks(np.full((6, 2), np.nan), sections), np.arange(6))


def test_a_small_section_is_one_block() -> None:
    assert len(set(neighbour_blocks(np.random.default_rng(0).uniform(size=(5, 2)), np.zeros(5)))) == 1
