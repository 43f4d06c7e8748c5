from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer.pl._drawing.raster import rasterize

RED, BLUE = (1.0, 0.0, 0.0, 1.0), (0.0, 0.0, 1.0, 0.5)


def test_a_square_covers_its_pixels_and_no_others() -> None:
    picture = rasterize(np.array([[3.0, 2.0]]), np.array([RED]), 2.0, (6, 4), square=True)
    expected = np.zeros((4, 6), bool)
    expected[1:3, 2:4] = True
    np.testing.assert_array_equal(picture[..., 3] > 0, expected)
    np.testing.assert_array_equal(picture[expected], [[255, 0, 0, 255]] * 4)


@pytest.mark.parametrize("diameter", [1.5, 3.0, 7.3])
def test_a_circle_has_its_area_wherever_it_lies(diameter: float) -> None:
    rng = np.random.default_rng(0)
    areas = [
        (rasterize(xy[None], np.array([RED]), diameter, (20, 20), square=False)[..., 3] > 0).sum()
        for xy in rng.uniform(6, 14, (400, 2))
    ]
    assert np.mean(areas) == pytest.approx(np.pi / 4 * diameter**2, rel=0.05)


def test_marks_on_top_of_each_other_mix_whatever_their_order() -> None:
    xy, colours = np.full((3, 2), 4.0), np.array([RED, BLUE, BLUE]) * [1, 1, 1, 0.5]
    one = rasterize(xy, colours, 2.0, (8, 8), square=True)
    other = rasterize(xy[::-1], colours[::-1], 2.0, (8, 8), square=True)
    np.testing.assert_array_equal(one, other)
    # opacities .5, .25 and .25: weights -log(.5) and twice -log(.75)
    red = np.log(0.5) / np.log(0.5 * 0.75**2)
    np.testing.assert_array_equal(one[4, 4], np.rint(255 * np.array([red, 0, 1 - red, 1 - 0.5 * 0.75**2])))


def test_marks_outside_the_picture_are_left_out() -> None:
    xy = np.array([[-50.0, 3.0], [0.0, 0.0], [9.9, 9.9], [4.0, 400.0]])
    picture = rasterize(xy, np.array([RED]), 2.0, (10, 10), square=True)
    assert (picture[..., 3] > 0).sum() == 2
    assert picture[0, 0, 3] == picture[9, 9, 3] == 255


def test_many_marks_look_like_each_of_them(monkeypatch: pytest.MonkeyPatch, section: Any) -> None:
    """A picture of marks agrees with marks that are drawn one by one, but for their edges."""

    def drawn() -> np.ndarray:
        (ax,) = sw.pl.annotation(section, key="cell_type", with_image=False, diameter_um=20, alpha=1.0)
        canvas: Any = ax.figure.canvas
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].astype(float)

    one_by_one = drawn()
    monkeypatch.setattr("spatialwhisperer.pl._drawing.marks.MANY", 20)
    monkeypatch.setattr("spatialwhisperer.pl._drawing.marks._SMALL_PX", 50.0)
    at_once = drawn()
    assert abs(one_by_one - at_once).mean() < 1.0
    assert np.corrcoef(one_by_one.ravel(), at_once.ravel())[0, 1] > 0.97


def test_colours_that_change_after_drawing_are_drawn(monkeypatch: pytest.MonkeyPatch, section: Any) -> None:
    monkeypatch.setattr("spatialwhisperer.pl._drawing.marks.MANY", 20)
    monkeypatch.setattr("spatialwhisperer.pl._drawing.marks._SMALL_PX", 50.0)
    (ax,) = sw.pl.annotation(section, key="cell_type", with_image=False, diameter_um=20, alpha=1.0)
    canvas: Any = ax.figure.canvas
    marks: Any = ax.collections[0]

    def n_green() -> int:
        canvas.draw()
        rgb = np.asarray(canvas.buffer_rgba())[..., :3]
        return int((rgb == [0, 255, 0]).all(axis=-1).sum())

    # the layout is the same from the second drawing on
    assert [n_green() for _ in range(3)] == [0, 0, 0]
    marks.set_facecolor("#00ff00")
    assert n_green() > 100
