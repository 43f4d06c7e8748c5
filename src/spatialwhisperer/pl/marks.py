"""Rows of a section as circles or squares at their true size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.artist import allow_rasterization
from matplotlib.collections import PathCollection
from matplotlib.path import Path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from spatialwhisperer.pl.canvas import Panel

LEAST_PX = 1.5
"""Diameter of the smallest mark, in pixels of the figure: what is smaller cannot be seen."""


class Marks(PathCollection):
    """Circles or squares at their true size, enlarged where they would be smaller than `LEAST_PX` pixels of the figure.

    Parameters
    ----------
    xy
        Centres, shape (n, 2).
    diameter
        Size in the units of the axes.
    square
        Squares instead of circles.
    **options
        Colours and opacity.
    """

    def __init__(self, xy: np.ndarray, diameter: float, *, square: bool, **options: Any) -> None:
        self._xy, self._diameter = np.asarray(xy, dtype=float), diameter
        unit = Path.unit_rectangle() if square else Path.unit_circle()
        # the circle has a radius of 1, the rectangle edges from 0 to 1
        self._shape = (np.array(unit.vertices) - 0.5 if square else np.array(unit.vertices) / 2, unit.codes)
        super().__init__(self._at(diameter), linewidths=0, **options)

    @allow_rasterization
    def draw(self, renderer: Any) -> None:
        """Draw the marks; how large a pixel is is not known before."""
        least = LEAST_PX / max(self._pixels_per_unit(), 1e-12)
        self.set_paths(self._at(max(self._diameter, least)))
        super().draw(renderer)

    def _pixels_per_unit(self) -> float:
        (x0, _), (x1, _) = self.get_transform().transform([(0.0, 0.0), (1.0, 0.0)])
        return abs(x1 - x0)

    def _at(self, diameter: float) -> list[Path]:
        vertices, codes = self._shape
        return [Path(diameter * vertices + centre, codes) for centre in self._xy]


def draw_marks(ax: Axes, panel: Panel, rows: np.ndarray, colours: Any, alpha: Any = 1.0) -> Marks:
    """Draw the chosen rows of a section (positions within it).

    Parameters
    ----------
    ax
        Axes with the background.
    panel
        The section.
    rows
        Positions within the section, shape (k,).
    colours, alpha
        Of each mark, or of all.
    """
    marks = Marks(panel.section.xy_px[rows], panel.diameter_px, square=panel.square, facecolors=colours, alpha=alpha)
    ax.add_collection(marks)
    return marks
