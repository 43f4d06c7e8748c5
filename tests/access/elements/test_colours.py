"""Colours of labels: those that are stored, else one by the place among all labels."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scanpy.plotting import palettes

from spatialwhisperer import _keys
from spatialwhisperer._access.elements.colours import classes_of, colours_of, distinct, stored_colours, unlike


def table(**uns: Any) -> ad.AnnData:
    return ad.AnnData(np.zeros((1, 0)), uns=uns)


@pytest.mark.parametrize(("n", "palette"), [(1, "20"), (20, "20"), (21, "102"), (102, "102")])
def test_few_labels_get_the_small_palette_of_scanpy(n: int, palette: str) -> None:
    assert distinct(n) == list(getattr(palettes, f"default_{palette}")[:n])


def test_the_large_palette_repeats() -> None:
    assert distinct(104)[102:] == list(palettes.default_102[:2])


def test_colours_unlike_others_come_from_both_palettes() -> None:
    taken = [distinct(20)[0].upper(), "#abcdef"]
    assert unlike(taken, 19) == distinct(20)[1:]
    assert unlike(taken, 20)[19] not in distinct(20)
    assert len(set(unlike(taken, 100))) == 100
    assert not {t.lower() for t in taken} & set(unlike(taken, 100))


def test_a_label_has_its_colour_by_its_place_among_all_labels() -> None:
    named = {"classes": np.array(["a", "b", "c"])}
    assert classes_of(table(x=named), "x") == ["a", "b", "c"]
    assert colours_of(table(x=named), "x", ["c", "a"]) == [distinct(3)[2], distinct(3)[0]]
    # those of the annotation come first in another column, such as the truth
    both = {_keys.LABEL: named, "x": {"classes": np.array(["d", "b"])}}
    assert colours_of(table(**{_keys.LABEL: named}), "y", ["z", "b"]) == [distinct(4)[3], distinct(4)[1]]
    assert colours_of(table(**both), "x", ["d", "b", "a"]) == [distinct(4)[i] for i in (0, 1, 2)]


@pytest.mark.parametrize("stated", [None, 3, {"classes": "abc"}, {"classes": [["a"]]}, {}])
def test_what_names_no_labels_names_none(stated: Any) -> None:
    assert classes_of(table(x=stated) if stated is not None else table(), "x") == []


def column(categories: str, **uns: Any) -> ad.AnnData:
    """A table whose column x has a row of each category."""
    obs = pd.DataFrame({"x": pd.Categorical(list(categories))}, index=[f"r{i}" for i in range(len(categories))])
    return ad.AnnData(np.zeros((len(obs), 0)), obs=obs, uns=uns)


def test_stored_colours_count_where_there_is_one_for_each_category() -> None:
    assert colours_of(column("ab", x_colors=np.array(["red", "#00FF00"], object)), "x", ["b", "a"]) == [
        "#00ff00",
        "#ff0000",
    ]
    assert colours_of(column("abc", x_colors=["red", "blue"]), "x", list("abc")) == distinct(3)


def test_names_beside_the_categories_get_colours_that_are_not_stored() -> None:
    second = distinct(4)[1]
    stored = column("bd", x_colors=[second.upper(), "red"], x={"classes": ["a", "b", "c", "d"]})
    # by place among all labels
    assert colours_of(stored, "x", list("abcd")) == [distinct(4)[0], second, distinct(4)[2], "#ff0000"]
    # and another where that place is taken
    stored.uns["x_colors"] = [distinct(4)[2], "red"]
    shown = colours_of(stored, "x", list("abcd"))
    assert shown[1::2] == [distinct(4)[2], "#ff0000"]
    assert len(set(shown)) == 4


def test_several_tables_give_a_name_one_colour_and_no_two_names_the_same() -> None:
    first, second = column("ab", x_colors=["red", "red"]), column("bc", x_colors=["blue", "red"])
    third = column("d", x_colors=["#0F0"])
    assert colours_of([first, second, third], "x", list("abcd")) == ["#ff0000", "#ff0000", distinct(4)[2], "#00ff00"]


def test_colours_repeat_where_all_are_taken() -> None:
    every = [*distinct(20), *distinct(102)]
    assert set(unlike(every, 3)) <= set(every)


def test_stored_colours_are_written_in_one_way() -> None:
    assert stored_colours(table(x_colors=[(1, 0, 0), "blue", "C0"]), "x") == ["#ff0000", "#0000ff", distinct(1)[0]]


@pytest.mark.parametrize("odd", ["red", 3, np.array(2), ["red", "no colour"]])
def test_what_is_no_list_of_colours_is_left_out(odd: Any) -> None:
    assert stored_colours(table(x_colors=odd), "x") == []
