"""In which order the rows of a corpus are trained on: a function of seed, pass and step, so that any step can be continued at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch.utils.data import Sampler

from spatialwhisperer.training.corpus.shards import BLOCK_ROWS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from spatialwhisperer.training.corpus.manifest import ShardRecord

WINDOW_BLOCKS = 32
"""Blocks whose rows are shuffled together, and are in memory at the same time."""

PART_STEPS = 1000
"""About as many steps of a pass are one part, at whose end the history gets a row and the run a checkpoint."""

_UNEVEN = 0.05


@dataclass(frozen=True)
class Stream:
    """Rows that fill the same part of every batch.

    Attributes
    ----------
    blocks
        Shard, first row and last row (exclusive) of each block, shape (n, 3).
    """

    blocks: np.ndarray

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int((self.blocks[:, 2] - self.blocks[:, 1]).sum())


def blocks_of(number: int, shard: ShardRecord, keep: Callable[[str], bool]) -> np.ndarray:
    """Blocks of the rows of a shard whose patients are kept, each within one chunk; shape (n, 3).

    Parameters
    ----------
    number
        Position of the shard.
    shard
        The shard, whose rows are sorted by patient.
    keep
        Whether the rows of a patient are kept.
    """
    begins = [begin for _, begin in shard.patients]
    out: list[tuple[int, int, int]] = []
    for (patient, start), stop in zip(shard.patients, [*begins[1:], shard.rows], strict=True):
        if not keep(patient):
            continue
        while start < stop:
            end = min(stop, (start // BLOCK_ROWS + 1) * BLOCK_ROWS)
            # of several patients in one chunk, one block
            if out and out[-1][2] == start and start % BLOCK_ROWS:
                out[-1] = (number, out[-1][1], end)
            else:
                out.append((number, start, end))
            start = end
    return np.array(out, np.int64).reshape(-1, 3)


def streams_of(
    shards: Sequence[ShardRecord],
    pairs: Sequence[tuple[str, str]],
    *,
    keep: Callable[[str], bool],
    balanced: bool,
) -> list[Stream]:
    """Rows that hold one of the modality pairs: a stream for each set of modalities, or one of all of them.

    Parameters
    ----------
    shards
        The shards.
    pairs
        The modality pairs.
    keep
        Whether the rows of a patient are kept.
    balanced
        A stream for each set of modalities, so that a batch holds them in equal parts.
    """
    by_kind: dict[tuple[str, ...], list[np.ndarray]] = {}
    for number, shard in enumerate(shards):
        if any(set(pair) <= set(shard.modalities) for pair in pairs):
            kind = shard.modalities if balanced else ()
            by_kind.setdefault(kind, []).append(blocks_of(number, shard, keep))
    streams = [Stream(np.concatenate(blocks)) for _, blocks in sorted(by_kind.items())]
    return [stream for stream in streams if stream.rows]


@dataclass(frozen=True)
class Window:
    """Blocks that are read, shuffled and kept together.

    Attributes
    ----------
    key
        Pass, stream, lane and number of the window.
    blocks
        Its blocks, shape (n, 3).
    order
        Order of their rows.
    """

    key: tuple[int, int, int, int]
    blocks: np.ndarray
    order: np.ndarray


@dataclass(frozen=True)
class Piece:
    """Rows of a batch that are in one window; ``following`` is the window after it, or ``None``."""

    window: Window
    rows: slice
    following: Window | None


class Lane:
    """The rows of a stream that one rank reads in a pass, in order.

    Parameters
    ----------
    stream, number
        The stream, and its position among the streams.
    rows
        Rows that are needed; where there are fewer, they are repeated in another order.
    seed, epoch, lane, lanes
        Seed, pass, number of the lane and number of lanes.
    """

    def __init__(self, stream: Stream, number: int, rows: int, *, seed: int, epoch: int, lane: int, lanes: int) -> None:
        parts: list[np.ndarray] = []
        have = repeat = 0
        while have < rows:
            own = deal(stream.blocks, np.random.default_rng([seed, epoch, number, repeat]), lanes)[lane]
            parts.append(np.random.default_rng([seed, epoch, number, repeat, lane]).permutation(own))
            have += int((own[:, 2] - own[:, 1]).sum())
            repeat += 1
        self.blocks = np.concatenate(parts)
        self.key, self.seed = (epoch, number, lane), seed
        size = np.add.reduceat(self.blocks[:, 2] - self.blocks[:, 1], np.arange(0, len(self.blocks), WINDOW_BLOCKS))
        self.begins = np.r_[0, np.cumsum(size)]

    def window(self, number: int) -> Window | None:
        """A window by its number; ``None`` after the last one."""
        if number + 1 >= len(self.begins):
            return None
        blocks = self.blocks[number * WINDOW_BLOCKS : (number + 1) * WINDOW_BLOCKS]
        rng = np.random.default_rng([self.seed, *self.key, number])
        rows = int(self.begins[number + 1] - self.begins[number])
        return Window((*self.key, number), blocks, rng.permutation(rows))

    def pieces(self, start: int, stop: int) -> Iterator[Piece]:
        """Rows from one position to another."""
        while start < stop:
            number = int(np.searchsorted(self.begins, start, side="right")) - 1
            window, begin = self.window(number), int(self.begins[number])
            if window is None:
                raise IndexError(f"row {start} of {self.begins[-1]}")
            end = min(stop, int(self.begins[number + 1]))
            yield Piece(window, slice(start - begin, end - begin), self.window(number + 1))
            start = end


def deal(blocks: np.ndarray, rng: np.random.Generator, lanes: int) -> list[np.ndarray]:
    """Blocks of each lane.

    Lanes get whole shards, so that no two ranks read one, where their numbers of rows then differ by 5 % at most; else single blocks.
    """
    if lanes == 1:
        return [blocks]
    sizes = blocks[:, 2] - blocks[:, 1]
    shards = rng.permutation(np.unique(blocks[:, 0]))
    of_shard = np.bincount(blocks[:, 0], weights=sizes)
    load, owner = np.zeros(lanes), np.zeros(len(of_shard), int)
    for shard in shards:
        owner[shard] = int(np.argmin(load))
        load[owner[shard]] += of_shard[shard]
    if np.ptp(load) <= _UNEVEN * load.mean():
        lane = owner[blocks[:, 0]]
    else:
        lane = np.empty(len(blocks), int)
        lane[rng.permutation(len(blocks))] = np.arange(len(blocks)) % lanes
    return [blocks[lane == i] if (lane == i).any() else blocks for i in range(lanes)]


class CorpusBatches(Sampler):
    """Batches of the rows of a corpus.

    Every batch holds the streams in equal parts. A pass goes once through the longest stream, and repeats the others. It is trained in
    parts of about `PART_STEPS` steps, each of which the trainer takes for an epoch. Rows that do not fill a last batch are left out.

    Parameters
    ----------
    streams
        The rows.
    batch_size
        Rows of a batch on one rank.
    seed
        Seed of the order.
    lanes
        Ranks, each of which reads rows of its own.
    joined
        Yield the batches of all lanes joined, as one process has them that trains like several.
    fixed
        Yield the same first batches in every epoch, at most so many, for validation; ``None`` yields those of the epoch.

    Attributes
    ----------
    rank_of
        Function without arguments that returns the rank of this process, which is known only when the trainer runs.
    """

    def __init__(
        self,
        streams: Sequence[Stream],
        batch_size: int,
        *,
        seed: int,
        lanes: int = 1,
        joined: bool = False,
        fixed: int | None = None,
    ) -> None:
        self.streams, self.seed, self.lanes, self.joined, self.fixed = list(streams), seed, lanes, joined, fixed
        self.rank_of: Callable[[], int] = int
        self.epoch = 0
        items = max(stream.rows for stream in streams) * len(streams)
        self.batch_size = max(1, min(batch_size, items // lanes))
        steps = max(1, items // (self.batch_size * lanes))
        self.parts = 1 if fixed is not None else max(1, round(steps / PART_STEPS))
        self.steps = min(steps, fixed) if fixed is not None else steps // self.parts
        n = len(self.streams)
        # what does not divide evenly goes to the first streams
        self.counts = [self.batch_size // n + (i < self.batch_size % n) for i in range(n)]
        self._pass: tuple[int, dict[tuple[int, int], Lane]] = (-1, {})

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_pass": (-1, {})}

    def set_epoch(self, epoch: int) -> None:
        """Choose the part; the trainer calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[Piece]]:
        epoch, part = (0, 0) if self.fixed is not None else divmod(self.epoch, self.parts)
        lanes = range(self.lanes) if self.joined else [0 if self.fixed is not None else self.rank_of()]
        for step in range(part * self.steps, (part + 1) * self.steps):
            yield [piece for lane in lanes for piece in self._pieces(epoch, lane, step)]

    def _pieces(self, epoch: int, lane: int, step: int) -> Iterator[Piece]:
        for number, count in enumerate(self.counts):
            if count:
                yield from self._lane(epoch, number, lane).pieces(step * count, (step + 1) * count)

    def _lane(self, epoch: int, number: int, lane: int) -> Lane:
        if self._pass[0] != epoch:
            self._pass = (epoch, {})
        known = self._pass[1]
        if (number, lane) not in known:
            rows = self.steps * self.parts * self.counts[number]
            known[number, lane] = Lane(
                self.streams[number], number, rows, seed=self.seed, epoch=epoch, lane=lane, lanes=self.lanes
            )
        return known[number, lane]
