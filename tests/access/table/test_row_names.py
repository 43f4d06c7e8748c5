"""Rows by their names."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spatialwhisperer._access.table.row_names import check_same_rows, order_of, places_of


def table(*names: str) -> ad.AnnData:
    return ad.AnnData(np.zeros((len(names), 1), np.float32), obs=pd.DataFrame(index=list(names)))


def test_names_say_where_the_rows_are_and_a_bare_count_nothing() -> None:
    assert order_of(pd.Index(["c", "a", "b"]), table("a", "b", "c"), "It", "it").tolist() == [1, 2, 0]
    assert order_of(pd.RangeIndex(3), table("a", "b", "c"), "It", "it").tolist() == [0, 1, 2]
    # numbers that are names
    assert order_of(pd.Index([2, 0, 1]), table("0", "1", "2"), "It", "it").tolist() == [1, 2, 0]
    # names that repeat are fine where both have the same order
    assert order_of(pd.Index(["a", "a"]), table("a", "a"), "It", "it").tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"The rows of it \(b, a, a\) are not those of the table \(a, a, b\)"):
        order_of(pd.Index(["b", "a", "a"]), table("a", "a", "b"), "It", "it")


def test_the_message_names_a_call_that_works() -> None:
    own = table("7", "8", "9")

    def remedy(frame: pd.DataFrame, adata: ad.AnnData = own) -> str:
        with pytest.raises(ValueError, match="table") as caught:
            order_of(frame.index, adata, "It", "it")
        return str(caught.value)

    some, more = pd.DataFrame({"a": [1.0, 2]}, index=["9", "7"]), pd.DataFrame({"a": range(4)}, index=list("9786"))
    swapped = pd.DataFrame({"a": [1.0, 2, 3]}, index=list("976"))
    for frame, call in (
        (some, "it.reindex(adata.obs_names)"),
        (more, "it.loc[adata.obs_names]"),
        (swapped, "it.reindex(adata.obs_names)"),
        (some.set_axis([9, 7]), "it.rename(index=str).reindex(adata.obs_names)"),
        (more.set_axis([9, 7, 8, 6]), "it.rename(index=str).loc[adata.obs_names]"),
    ):
        assert call in remedy(frame)
        brought = eval(call, {"it": frame, "adata": own})
        assert order_of(brought.index, own, "It", "it").tolist() == [0, 1, 2]
    assert "Name them as in .obs_names" in remedy(some.set_axis(["p", "q"]))
    assert "Names repeat in it (9)" in remedy(some.set_axis(["9", "9"]))
    assert "Names repeat in adata (a)" in remedy(more, table("a", "a"))


def test_a_name_that_is_asked_for_is_that_of_one_row() -> None:
    own = table("a", "b", "a", "c")
    assert places_of(pd.Index(["c", "b", "c"]), own, "They").tolist() == [3, 1, 3]
    with pytest.raises(ValueError, match="They name 'a', which 2 rows of the table are named"):
        places_of(pd.Index(["b", "a"]), own, "They")
    with pytest.raises(KeyError, match=r"They name rows that are not in \.obs_names: d"):
        places_of(pd.Index(["a", "d"]), own, "They")


def test_the_remedy_for_other_rows_is_one_that_brings_both_together() -> None:
    measured = table("a", "b", "c")
    for prediction in (table("c", "b", "a"), table("a", "b", "c", "d")):
        with pytest.raises(ValueError, match=r"prediction=prediction\[adata\.obs_names\]\.copy\(\)"):
            check_same_rows(prediction, measured)
        check_same_rows(prediction[measured.obs_names].copy(), measured)
    with pytest.raises(ValueError, match=r"adata\[prediction\.obs_names\]\.copy\(\)"):
        check_same_rows(table("c", "a"), measured)
    # of names that repeat no rows can be taken by name
    for prediction, why in ((table("c", "b", "d"), "differ too"), (table("a", "b", "c", "a"), "Names repeat")):
        with pytest.raises(ValueError, match=rf"{why}.*predict again, sw\.tl\.predict_expression"):
            check_same_rows(prediction, measured)
