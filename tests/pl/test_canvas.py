from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import spatialwhisperer as sw


def test_marks_lie_where_the_spots_are(section: Any) -> None:
    (ax,) = sw.pl.annotation(section, key="cell_type", with_image=False, diameter_um=55)
    spots = section.shapes["P3_spots"]
    boxes = [p.get_extents() for p in ax.collections[0].get_paths()]
    centres = np.array([[(b.x0 + b.x1) / 2, (b.y0 + b.y1) / 2] for b in boxes])
    assert np.allclose(centres, np.column_stack([spots.geometry.x, spots.geometry.y]), atol=0.5)
    assert np.allclose([b.width for b in boxes], 55 / 0.5, rtol=0.02)
    assert ax.yaxis_inverted()
    assert ax.get_aspect() == 1


def test_a_grid_is_drawn_as_squares(simulated: Any, model: Any, labels: dict[str, str]) -> None:
    import spatialdata as sd

    slide = sd.SpatialData(images=dict(simulated.sections["P3"].images))
    sw.pp.tiles(slide, at="grid", tile_um=160)
    sw.tl.zero_shot_annotate(slide, labels, model=model)
    (ax,) = sw.pl.annotation(slide, with_image=False)
    path = ax.collections[0].get_paths()[0]
    assert path.get_extents().width == pytest.approx(320)
    assert len(path) == 5


def test_a_section_without_an_image(adata: Any) -> None:
    del adata.uns["spatial"]
    with pytest.raises(KeyError, match="no H&E image"):
        sw.pl.annotation(adata, key="cell_type")
