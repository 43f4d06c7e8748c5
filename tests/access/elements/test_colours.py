"""Colours of labels: those that are stored, else one by the place among all labels."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
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


def test_stored_colours_count_where_there_is_one_for_each_label() -> None:
    stored = table(x_colors=np.array(["red", "#00ff00"], object))
    assert colours_of(stored, "x", ["a", "b"]) == ["red", "#00ff00"]
    assert colours_of(stored, "x", ["a", "b", "c"]) == distinct(3)
    assert stored_colours(table(x_colors=[(1, 0, 0), "blue"]), "x") == ["#ff0000", "blue"]


@pytest.mark.parametrize("odd", ["red", 3, np.array(2), ["red", "no colour"]])
def test_what_is_no_list_of_colours_is_left_out(odd: Any) -> None:
    assert stored_colours(table(x_colors=odd), "x") == []
