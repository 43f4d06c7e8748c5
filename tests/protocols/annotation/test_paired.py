from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spatialwhisperer.protocols.annotation.paired import null_p_values, over_sections, paired

EDGE = 16
GRID = np.argwhere(np.ones((EDGE, EDGE)))
N = EDGE * EDGE


@pytest.fixture(scope="module")
def found() -> pd.DataFrame:
    """A method that is better than darkness, and one that is darkness with a little noise."""
    rng = np.random.default_rng(0)
    a, b = rng.random((2, N)) < 0.4
    truth = pd.DataFrame({"a": pd.array(a, dtype="boolean"), "b": pd.array(b, dtype="boolean")})
    truth.loc[:9, "a"] = pd.NA
    dark = rng.normal(size=N) + 0.3 * a
    scored = {
        "method": pd.DataFrame({"a": a + 0.6 * rng.normal(size=N), "b": b + 0.6 * rng.normal(size=N)}),
        "near": pd.DataFrame({"a": dark + 0.01 * rng.normal(size=N), "b": dark}),
        "darkness": pd.DataFrame({"a": dark, "b": dark}),
        "probe": pd.DataFrame({"a": rng.normal(size=N)}),
    }
    arrays: Any = {"spatial": GRID.astype(float)}
    test = ad.AnnData(np.zeros((N, 0)), obsm=arrays)
    return paired(scored, truth, test)


def test_differences_have_intervals_over_the_same_spots(found: pd.DataFrame) -> None:
    rows: Any = found[found["against"] == "darkness"].set_index("method")
    assert rows.loc["method", "low"] > 0.1
    assert rows.loc["near", "low"] < 0 < rows.loc["near", "high"]
    # paired: nearly the same scores differ by nearly nothing
    assert rows.loc["near", "high"] - rows.loc["near", "low"] < 0.03
    assert np.isnan(rows.loc["darkness", "low"])


def test_maps_are_counted(found: pd.DataFrame) -> None:
    rank = found.set_index(["method", "against"])["effective_rank"]
    assert rank["method", "probe"] == pytest.approx(2, abs=0.1)
    assert rank["near", "probe"] == pytest.approx(1, abs=0.01)


def test_sections_are_the_units_where_there_are_several() -> None:
    one = {"split": "s", "method": "m", "against": "probe", "low": -9.0, "high": 9.0, "effective_rank": 2.0}
    values = np.array([0.01, 0.03, 0.02, 0.02])
    table = pd.DataFrame([one | {"test": str(i), "difference": v} for i, v in enumerate(values)])
    (row,) = over_sections(table).to_dict("records")
    half = 3.182 * values.std(ddof=1) / 2
    assert [row["low"], row["high"]] == pytest.approx([0.02 - half, 0.02 + half], abs=1e-4)
    assert row["over"] == "4 sections"
    (row,) = over_sections(table[:1]).to_dict("records")
    assert [row["low"], row["high"], row["over"]] == [-9, 9, "spots"]


def test_a_class_is_compared_with_its_own_null() -> None:
    base = {"split": "s", "test": "x", "seed": 0, "truth": "all"}
    draws = np.linspace(0.3, 0.9, 19)
    table = pd.DataFrame(
        [base | {"class": c, "method": "whisperer", "auroc": v} for c, v in (("a", 0.95), ("b", 0.6))]
        + [base | {"class": c, "method": "null", "auroc": v} for c in "ab" for v in draws]
    )
    p = null_p_values(table, {"whisperer": "null"}).set_index("class")["p"]
    assert p.to_dict() == pytest.approx({"a": 1 / 20, "b": (1 + (draws >= 0.6).sum()) / 20})
