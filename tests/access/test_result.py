from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spatialwhisperer._access.result import Result, write_results
from spatialwhisperer._provenance import recorded


@pytest.fixture
def table() -> Any:
    """A table with earlier results and columns of its own."""
    adata = ad.AnnData(np.ones((4, 2), np.float32))
    adata.obs["first"] = [1, 2, 3, 4]
    adata.obs["label"] = pd.Categorical(["a", "b", "a", "b"])
    adata.obs["left_over"] = ["x"] * 4
    adata.obs["last"] = [0.5] * 4
    adata.obsm["X_a"] = np.arange(8.0).reshape(4, 2)
    adata.obsm["left_over"] = np.zeros((4, 1))
    adata.obsm["X_b"] = np.ones((4, 3))
    adata.uns["label_colors"] = ["#000000", "#ffffff"]
    adata.uns["left_over"] = 3
    adata.uns["own"] = {"nested": 1}
    # the columns are results of these keys
    write_results(adata, (Result("earlier", {"n": 1}), *(Result(key, {}) for key in ("new", "bad", "good", "x"))))
    return adata


def state(adata: Any) -> tuple[Any, ...]:
    """Everything that a result may write, in its order."""
    return (
        adata.obs.to_dict("list"),
        [(name, str(kind)) for name, kind in adata.obs.dtypes.items()],
        [(name, np.asarray(value).tolist()) for name, value in adata.obsm.items()],
        [(name, str(value)) for name, value in adata.uns.items()],
    )


def test_all_keys_of_a_result_are_written_with_its_provenance(table: Any) -> None:
    result = Result(
        "new",
        {"size": 3},
        obs={"score": np.arange(4.0)},
        obsm={"X_new": np.ones((4, 5))},
        uns={"new_classes": ["a"]},
        gone=("left_over", "never_there"),
    )
    write_results(table, (result, Result("other", {})))
    assert table.obs["score"].tolist() == [0, 1, 2, 3]
    assert table.obsm["X_new"].shape == (4, 5)
    assert table.uns["new_classes"] == ["a"]
    assert recorded(table, "new") == {"size": 3}
    assert recorded(table, "other") == {}
    assert recorded(table, "earlier") == {"n": 1}
    for part in (table.obs, table.obsm, table.uns):
        assert "left_over" not in part


def test_a_later_result_may_take_the_place_of_an_earlier_one(table: Any) -> None:
    write_results(table, (Result("earlier", {"n": 2}, obsm={"X_a": np.zeros((4, 1))}),))
    assert recorded(table, "earlier") == {"n": 2}
    assert table.obsm["X_a"].shape == (4, 1)


WRONG = [
    Result("bad", {}, obs={"label": pd.Categorical(["c"] * 4), "new": [1, 2]}),
    Result("bad", {}, obs={"first": [9] * 4}, obsm={"X_a": np.zeros((4, 9)), "X_bad": np.zeros((3, 2))}),
    Result("bad", {}, obs={"new": [1] * 4}, gone=("left_over",), obsm={"X_bad": np.zeros((3, 2))}),
]


@pytest.mark.parametrize("wrong", WRONG)
def test_after_an_error_everything_is_as_it_was_in_the_same_order(table: Any, wrong: Result) -> None:
    before = state(table)
    written = Result("good", {}, obs={"good": [1] * 4}, obsm={"X_good": np.zeros((4, 1))}, gone=("left_over",))
    with pytest.raises(ValueError, match=r"[Ll]ength|shape|dimension"):
        write_results(table, (written, wrong))
    assert state(table) == before
    # and it can still be written to
    write_results(table, (written,))
    assert recorded(table, "good") == {}


def test_an_interrupt_leaves_everything_as_it_was(table: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from spatialwhisperer._access import result as module

    def interrupted(_: Any) -> dict[str, str]:
        raise KeyboardInterrupt

    before = state(table)
    monkeypatch.setattr(module, "entry", interrupted)
    result = Result("bad", {}, obs={"new": [1] * 4}, uns={"own": 0, "label_colors": []}, gone=("left_over", "first"))
    with pytest.raises(KeyboardInterrupt):
        write_results(table, (result,))
    assert state(table) == before


def test_a_view_keeps_its_rows_after_an_error(table: Any) -> None:
    view = table[[2, 0]]
    before = state(view.copy())
    with pytest.raises(ValueError, match=r"[Ll]ength|shape|dimension"):
        write_results(view, (Result("bad", {}, obs={"new": [1, 2]}, obsm={"X_bad": np.zeros((3, 2))}),))
    assert state(view) == before
    assert "new" not in table.obs


def test_colours_of_other_categories_go(table: Any) -> None:
    write_results(table, (Result("x", {}, obs={"label": pd.Categorical(["b", "a", "a", "a"])}),))
    assert table.uns["label_colors"] == ["#000000", "#ffffff"]
    other = pd.Categorical(["b", "a", "a", "a"], categories=["b", "a"])
    write_results(table, (Result("x", {}, obs={"label": other}),))
    assert "label_colors" not in table.uns


@pytest.mark.parametrize("former", [None, [1, 2, 3, 4]])
def test_colours_of_a_column_that_was_no_categorical_go(table: Any, former: Any) -> None:
    del table.obs["label"]
    if former is not None:
        table.obs["label"] = former
    write_results(table, (Result("x", {}, obs={"label": pd.Categorical(["a", "b", "b", "b"])}),))
    assert "label_colors" not in table.uns
