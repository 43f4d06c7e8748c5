from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer.pl.marks import LEAST_PX


def test_marks_lie_where_the_spots_are(section: Any) -> None:
    (ax,) = sw.pl.annotation(section, key="cell_type", with_image=False, diameter_um=55)
    spots = section.shapes["P3_spots"]
    boxes = [p.get_extents() for p in ax.collections[0].get_paths()]
    centres = np.array([[(b.x0 + b.x1) / 2, (b.y0 + b.y1) / 2] for b in boxes])
    assert np.allclose(centres, np.column_stack([spots.geometry.x, spots.geometry.y]), atol=0.5)
    assert np.allclose([b.width for b in boxes], 55 / 0.5, rtol=0.02)
    assert ax.yaxis_inverted()
    assert ax.get_aspect() == 1


@pytest.mark.parametrize("dpi", [50, 100])
def test_no_mark_is_smaller_than_a_pixel_and_a_half(section: Any, dpi: int) -> None:
    (ax,) = sw.pl.annotation(section, key="cell_type", with_image=False, diameter_um=0.1)
    ax.figure.set_dpi(dpi)
    ax.figure.canvas.draw()
    marks = ax.collections[0]
    wide = [path.get_extents(marks.get_transform()).width for path in marks.get_paths()]
    assert np.allclose(wide, LEAST_PX, rtol=0.02)


def test_a_mark_that_is_large_enough_keeps_its_size(section: Any) -> None:
    (ax,) = sw.pl.annotation(section, key="cell_type", with_image=False, diameter_um=55)
    ax.figure.canvas.draw()
    boxes = [path.get_extents() for path in ax.collections[0].get_paths()]
    assert np.allclose([b.width for b in boxes], 55 / 0.5, rtol=0.02)
