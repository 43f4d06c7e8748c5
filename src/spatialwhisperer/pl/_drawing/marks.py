"""Rows of a section as circles or squares at their true size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.artist import allow_rasterization
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgba_array
from matplotlib.path import Path
from matplotlib.transforms import Affine2D, IdentityTransform

from spatialwhisperer.pl._drawing.raster import rasterize

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from spatialwhisperer.pl._drawing.panels import Panel

LEAST_PX = 1.5
"""Diameter of the smallest mark, in pixels of the figure: what is smaller cannot be seen."""

MANY = 20_000
"""More marks than this are drawn as one picture, in a vector file (PDF, SVG) too."""

_SMALL_PX = 8.0
"""Larger marks are drawn one by one: the figure is magnified, and few of them are in sight."""


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
        unit = Path.unit_rectangle() if square else Path.unit_circle()
        # the circle has a radius of 1, the rectangle edges from 0 to 1
        shape = np.array(unit.vertices) - 0.5 if square else np.array(unit.vertices) / 2
        options |= {"linewidths": 0, "rasterized": len(xy) > MANY}
        super().__init__([Path(shape, unit.codes)], offsets=np.asarray(xy, dtype=float), **options)
        self.diameter, self.square, self._n = diameter, square, len(xy)
        self._drawn: tuple[tuple[object, ...], np.ndarray, np.ndarray] | None = None
        self.set_transform(IdentityTransform())
        # the background is as large
        self.set_in_layout(False)

    @property
    def diameter_px(self) -> float:
        """Size in pixels of the figure, as it is now."""
        (x0, _), (x1, _) = self.get_offset_transform().transform([(0.0, 0.0), (1.0, 0.0)])
        return max(self.diameter * abs(x1 - x0), LEAST_PX)

    @allow_rasterization
    def draw(self, renderer: Any) -> None:
        """Draw the marks; how large a pixel is is not known before."""
        if self._n > MANY and self.diameter_px <= _SMALL_PX:
            if self.get_visible():
                self._draw_picture(renderer)
            return
        self.set_transform(Affine2D().scale(self.diameter_px))
        super().draw(renderer)

    def _draw_picture(self, renderer: Any) -> None:
        if self.axes is None:
            return
        box = self.axes.bbox
        left, bottom = int(np.floor(box.x0)), int(np.floor(box.y0))
        size = (int(np.ceil(box.x1)) - left, int(np.ceil(box.y1)) - bottom)
        # a figure is laid out with a first drawing that nobody sees
        colours: Any = self.get_facecolor()
        place = self.get_offset_transform().get_matrix().ravel().tolist()
        key = (left, bottom, size, self.diameter_px, *place)
        if self._drawn is None or self._drawn[0] != key or self._drawn[1] is not colours:
            xy = self.get_offset_transform().transform(self.get_offsets()) - (left, bottom)
            self._drawn = (key, colours, rasterize(xy, colours, self.diameter_px, size, square=self.square))
        context = renderer.new_gc()
        context.set_clip_rectangle(box)
        renderer.draw_image(context, left, bottom, self._drawn[2])
        context.restore()


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
    marks = Marks(
        panel.section.xy_px[rows],
        panel.diameter_px,
        square=panel.square,
        facecolors=_rgba(colours),
        alpha=alpha,
        offset_transform=ax.transData,
    )
    ax.add_collection(marks)
    return marks


def _rgba(colours: Any) -> np.ndarray:
    """Colours as numbers; matplotlib reads a million names one by one."""
    if isinstance(colours, np.ndarray) and colours.dtype.kind in "UO" and colours.ndim == 1:
        codes, names = pd.factorize(colours)
        return to_rgba_array(names)[codes]
    return colours
