from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer.pl._drawing.marks import LEAST_PX


def widths(ax: Any) -> np.ndarray:
    """Width of each circle in pixels of the figure, as drawn."""
    ax.figure.canvas.draw()
    marks = ax.collections[0]
    return np.array([path.get_extents(marks.get_transform()).width for path in marks.get_paths()])


def px_per_unit(ax: Any) -> float:
    (x0, _), (x1, _) = ax.transData.transform([(0, 0), (1, 0)])
    return float(x1 - x0)


def test_marks_lie_where_the_spots_are(section: Any) -> None:
    (ax,) = sw.pl.annotation(section, key="cell_type", with_image=False, diameter_um=55)
    spots = section.shapes["P3_spots"]
    assert np.allclose(ax.collections[0].get_offsets(), np.column_stack([spots.geometry.x, spots.geometry.y]), atol=0.5)
    assert ax.collections[0].get_offset_transform() == ax.transData
    assert np.allclose(widths(ax), 55 / 0.5 * px_per_unit(ax), rtol=0.02)
    assert ax.yaxis_inverted()
    assert ax.get_aspect() == 1


@pytest.mark.parametrize("dpi", [50, 100])
def test_no_mark_is_smaller_than_a_pixel_and_a_half(section: Any, dpi: int) -> None:
    (ax,) = sw.pl.annotation(section, key="cell_type", with_image=False, diameter_um=0.1)
    ax.figure.set_dpi(dpi)
    assert np.allclose(widths(ax), LEAST_PX, rtol=0.02)


def test_a_mark_that_is_large_enough_keeps_its_size(section: Any) -> None:
    (ax,) = sw.pl.annotation(section, key="cell_type", with_image=False, diameter_um=55)
    ax.figure.canvas.draw()
    ax.figure.set_dpi(40)
    assert np.allclose(widths(ax), 55 / 0.5 * px_per_unit(ax), rtol=0.02)


def test_each_mark_is_seen_where_it_lies(section: Any) -> None:
    """The pixels of a figure are red where a mark is, and nowhere else."""
    (ax,) = sw.pl.annotation(section, key="cell_type", with_image=False, diameter_um=40, alpha=1.0)
    marks: Any = ax.collections[0]
    marks.set_facecolors(["#ff0000"])
    ax.figure.canvas.draw()
    canvas: Any = ax.figure.canvas
    picture = np.asarray(canvas.buffer_rgba())[..., :3].astype(int)
    red = (picture[..., 0] > 240) & (picture[..., 1:] < 15).all(axis=-1)
    inside = ax.transData.transform(marks.get_offsets())
    assert red[(len(red) - inside[:, 1]).astype(int), inside[:, 0].astype(int)].all()
    expected = len(inside) * np.pi / 4 * marks.diameter_px**2
    assert 0.5 * expected < red.sum() <= 1.05 * expected


def test_many_marks_are_a_picture_in_a_vector_file(monkeypatch: pytest.MonkeyPatch, section: Any) -> None:
    monkeypatch.setattr("spatialwhisperer.pl._drawing.marks.MANY", 20)
    (ax,) = sw.pl.annotation(section, key="cell_type", with_image=False)
    assert ax.collections[0].get_rasterized()
