"""Averages of pixels over the cells of a tile. They depend on the place of the tile alone, not on how it lies on the pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from spatialwhisperer._compute.kernels import kernel

# sums may be added in another order, which lets them run on vector units; no value here is ever NaN
_SUMS = {"reassoc", "nsz", "contract", "nnan"}

# halves are rounded up, also where a sum of float32 left them slightly below
_HALF = np.float32(0.5 + 1e-3)

_FEWEST_IN_RUN = 8


@dataclass(frozen=True)
class Cells:
    """The cells of a tile along both axes, in pixels of the level that is read.

    A cell takes the mean over its own length. Where cells are smaller than half a pixel the mean is taken over a longer part, up to a
    whole pixel, which interpolates between pixels linearly.

    Attributes
    ----------
    n
        Cells along an edge.
    x, y
        Width and height of a cell.
    """

    n: int
    x: float
    y: float

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of a tile."""
        return self.n * self.x, self.n * self.y

    @property
    def margin(self) -> tuple[float, float]:
        """How far beyond the edges of a tile pixels are read."""
        return (_averaged(self.x) - self.x) / 2, (_averaged(self.y) - self.y) / 2

    def average(
        self, planes: np.ndarray, which: np.ndarray, left: np.ndarray, top: np.ndarray, bias: float = 0.0
    ) -> np.ndarray:
        """Average pixels over the cells of tiles, uint8, shape (k, 3, n, n).

        Parameters
        ----------
        planes
            Pixels, uint8, shape (m, 3, height, width), that hold the tiles with their margin.
        which
            In which of them each tile lies, shape (k,).
        left, top
            Left and upper edge of each tile there, shape (k,).
        bias
            What is added to all averages.
        """
        out = np.empty((len(which), 3, self.n, self.n), np.uint8)
        x = self.x, _averaged(self.x)
        y = self.y, _averaged(self.y)
        _average(planes, which, left.astype(np.float64), top.astype(np.float64), x, y, np.float32(bias), out)
        return out


def _averaged(cell: float) -> float:
    return max(cell, 1 - cell)


@kernel(nogil=True)
def _weights(start: float, cell: float, width: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    """First pixel of each cell, shape (n,), and the weights of the pixels from it on, float32, shape (n, pixels)."""
    most = int(math.ceil(width)) + 1
    first = np.empty(n, np.int64)
    weights = np.zeros((n, most), np.float32)
    for i in range(n):
        low = start + (i + 0.5) * cell - width / 2
        high = low + width
        first[i] = int(math.floor(low))
        for k in range(most):
            pixel = first[i] + k
            weights[i, k] = max(min(high, pixel + 1.0) - max(low, float(pixel)), 0.0) / width
    return first, weights


@kernel(nogil=True)
def _runs(first: np.ndarray) -> np.ndarray:
    """Where runs of cells begin whose first pixels follow one another, and the number of cells."""
    n = len(first)
    out = np.empty(n + 1, np.int64)
    found = 0
    for i in range(n):
        if i == 0 or first[i] != first[i - 1] + 1:
            out[found] = i
            found += 1
    out[found] = n
    return out[: found + 1]


@kernel(nogil=True, fastmath=_SUMS)
def _average(
    planes: np.ndarray,
    which: np.ndarray,
    left: np.ndarray,
    top: np.ndarray,
    x: tuple[float, float],
    y: tuple[float, float],
    bias: np.float32,
    out: np.ndarray,
) -> None:
    n = out.shape[-1]
    total = np.empty(n, np.float32)
    for t in range(len(which)):
        first_x, weights_x = _weights(left[t], x[0], x[1], n)
        first_y, weights_y = _weights(top[t], y[0], y[1], n)
        pixels = weights_x.shape[1]
        # pixel by pixel of all cells, which lets vector units take many cells at a time
        across = np.ascontiguousarray(weights_x.T)
        start, stop = first_x[0], min(first_x[-1] + pixels, planes.shape[3])
        # cells at the right edge may have weights of zero beyond it
        row = np.zeros(first_x[-1] + pixels - start, np.float32)
        at, runs = (first_x - start).astype(np.int32), _runs(first_x)
        for channel in range(3):
            plane = planes[which[t], channel]
            for i in range(n):
                row[: stop - start] = np.float32(0)
                for k in range(weights_y.shape[1]):
                    weight = weights_y[i, k]
                    if weight > 0:
                        line = plane[first_y[i] + k, start:stop]
                        for j in range(len(line)):
                            row[j] += weight * np.float32(line[j])
                total[:] = bias
                if len(runs) <= n // _FEWEST_IN_RUN:
                    _add_runs(row, at, runs, across, total)
                else:
                    _add(row, at, across, total)
                _round(total, out[t, channel, i])


@kernel(nogil=True, fastmath=_SUMS)
def _add_runs(row: np.ndarray, at: np.ndarray, runs: np.ndarray, across: np.ndarray, total: np.ndarray) -> None:
    """Add the weighted pixels of cells about as large as a pixel, whose pixels lie side by side."""
    for r in range(len(runs) - 1):
        begin, end = runs[r], runs[r + 1]
        sums = total[begin:end]
        for k in range(len(across)):
            first = at[begin] + k
            weights, values = across[k, begin:end], row[first : first + end - begin]
            for j in range(len(sums)):
                sums[j] += weights[j] * values[j]


@kernel(nogil=True, fastmath=_SUMS)
def _add(row: np.ndarray, at: np.ndarray, across: np.ndarray, total: np.ndarray) -> None:
    """Add the weighted pixels of all cells."""
    for k in range(len(across)):
        weights, values = across[k], row[k:]
        for j in range(len(total)):
            total[j] += weights[j] * values[at[j]]


@kernel(nogil=True, fastmath=_SUMS)
def _round(total: np.ndarray, out: np.ndarray) -> None:
    for j in range(len(total)):
        out[j] = np.uint8(min(max(total[j] + _HALF, np.float32(0)), np.float32(255)))
