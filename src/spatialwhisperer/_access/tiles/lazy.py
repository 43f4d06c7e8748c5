"""Tiles that are read when they are asked for, in any order. Memory does not grow with their number."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._access.images import read_pixels
from spatialwhisperer._access.tiles.reader import FILL, TileReader, block_edges

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from spatialwhisperer._access.images import Level
    from spatialwhisperer._access.tiles.plan import TilePlan

CACHE_BYTES = 512 * 2**20
"""Most bytes of decoded blocks that are kept."""

_BLOCK_PX = 512
"""Smallest edge of a block; blocks are whole chunks."""

_MOST_BYTES = 24 * 2**20
"""Most bytes of tiles at the resolution of the image that are held at once, before they are resized."""

_DIGEST_BYTES = 32


class LazyTiles:
    """Tiles of the rows of one or several slides, as an array of shape (n, 3, p, p), uint8, that is read when it is indexed.

    Values are those of :class:`TileReader`. Blocks of the images are decoded when a tile needs them; the blocks used last stay in
    memory, at most 512 MiB of them. Several threads may read at a time.

    Parameters
    ----------
    readers
        One for each section.
    section
        Number of the section of each tile, shape (n,).
    position
        Position of each tile among the rows of its section, shape (n,).
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(
        self,
        readers: Sequence[TileReader],
        section: np.ndarray,
        position: np.ndarray,
        *,
        sources: Sequence[_Source] | None = None,
    ) -> None:
        self.readers, self.section, self.position = list(readers), section, position
        cache = _Blocks(CACHE_BYTES)
        self._sources = [_Source.of(r.level, cache) for r in self.readers] if sources is None else list(sources)

    @classmethod
    def of(cls, plan: TilePlan, tile_um: float, tile_px: int) -> LazyTiles:
        """Tiles of the rows of a slide whose centre lies on an image, in the order of the table."""
        readers = [TileReader(section, tile_um=tile_um, tile_px=tile_px) for section in plan.sections]
        number, position = (np.zeros(plan.slide.n_rows, np.int64) for _ in range(2))
        for i, section in enumerate(plan.sections):
            number[section.rows], position[section.rows] = i, np.arange(len(section.rows))
        return cls(readers, number[~plan.off], position[~plan.off])

    @classmethod
    def joined(cls, parts: Sequence[LazyTiles]) -> LazyTiles:
        """Tiles of several slides, one after the other."""
        starts = np.cumsum([0, *(len(part.readers) for part in parts)])
        return cls(
            [reader for part in parts for reader in part.readers],
            np.concatenate([part.section + start for part, start in zip(parts, starts, strict=False)]),
            np.concatenate([part.position for part in parts]),
        )

    def picked(self, at: np.ndarray) -> LazyTiles:
        """Some of the tiles, which are not read yet; they share the blocks in memory."""
        return LazyTiles(self.readers, self.section[at], self.position[at], sources=self._sources)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the array."""
        edge = self.readers[0].tile_px
        return len(self.section), 3, edge, edge

    def __len__(self) -> int:
        return len(self.section)

    def __getitem__(self, at: slice | np.ndarray) -> np.ndarray:
        """Read tiles, uint8, shape (k, 3, p, p)."""
        section, position = self.section[at], self.position[at]
        out = np.empty((len(section), *self.shape[1:]), np.uint8)
        for number in np.unique(section):
            here = np.flatnonzero(section == number)
            self._read(int(number), position[here], here, out)
        return out

    def _read(self, number: int, position: np.ndarray, into: np.ndarray, out: np.ndarray) -> None:
        """Read tiles of one section, neighbours one after the other."""
        reader, source = self.readers[number], self._sources[number]
        left, top = reader.left[position], reader.top[position]
        order = np.lexsort((source.column(left), source.row(top)))
        limit = max(1, _MOST_BYTES // (3 * max(reader.width * reader.height, reader.tile_px**2)))
        for start in range(0, len(order), limit):
            some = order[start : start + limit]
            cut = source.cut(left[some], top[some], reader.width, reader.height)
            out[into[some]] = reader.averaged(cut, np.arange(len(some)), position[some], left[some], top[some])

    def digest(self) -> str:
        """SHA-256 over the digests of all tiles. Every block of the images is decoded once."""
        each = np.zeros((len(self), _DIGEST_BYTES), np.uint8)
        for number in np.unique(self.section):
            here = np.flatnonzero(self.section == number)
            distinct, which = np.unique(self.position[here], return_inverse=True)
            found = np.zeros((len(distinct), _DIGEST_BYTES), np.uint8)
            for positions, tiles in self.readers[number].read(distinct):
                for place, tile in zip(np.searchsorted(distinct, positions), tiles, strict=True):
                    found[place] = np.frombuffer(hashlib.sha256(np.ascontiguousarray(tile)).digest(), np.uint8)
            each[here] = found[which]
        return hashlib.sha256(each).hexdigest()


@dataclass(frozen=True)
class _Source:
    """One level of an image, divided into blocks."""

    level: Level
    edges_y: np.ndarray
    edges_x: np.ndarray
    cache: _Blocks

    @classmethod
    def of(cls, level: Level, cache: _Blocks) -> _Source:
        _, height, width = level.pixels.shape
        chunks = getattr(level.pixels, "chunks", None)
        chunks_y, chunks_x = (None, None) if chunks is None else chunks[1:]
        return cls(
            level, block_edges(height, chunks_y, 1, _BLOCK_PX), block_edges(width, chunks_x, 1, _BLOCK_PX), cache
        )

    def row(self, y: np.ndarray) -> np.ndarray:
        """Row of blocks that pixels lie in; -1 before the image."""
        return np.searchsorted(self.edges_y, y, side="right") - 1

    def column(self, x: np.ndarray) -> np.ndarray:
        """Column of blocks that pixels lie in; -1 before the image."""
        return np.searchsorted(self.edges_x, x, side="right") - 1

    def cut(self, left: np.ndarray, top: np.ndarray, width: int, height: int) -> np.ndarray:
        """Boxes of the level, uint8, shape (k, 3, height, width), filled with white outside the image."""
        out = np.full((len(left), 3, height, width), FILL, np.uint8)
        edges_y, edges_x = self.edges_y.tolist(), self.edges_x.tolist()
        for tile, x0, y0 in zip(out, left.tolist(), top.tolist(), strict=True):
            for row, y, below in _parts(edges_y, y0, y0 + height):
                for column, x, right in _parts(edges_x, x0, x0 + width):
                    block = self.block(row, column)
                    by, bx = edges_y[row], edges_x[column]
                    tile[:, y - y0 : below - y0, x - x0 : right - x0] = block[
                        :, y - by : below - by, x - bx : right - bx
                    ]
        return out

    def block(self, row: int, column: int) -> np.ndarray:
        """Pixels of a block."""
        y0, y1 = (int(y) for y in self.edges_y[row : row + 2])
        x0, x1 = (int(x) for x in self.edges_x[column : column + 2])

        def read() -> np.ndarray:
            # in the calling thread: threads of dask do not survive the start of another process
            return read_pixels(self.level, x0, y0, x1, y1, fill=FILL, threads=False)

        if isinstance(self.level.pixels, np.ndarray):
            return read()
        return self.cache.get((id(self), row, column), read)


def _parts(edges: list[int], start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """The blocks that pixels ``start`` to ``stop`` lie in: number of the block, first and last pixel there."""
    start, stop = max(start, 0), min(stop, edges[-1])
    block = bisect_right(edges, start) - 1
    while start < stop:
        end = min(edges[block + 1], stop)
        yield block, start, end
        block, start = block + 1, end


class _Blocks:
    """The blocks used last, up to a number of bytes. A block that two threads need is read by one of them."""

    def __init__(self, most: int) -> None:
        self.most, self.held = most, 0
        self._blocks: OrderedDict[Any, Future[np.ndarray]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Any, read: Callable[[], np.ndarray]) -> np.ndarray:
        """A block that is held, else read."""
        with self._lock:
            found = self._blocks.get(key)
            if found is not None:
                self._blocks.move_to_end(key)
            else:
                mine = self._blocks[key] = Future()
        if found is not None:
            return found.result()
        try:
            block = read()
        except BaseException as error:
            with self._lock:
                self._blocks.pop(key, None)
            mine.set_exception(error)
            raise
        mine.set_result(block)
        with self._lock:
            self.held += block.nbytes
            self._forget()
        return block

    def _forget(self) -> None:
        """Forget the blocks that were not used for longest."""
        while self.held > self.most:
            # one that is being read does not count yet
            oldest = next(key for key, block in self._blocks.items() if block.done())
            self.held -= self._blocks.pop(oldest).result().nbytes

    def __getstate__(self) -> dict[str, Any]:
        # another process reads for itself
        return {"most": self.most}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["most"])  # type: ignore[misc]
