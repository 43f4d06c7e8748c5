"""Rows of a slide that are observations of a bank of expression."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.table.fingerprints import row_ids
from spatialwhisperer.tl._embedding.bank import own_observations


def section(seed: int, n: int = 40) -> ad.AnnData:
    """Spots of the same names in every section, at positions of their own."""
    out = ad.AnnData(obs=pd.DataFrame(index=[f"spot-{i}" for i in range(n)]))
    out.obsm["spatial"] = np.random.default_rng(seed).uniform(0, 5000, (n, 2))
    return out


@pytest.fixture
def bank() -> Any:
    """Three sections, the last two of one patient."""
    codes = np.repeat([0, 1, 2], 40)
    ids = np.concatenate([row_ids(Slide.open(section(seed))) for seed in range(3)])
    return SimpleNamespace(arrays={"row": ids, "section": codes, "group": np.minimum(codes, 1)})


def found(one: ad.AnnData, bank: Any) -> Any:
    return own_observations(Slide.open(one), bank)


def test_rows_are_found_one_by_one(bank: Any) -> None:
    own = found(ad.concat([section(2), section(0), section(9)]), bank)
    assert own.known.tolist() == [True] * 80 + [False] * 40
    # most rows of these are of the bank, and each has the section that it came from
    assert own.section[:80].tolist() == [2] * 40 + [0] * 40
    assert own.group[:80].tolist() == [1] * 40 + [0] * 40
    assert found(section(1)[:3].copy(), bank).section.tolist() == [1] * 3


def test_rows_that_training_left_out_are_of_the_same_section(bank: Any) -> None:
    one = section(1)
    one.obs_names = [*one.obs_names[:20], *(f"new-{i}" for i in range(20))]
    assert found(one, bank).section.tolist() == [1] * 40
    assert found(one, bank).known.sum() == 20
    one.obs_names = [*one.obs_names[:19], *(f"new-{i}" for i in range(21))]
    assert found(one, bank).section.tolist() == [1] * 19 + [-1] * 21


def test_new_tissue_is_not_found(bank: Any) -> None:
    assert (found(section(9), bank).section == -1).all()
    near = section(9)
    near.obsm["spatial"][0] = section(0).obsm["spatial"][0]
    assert not found(near, bank).known.any()
    del bank.arrays["row"]
    assert not found(section(0), bank).known.any()


def test_of_sections_that_lie_alike_the_one_with_most_rows_is_found(bank: Any) -> None:
    """On an array of fixed positions, spots of two sections have the same names and positions."""
    bank.arrays["row"][:30] = bank.arrays["row"][40:70]
    assert found(section(1), bank).section.tolist() == [1] * 40
