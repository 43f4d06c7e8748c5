"""Reading the tiles of one section block by block. Every chunk of the image is decoded once, and memory is bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._access.images import read_pixels
from spatialwhisperer._access.tiles.levels import choose_view
from spatialwhisperer._access.tiles.resample import Cells

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spatialwhisperer._access.images import Level
    from spatialwhisperer._access.sections.section import Section

FILL = 255
"""Value of pixels outside the image: white."""

BLOCK_PX = 2048
_MAX_BLOCK_PX = 8192
# what affine maps add to numbers that are whole
_NOISE = 1e-6
_MAX_BYTES = 24 * 2**20
_LARGEST_CANVAS = 2**34


class TileReader:
    """Square tiles around the rows of one section, axis-aligned in the pixels of its image.

    A pixel of a tile is the mean over its part of the tissue. It depends on the centre, the size of the tile and the scale alone, and
    not on how the tile lies on the pixels of the image, nor on which levels a pyramid has.

    Parameters
    ----------
    section
        Section with an image and finite centres.
    tile_um
        Edge of a tile in microns.
    tile_px
        Edge of a returned tile in pixels.
    mpp
        Microns per full-resolution pixel; ``None`` takes those of the section.

    Attributes
    ----------
    view
        The level that is read; see :func:`~spatialwhisperer._access.tiles.levels.choose_view`.
    cells
        The pixels of a tile, in pixels of that level.
    width, height
        Pixels of that level that are read for a tile.
    left, top
        First of them for each tile, shape (n,); negative where a tile crosses the edge of the image.
    inside
        Fraction of each tile that lies in the image, shape (n,).

    Notes
    -----
    The image is scanned in blocks of whole chunks, row by row. A tile is cut when the block with its last pixel is read. What it needs
    of the blocks above and to the left is kept in strips that are one tile wide. Memory is therefore one block, two strips across the
    image and at most 24 MiB of tiles, however many tiles overlap.
    """

    def __init__(self, section: Section, *, tile_um: float, tile_px: int, mpp: float | None = None) -> None:
        mpp = section.mpp if mpp is None else mpp
        if section.image is None or mpp is None:
            raise ValueError(
                f"Section {section.name!r} needs an image and its microns per pixel before tiles are read."
            )
        self.section, self.tile_px = section, tile_px
        width_um, height_um = section.pixel_um(mpp)
        cell_px = tile_um / width_um / tile_px, tile_um / height_um / tile_px
        self.view = choose_view(section.image, cell_px, section.xy_px)
        self.cells = Cells(tile_px, cell_px[0] / self.view.scale_x, cell_px[1] / self.view.scale_y)
        size = np.array(self.cells.size)
        if 12 * size.prod() > _LARGEST_CANVAS:
            raise ValueError(
                f"A tile of {tile_um:g} um is {size[0]:.3g} x {size[1]:.3g} pixels of image {section.image.name!r} large, which do not fit "
                "into memory. Take a smaller tile_um, or check mpp."
            )
        self._start = self.view.place(section.xy_px) - size / 2
        margin = np.array(self.cells.margin) + _NOISE
        self.left, self.top = np.floor(self._start - margin).astype(np.int64).T
        self.width, self.height = (int(length) for length in np.ceil(size + 2 * margin) + 1)
        _, image_height, image_width = self.level.pixels.shape
        shown = _overlap(self._start, size, np.array([image_width, image_height])) / size
        shown[shown > 1 - _NOISE] = 1
        self.inside = shown.prod(axis=1)

    @property
    def level(self) -> Level:
        """The level that is read."""
        return self.view.level

    def averaged(self, planes: np.ndarray, which: np.ndarray, positions: np.ndarray, x: Any, y: Any) -> np.ndarray:
        """Tiles, uint8, shape (k, 3, tile_px, tile_px), from the pixels that hold them.

        Parameters
        ----------
        planes
            Pixels of the level, shape (m, 3, height, width).
        which
            In which of them each tile lies, shape (k,).
        positions
            Which tiles, as indices into the rows of the section, shape (k,).
        x, y
            Where in the level the first pixel of the planes lies.
        """
        left, top = self._start[positions].T
        return self.cells.average(planes, which, left - x, top - y, self.view.bias)

    def __len__(self) -> int:
        return len(self.left)

    def read(self, positions: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Read each tile once, in the order of the scan.

        Parameters
        ----------
        positions
            Which tiles, as indices into the rows of the section; ``None`` reads all.

        Yields
        ------
        Indices of some tiles, shape (k,), and the tiles, uint8, shape (k, 3, tile_px, tile_px).
        """
        wanted = np.arange(len(self)) if positions is None else np.asarray(positions)
        blank = self.inside[wanted] == 0
        limit = max(1, _MAX_BYTES // (3 * self.tile_px**2))
        for piece in _pieces(wanted[blank], limit):
            yield piece, np.full((len(piece), 3, self.tile_px, self.tile_px), FILL, np.uint8)
        for here, canvas, x0, y0 in self._scan(wanted[~blank]):
            for piece in _pieces(here, limit):
                yield piece, self.averaged(canvas[None], np.zeros(len(piece), np.int64), piece, x0, y0)

    def _scan(self, wanted: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, int, int]]:
        """Yield indices of tiles, the canvas that contains all of them, and where the canvas lies in the image."""
        if not len(wanted):
            return
        plan = _Plan(self, wanted)
        halo_x, halo_y = self.width - 1, self.height - 1
        tall, wide = int(np.diff(plan.edges_y).max()), int(np.diff(plan.edges_x).max())
        canvas = np.full((3, halo_y + tall + halo_y, halo_x + wide + halo_x), FILL, np.uint8)
        image_width = int(plan.edges_x[-1])
        above, below = (np.full((3, halo_y, halo_x + image_width + halo_x), FILL, np.uint8) for _ in range(2))
        for row in range(len(plan.edges_y) - 1):
            y0, y1 = (int(y) for y in plan.edges_y[row : row + 2])
            canvas[:, halo_y:, :halo_x] = FILL
            before = 0
            for column in np.flatnonzero(plan.needed[row]).tolist():
                x0, x1 = (int(x) for x in plan.edges_x[column : column + 2])
                if column:  # the last columns of the block to the left; unused where that was not read
                    canvas[:, halo_y:, :halo_x] = canvas[:, halo_y:, before : before + halo_x]
                canvas[:, :halo_y, : halo_x + x1 - x0 + halo_x] = above[:, :, x0 : x1 + 2 * halo_x]
                left, top, right, bottom = plan.box(row, column)
                canvas[:, halo_y + top - y0 : halo_y + bottom - y0, halo_x + left - x0 : halo_x + right - x0] = (
                    read_pixels(self.level, left, top, right, bottom, fill=FILL)
                )
                canvas[:, halo_y:, halo_x + x1 - x0 :] = FILL
                canvas[:, halo_y + y1 - y0 :] = FILL
                below[:, :, halo_x + x0 : halo_x + x1] = canvas[
                    :, y1 - y0 : y1 - y0 + halo_y, halo_x : halo_x + x1 - x0
                ]
                before = x1 - x0
                done = plan.finished(row, column)
                if len(done):
                    yield done, canvas, x0 - halo_x, y0 - halo_y
            above, below = below, above


class _Plan:
    """Which blocks of a level to read, how much of each, and which tiles are complete after each."""

    def __init__(self, reader: TileReader, wanted: np.ndarray) -> None:
        _, height, width = reader.level.pixels.shape
        chunks = getattr(reader.level.pixels, "chunks", None)
        chunks_y, chunks_x = chunks[1:] if chunks is not None else (None, None)
        self.edges_x = block_edges(width, chunks_x, reader.width)
        self.edges_y = block_edges(height, chunks_y, reader.height)
        x = _span(reader.left[wanted], reader.width, width)
        y = _span(reader.top[wanted], reader.height, height)
        columns = [np.searchsorted(self.edges_x, at, side="right") - 1 for at in x]
        rows = [np.searchsorted(self.edges_y, at, side="right") - 1 for at in y]
        shape = (len(self.edges_y) - 1, len(self.edges_x) - 1)
        self.needed = np.zeros(shape, bool)
        self._left, self._right = np.full(shape, width), np.zeros(shape, np.int64)
        self._top, self._bottom = np.full(shape, height), np.zeros(shape, np.int64)
        for row in rows:
            for column in columns:
                self.needed[row, column] = True
                np.minimum.at(self._left, (row, column), x[0])
                np.maximum.at(self._right, (row, column), x[1] + 1)
                np.minimum.at(self._top, (row, column), y[0])
                np.maximum.at(self._bottom, (row, column), y[1] + 1)
        block = rows[1] * shape[1] + columns[1]
        order = np.lexsort((reader.left[wanted], reader.top[wanted], block))
        self._tiles, self._blocks = wanted[order], block[order]

    def box(self, row: int, column: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the part of a block that tiles lie on."""
        return (
            int(max(self._left[row, column], self.edges_x[column])),
            int(max(self._top[row, column], self.edges_y[row])),
            int(min(self._right[row, column], self.edges_x[column + 1])),
            int(min(self._bottom[row, column], self.edges_y[row + 1])),
        )

    def finished(self, row: int, column: int) -> np.ndarray:
        """Tiles whose last pixel lies in a block."""
        block = row * self.needed.shape[1] + column
        first, last = np.searchsorted(self._blocks, [block, block + 1])
        return self._tiles[first:last]


def block_edges(length: int, chunks: tuple[int, ...] | None, tile: int, block_px: int = BLOCK_PX) -> np.ndarray:
    """Edges of the blocks along one axis: whole chunks, and at least one tile long, so that no tile spans three blocks."""
    smallest = max(block_px, tile)
    if chunks is None or max(chunks) > max(_MAX_BLOCK_PX, tile):
        candidates = np.arange(0, length, smallest)[1:]
    else:
        candidates = np.cumsum(chunks)[:-1]
    edges = [0]
    for edge in candidates:
        if edge - edges[-1] >= smallest:
            edges.append(int(edge))
    return np.array([*edges, length], dtype=np.int64)


def _overlap(start: np.ndarray, size: np.ndarray, image_size: np.ndarray) -> np.ndarray:
    return (np.minimum(start + size, image_size) - np.maximum(start, 0)).clip(0)


def _span(first: np.ndarray, length: int, image_length: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last pixel of each tile that lie in the image."""
    return np.maximum(first, 0), np.minimum(first + length, image_length) - 1


def _pieces(positions: np.ndarray, limit: int) -> Iterator[np.ndarray]:
    for start in range(0, len(positions), limit):
        yield positions[start : start + limit]
