"""Texts are a list of strings with something in them."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from spatialwhisperer.encoders.text.base import check_texts


@pytest.mark.parametrize("texts", [["fat", "bone"], ("fat", "bone"), pd.Series(["fat", "bone"]), {"fat": 1, "bone": 2}])
def test_anything_that_holds_strings_is_a_list_of_them(texts: Any) -> None:
    assert check_texts(texts) == ["fat", "bone"]


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        ("fat", TypeError, r"one string; pass a list of strings: \[text\]"),
        ([], ValueError, "texts is empty"),
        (["fat", float("nan")], TypeError, r"texts\[1\] is nan, of type float"),
        (["fat", "  "], ValueError, r"texts\[1\] is empty"),
        (["\ufeff"], ValueError, r"texts\[0\] is empty"),
        (3, TypeError, "list of strings, not int"),
    ],
)
def test_anything_else_is_refused(texts: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_texts(texts)
