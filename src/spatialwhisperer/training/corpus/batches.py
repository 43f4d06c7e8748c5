"""Batches of a corpus, looked up in windows of rows that are read ahead."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset

from spatialwhisperer.statistics.standardize import CLIP, MIN_ROWS, standardize
from spatialwhisperer.training.corpus.shards import read_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from spatialwhisperer.training.corpus.order import Piece, Window
    from spatialwhisperer.training.corpus.shards import Block, SectionStatistics, Shard

_SHARD_STATISTICS = 256


@dataclass(frozen=True)
class Standard:
    """How the features of a modality are standardised.

    Attributes
    ----------
    how
        "section" (z-scores within each section), "global" (by training statistics) or "none".
    mean, std
        Training statistics, shape (d,).
    """

    how: str
    mean: np.ndarray
    std: np.ndarray

    def of_block(self, x: np.ndarray, section: np.ndarray, statistics: Callable[[], SectionStatistics]) -> np.ndarray:
        """Standardised features of some rows of a shard, float32 (n, d).

        A block holds a strip of a section. Its rows are standardised by the statistics of the whole section, which the shard states.

        Parameters
        ----------
        x
            Features as they are stored, shape (n, d).
        section
            Section of each row, as a position in the statistics, shape (n,).
        statistics
            Returns what `Shard.statistics` does; called where it is needed.
        """
        if self.how != "section":
            return standardize(x, how=self.how, mean=self.mean, std=self.std)
        means, stds, rows = statistics()
        few = rows < MIN_ROWS
        means, stds = np.where(few[:, None], self.mean, means), np.where(few[:, None], self.std, stds)
        return np.clip((x - means[section]) / stds[section], -CLIP, CLIP).astype(np.float32)


@dataclass(frozen=True)
class Rows:
    """Rows of a window, shuffled.

    Attributes
    ----------
    number
        Number of each row in the corpus, shape (n,).
    features
        Modality to standardised features, NaN in rows without, shape (n, d); of text one row for each caption of a block.
    holds
        Modality to the rows that have it, Boolean, shape (n,).
    captions
        Rows of ``features["text"]`` of each row, -1 where there are fewer, shape (n, wordings).
    caption_id
        Number of the captions of each row, -1 where there is none, shape (n,).
    """

    number: np.ndarray
    features: Mapping[str, np.ndarray]
    holds: Mapping[str, np.ndarray]
    captions: np.ndarray
    caption_id: np.ndarray


class CorpusItems(Dataset):
    """Looks up batches in windows, of which the next one is read in another thread.

    Of each stream two windows are in memory: the one that batches come from, and the one after it.

    Parameters
    ----------
    shards
        All shards of the corpus.
    dims
        Modality to number of features, for the modalities that are trained.
    standards
        How features are standardised, by modality.
    """

    def __init__(self, shards: Sequence[Shard], dims: Mapping[str, int], standards: Mapping[str, Standard]) -> None:
        self.shards, self.dims, self.standards = list(shards), dict(dims), dict(standards)
        self.firsts = np.r_[0, np.cumsum([shard.record.rows for shard in self.shards])]
        self._forget()

    def _forget(self) -> None:
        self._windows: dict[tuple[int, ...], Future[Rows]] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._lock = Lock()
        self._statistics = lru_cache(_SHARD_STATISTICS)(self._read_statistics)

    def __getstate__(self) -> dict[str, Any]:
        # another process reads for itself
        private = ("_windows", "_pool", "_lock", "_statistics")
        return {name: value for name, value in self.__dict__.items() if name not in private}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def close(self) -> None:
        """End the thread and forget all windows."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)
        self._windows = {}

    # --------------------------------------------------------------------------------------------- batches

    def __getitem__(self, pieces: list[Piece]) -> dict[str, Any]:
        return self.batch(pieces, 0)

    def batch(self, pieces: list[Piece], epoch: int) -> dict[str, Any]:
        """Look up a batch.

        Parameters
        ----------
        pieces
            Its rows.
        epoch
            Number of the epoch; a row with several captions has another one in every epoch.
        """
        found = [(self._rows(piece), piece.rows) for piece in pieces]
        number = np.concatenate([rows.number[at] for rows, at in found])
        batch: dict[str, Any] = {"row": torch.as_tensor(number)}
        for modality in self.dims:
            holds = np.concatenate([rows.holds[modality][at] for rows, at in found])
            ids = number
            if modality == "text":
                ids = np.concatenate([rows.caption_id[at] for rows, at in found])
            x = [_texts(rows, at, epoch) if modality == "text" else _plain(rows, at, modality) for rows, at in found]
            kept = [part for part in x if len(part)]
            joined = np.concatenate(kept) if kept else np.empty((0, self.dims[modality]), np.float32)
            batch[modality] = {
                "at": torch.as_tensor(np.flatnonzero(holds)),
                "id": torch.as_tensor(np.where(holds, ids, -1)),
                "x": torch.as_tensor(joined),
            }
            if modality == "text":
                batch["text"]["captions"] = batch["text"]["id"][:, None]
        return batch

    def _rows(self, piece: Piece) -> Rows:
        """The window of a piece, which is waited for; the one after it is asked for, and those before it are forgotten."""
        with self._lock:
            key = piece.window.key
            first = self._asked(piece.window)
            if piece.following is not None:
                self._asked(piece.following)
            for other in [k for k in self._windows if k[1:3] == key[1:3] and (k[0], k[3]) < (key[0], key[3])]:
                del self._windows[other]
        return first.result()

    def _asked(self, window: Window) -> Future[Rows]:
        if window.key not in self._windows:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, thread_name_prefix="spatialwhisperer-corpus")
            self._windows[window.key] = self._pool.submit(self.read, window)
        return self._windows[window.key]

    # --------------------------------------------------------------------------------------------- windows

    def read(self, window: Window) -> Rows:
        """Read the blocks of a window and shuffle their rows.

        Raises
        ------
        ValueError
            If a shard is damaged.
        """
        n = len(window.order)
        place = np.empty(n, np.int64)
        place[window.order] = np.arange(n)
        features = {
            m: np.empty((n, d), np.float32)
            for m, d in self.dims.items()
            if m != "text" and any(m in self.shards[s].record.modalities for s in np.unique(window.blocks[:, 0]))
        }
        holds = {m: np.zeros(n, bool) for m in self.dims}
        number, caption_id = np.empty(n, np.int64), np.full(n, -1, np.int64)
        wordings = max(self.shards[s].record.wordings for s in window.blocks[:, 0])
        captions, text_rows = np.full((n, wordings), -1, np.int64), 0
        texts: list[np.ndarray] = []
        begins = np.r_[0, np.cumsum(window.blocks[:, 2] - window.blocks[:, 1])]

        def fill(i: int, block: Block) -> None:
            nonlocal text_rows
            shard, start, stop = (int(v) for v in window.blocks[i])
            at = place[begins[i] : begins[i + 1]]
            number[at] = self.firsts[shard] + np.arange(start, stop)
            for modality, x in block.features.items():
                if modality in features:
                    statistics = partial(self._statistics, shard, modality)
                    features[modality][at] = self.standards[modality].of_block(x, block.section, statistics)
                    holds[modality][at] = True
            if "text" in self.dims and block.captions is not None and block.caption_id is not None:
                there = block.captions >= 0
                captions[at[:, None], np.arange(there.shape[1])] = np.where(there, block.captions + text_rows, -1)
                texts.append(np.asarray(block.features["text"], np.float32))
                text_rows += len(texts[-1])
                caption_id[at], holds["text"][at] = block.caption_id, True

        read_blocks([(self.shards[s], int(start), int(stop)) for s, start, stop in window.blocks], fill)
        if texts:
            features["text"] = np.concatenate(texts)
        return Rows(number, features, holds, captions, caption_id)

    def _read_statistics(self, shard: int, modality: str) -> SectionStatistics:
        return self.shards[shard].statistics(modality)


def _plain(rows: Rows, at: slice, modality: str) -> np.ndarray:
    if modality not in rows.features:
        return np.empty((0, 0), np.float32)
    return rows.features[modality][at][rows.holds[modality][at]]


def _texts(rows: Rows, at: slice, epoch: int) -> np.ndarray:
    """Features of a caption of each row that has one: the next of its captions in every epoch, from another start for every row."""
    holds = rows.holds["text"][at]
    if not holds.any():
        return np.empty((0, 0), np.float32)
    captions, number = rows.captions[at][holds], rows.number[at][holds]
    counts = (captions >= 0).sum(axis=1)
    # captions that are stated first, in their order
    stated = np.take_along_axis(captions, np.argsort(captions < 0, axis=1, kind="stable"), axis=1)
    return rows.features["text"][stated[np.arange(len(stated)), (number + epoch) % counts]]
