"""What an annotation allows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from spatialwhisperer._annotations import check_annotated, kinds_of, numbers, one_for_each, shown


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        ("int", np.int8(3)),
        ("int | None", None),
        ("float", 2),
        ("float", np.float32(0.5)),
        ("str", np.str_("a")),
        ("bool", np.True_),
        ("str | Path", Path("a")),
        ("Sequence[str]", ("a", "b")),
        ("Sequence[str]", pd.Series(["a"])),
        ("Sequence[str]", pd.Index(["a"])),
        ("Iterable[str]", {"a"}),
        ("Iterable[str]", {"a": 1}),
        ("Sequence[str]", iter(["a"])),
        ("tuple[float, float]", (1, 2.5)),
        ("str | Sequence[str]", "a"),
        ("Mapping[str, float]", {"a": 1}),
        ("Mapping[tuple[str, str], float]", {("a", "b"): 1.0}),
        ("Literal['a', 'b'] | None", "b"),
        ("pd.DataFrame | None", pd.DataFrame()),
    ],
)
def test_values_of_the_type_pass(annotation: str, value: Any) -> None:
    assert kinds_of(annotation)
    check_annotated("x", value, annotation)


@pytest.mark.parametrize(
    ("annotation", "value", "words"),
    [
        ("int", 1.5, "a whole number"),
        ("int", True, "a whole number"),
        ("int", np.array(2), "a whole number"),
        ("float", "8", "a number"),
        ("float", 10**400, "a number"),
        ("float | None", 1 + 2j, "a number or None"),
        ("str", b"x", "text"),
        ("str", "\ud800", "text"),
        ("str", pd.NA, "text"),
        ("bool", 1, "True or False"),
        ("str | Path", 7, "text or a path"),
        ("Sequence[str]", "a", "a list of text"),
        ("Sequence[str]", ["a", 7], "a list of text"),
        ("Sequence[str]", np.eye(2), "a list of text"),
        ("int | str | None", 1.5, "a whole number, text or None"),
        ("Mapping[str, float]", {1: 2}, "a mapping of names"),
        ("Mapping[str, float]", ["a"], "a mapping of names"),
        ("Literal['a', 'b']", np.array(["a"]), "'a' or 'b'"),
        ("Axes | None", 7, "axes of matplotlib or None"),
        ("Hierarchy | None", 7, "a Hierarchy or None"),
    ],
)
def test_values_of_another_type_are_refused(annotation: str, value: Any, words: str) -> None:
    with pytest.raises(TypeError, match=f"^x must be {words}, not "):
        check_annotated("x", value, annotation)


@pytest.mark.parametrize(
    "annotation", ["Any", "np.ndarray", "Labels | None", "AnnData | SpatialData", "tuple[str, np.ndarray]"]
)
def test_what_is_not_understood_is_left_to_the_function(annotation: str) -> None:
    assert not kinds_of(annotation)
    check_annotated("x", object(), annotation)


def test_a_grid_of_axes_is_several() -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2)
    check_annotated("axes", axes, "Axes | Sequence[Axes] | None")
    check_annotated("axes", axes[0, 0], "Axes | Sequence[Axes] | None")
    plt.close(figure)


def test_long_values_are_cut() -> None:
    assert len(shown("x" * 500)) < 100


def test_numbers_of_the_shape_pass() -> None:
    assert numbers("x", [[1, 2], [3, 4]], (None, 2)).shape == (2, 2)
    assert numbers("x", np.zeros((3, 4)), (3, None)).shape == (3, 4)
    assert numbers("x", 5).shape == ()


@pytest.mark.parametrize("value", ["a", {}, None, [[1], [1, 2]], np.array([1j]), np.array(["a"]), object()])
def test_what_holds_no_numbers_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="x must be an array of numbers"):
        numbers("x", value, (None,))


def test_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"x must be of shape \(n, 2\); found \(3, 3\)"):
        numbers("x", np.eye(3), (None, 2))


@pytest.mark.parametrize("value", [["a", "b"], np.array([1, 2]), pd.Series(["a", "b"]), pd.Categorical(["a", "b"])])
def test_one_for_each_row(value: Any) -> None:
    assert len(one_for_each("sections", value, 2)) == 2


@pytest.mark.parametrize("value", ["ab", 7, None, ["a"], np.array(2), np.eye(2), {"a": 1, "b": 2}])
def test_not_one_for_each_row(value: Any) -> None:
    with pytest.raises(ValueError, match="sections must name one for each of the 2 rows"):
        one_for_each("sections", value, 2)
