"""Finding the nuclei of an image part by part, so that memory does not grow with the image."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Protocol

from spatialwhisperer._access.tiles.prefetch import in_order
from spatialwhisperer._compute.blocks import cores
from spatialwhisperer._messages import progress
from spatialwhisperer.pp._nuclei.outlines import Nuclei, joined, measure, without_repeats
from spatialwhisperer.pp._nuclei.regions import MARGIN_UM, Window, find_regions

if TYPE_CHECKING:
    import numpy as np

    from spatialwhisperer.pp._nuclei.canvas import Canvas

CORE_PX = 1024
"""Edge of the parts, in pixels of the canvas. They are the same whatever the chunks of the image."""

_MOST_WORKERS = 4


class Finder(Protocol):
    """A method that finds nuclei in a window."""

    repeats: bool
    """Whether a nucleus at a seam may be found in two windows."""

    def __call__(self, canvas: Canvas, sums: np.ndarray, window: Window) -> np.ndarray:
        """Number of the nucleus of each pixel, 0 where there is none; of the nuclei with a centroid in the core."""


@dataclass(frozen=True)
class Flooding:
    """Nuclei by the regions of haematoxylin (`find_regions`); no weights.

    Attributes
    ----------
    min_area_um2, max_area_um2
        Smallest and largest area of a nucleus.
    """

    min_area_um2: float
    max_area_um2: float
    repeats = False

    def __call__(self, canvas: Canvas, sums: np.ndarray, window: Window) -> np.ndarray:  # noqa: ARG002
        """Find the nuclei of a window."""
        return find_regions(window, self.min_area_um2, self.max_area_um2)


def find_nuclei(canvas: Canvas, find: Finder, *, workers: int | None = None) -> Nuclei:
    """Find the nuclei of an image.

    Parameters
    ----------
    canvas
        The image.
    find
        The method.
    workers
        Number of threads; ``None`` takes one for each core, at most 4. The result does not depend on it.
    """
    cores = _cores(canvas)
    stain = canvas.stain

    def part(number: int) -> Nuclei:
        core = cores[number]
        box = _with_margin(core, canvas)
        sums = canvas.read(*box)
        density = stain.density(sums)
        labels = find(canvas, sums, _window(canvas, density, core, box))
        if not labels.any():
            return joined([])
        return measure(
            labels,
            stain.haematoxylin(sums),
            mpp=canvas.mpp,
            stretch=canvas.stretch,
            origin=box[:2],
            scale=canvas.scale,
            block=number,
        )

    threads = _workers() if workers is None else workers
    parts = []
    with (
        closing(in_order(part, range(len(cores)), workers=threads)) as results,
        progress(total=len(cores), desc=f"nuclei of {canvas.image.name}", unit="block") as bar,
    ):
        for found in results:
            parts.append(found)
            bar.update()
    nuclei = joined([p for p in parts if len(p)])
    return without_repeats(nuclei) if find.repeats and len(nuclei) else nuclei


def _workers() -> int:
    return 0 if cores() == 1 else min(_MOST_WORKERS, cores())


def _cores(canvas: Canvas) -> list[tuple[int, int, int, int]]:
    """First row, first column, last row + 1 and last column + 1 of each part."""
    height, width = canvas.shape
    return [
        (top, left, min(top + CORE_PX, height), min(left + CORE_PX, width))
        for top in range(0, height, CORE_PX)
        for left in range(0, width, CORE_PX)
    ]


def _with_margin(core: tuple[int, int, int, int], canvas: Canvas) -> tuple[int, int, int, int]:
    margin = ceil(MARGIN_UM / canvas.mpp)
    top, left, bottom, right = core
    height, width = canvas.shape
    return max(top - margin, 0), max(left - margin, 0), min(bottom + margin, height), min(right + margin, width)


def _window(
    canvas: Canvas, density: np.ndarray, core: tuple[int, int, int, int], box: tuple[int, int, int, int]
) -> Window:
    top, left, bottom, right = box
    height, width = canvas.shape
    inner = (core[0] - top, core[2] - top, core[1] - left, core[3] - left)
    return Window(density, canvas.mpp, (top > 0, bottom < height, left > 0, right < width), inner)
