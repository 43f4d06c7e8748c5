"""Rows that a model was trained on are recognised by their names and positions."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.table.fingerprints import KEPT, name_hashes, row_ids, trained_rows, trained_sections


def table(n: int = 400, seed: int = 0, xy: Any = None) -> ad.AnnData:
    """Barcodes that every seed has, at positions of its own."""
    out = ad.AnnData(obs=pd.DataFrame(index=[f"spot-{i}" for i in range(n)]))
    out.obsm["spatial"] = np.random.default_rng(seed).uniform(0, 5000, (n, 2)) if xy is None else np.array(xy, float)
    return out


def known(*tables: ad.AnnData) -> Any:
    slides = [Slide.open(one) for one in tables]
    parts = [(name_hashes(s.table), row_ids(s), np.full(s.n_rows, f"{i}:all")) for i, s in enumerate(slides)]
    return trained_rows(*map(np.concatenate, zip(*parts, strict=True)))


def recognised(one: ad.AnnData, rows: Any) -> dict[str, str]:
    return trained_sections(Slide.open(one), *rows)


def test_a_row_is_its_name_and_position() -> None:
    def ids(names: list[str], xy: list[list[float]]) -> list[int]:
        one = table(len(names), xy=xy)
        one.obs_names = names
        return row_ids(Slide.open(one)).tolist()

    here = ids(["a", "b"], [[0, 1], [2, 3]])
    assert ids(["b", "a"], [[2, 3.01], [0, 1]]) == here[::-1]
    assert ids(["a", "c"], [[0, 1], [2, 3]])[0] == here[0]
    assert ids(["a", "c"], [[0, 1], [2, 3]])[1] != here[1]
    assert ids(["a", "b"], [[0, 1], [2, 4]])[1] != here[1]
    assert ids(["a", "b"], [[1, 0], [3, 2]]) != here
    assert len(set(ids(["a", "b"], [[np.nan, 1], [np.nan, 1]]))) == 2


def test_without_positions_a_row_is_known_with_all_of_its_section() -> None:
    one = table(5)
    del one.obsm["spatial"]
    ids = row_ids(Slide.open(one))
    assert row_ids(Slide.open(one[::-1].copy())).tolist() == ids[::-1].tolist()
    assert not set(row_ids(Slide.open(one[:4].copy()))) & set(ids)
    one.obs["array_row"], one.obs["array_col"] = range(5), range(5)
    on_array = row_ids(Slide.open(one))
    assert not set(row_ids(Slide.open(one[1:].copy()))) & set(on_array)


@pytest.mark.parametrize("n", [60, 400])
def test_a_part_of_a_section_is_recognised(n: int) -> None:
    one, two = table(n), table(n, seed=1)
    rows = known(one, two)
    assert len(rows[1]["trained_row"]) == 2 * min(n, KEPT)
    order = np.random.default_rng(0).permutation(n)
    for part in (order, order[: n - 1], order[: n // 2], order[: n // 10]):
        assert recognised(one[part].copy(), rows) == {"all": "0:all"}
        assert recognised(two[part].copy(), rows) == {"all": "1:all"}


def test_a_section_that_holds_others_is_recognised() -> None:
    one, new = table(), table(4000, seed=2)
    new.obs_names = [f"new-{i}" for i in range(4000)]
    rows = known(one)
    assert recognised(ad.concat([one, new]), rows) == {"all": "0:all"}
    assert recognised(new, rows) == {}


def test_another_section_with_the_same_names_is_new() -> None:
    assert recognised(table(seed=3), known(table(), table(seed=1))) == {}
    assert recognised(table(), ((), {})) == {}
    # a few spots that lie alike do not make a section
    near = table(seed=3)
    near.obsm["spatial"][:40] = table().obsm["spatial"][:40]
    assert recognised(near, known(table())) == {}
