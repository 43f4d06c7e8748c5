"""A corpus as what training is fed with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer.training.corpus.batches import CorpusItems
from spatialwhisperer.training.corpus.order import WINDOW_BLOCKS, CorpusBatches, streams_of
from spatialwhisperer.training.corpus.shards import read_blocks
from spatialwhisperer.training.feed import rows_to_validate
from spatialwhisperer.training.loader import BatchLoader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from spatialwhisperer.training.corpus.batches import Standard
    from spatialwhisperer.training.corpus.order import Stream
    from spatialwhisperer.training.corpus.shards import Corpus

SAMPLE_ROWS = 100_000
"""Rows of a modality from which its training statistics are estimated; all rows where there are fewer."""

VALIDATION_STEPS = 50
"""Most batches of held-out patients on which the validation loss is measured."""


class CorpusLoader(BatchLoader):
    """Loader of a corpus, which ends the thread that reads ahead.

    Parameters
    ----------
    corpus_items
        Looks up the batches.
    sampler
        Rows of each batch.
    pin
        Put the batches into pinned memory.
    training
        Whether these are the batches to train on.
    """

    def __init__(self, corpus_items: CorpusItems, sampler: CorpusBatches, *, pin: bool, training: bool = True) -> None:
        super().__init__(corpus_items, sampler, workers=1, pin=pin, training=training)
        self.corpus_items = corpus_items

    def close(self) -> None:
        """End all threads."""
        super().close()
        self.corpus_items.close()


@dataclass
class CorpusFeed:
    """Batches of a corpus.

    Attributes
    ----------
    corpus
        The corpus.
    dims
        Modality to number of features, for the modalities that are trained.
    standards
        How features are standardised, by modality.
    pairs
        The modality pairs that are trained.
    held_out
        Patients that are not trained on.
    batch_size
        Rows of a batch on one rank.
    balanced
        Whether a batch holds each set of modalities in equal parts.
    seed
        Seed of the order.
    joined
        Whether one process reads the batches of ``lanes`` ranks, joined.
    lanes
        Number of ranks whose rows one process reads; ``None`` takes those of the run.
    """

    corpus: Corpus
    dims: Mapping[str, int]
    standards: Mapping[str, Standard]
    pairs: tuple[tuple[str, str], ...]
    held_out: frozenset[str]
    batch_size: int
    balanced: bool
    seed: int
    joined: bool = False
    lanes: int | None = None

    def __post_init__(self) -> None:
        # the number of parts does not depend on the number of ranks where the rows of a step are as many
        self.parts = self.sampler(1 if self.lanes is None else self.lanes).parts

    def streams(self, *, training: bool) -> list[Stream]:
        """Rows to train on, or those of the held-out patients."""
        records = [shard.record for shard in self.corpus.shards]
        return streams_of(
            records, self.pairs, keep=lambda p: (p not in self.held_out) is training, balanced=self.balanced
        )

    def pair_rows(self) -> dict[tuple[str, str], int]:
        """Number of rows of each pair that are trained on."""
        out = dict.fromkeys(self.pairs, 0)
        for number, blocks in self._blocks():
            held = self.corpus.shards[number].record.modalities
            for pair in self.pairs:
                if set(pair) <= set(held):
                    out[pair] += int((blocks[:, 1] - blocks[:, 0]).sum())
        return out

    def sections(self) -> list[str]:
        """Names of the sections with a row that is trained on, sorted."""
        out: set[str] = set()
        for number, blocks in self._blocks():
            shard = self.corpus.shards[number]
            names, codes = shard.section_names(), shard.section_codes()
            used = np.unique(np.concatenate([codes[start:stop] for start, stop in blocks.tolist()]))
            out |= {names[code] for code in used}
        return sorted(out)

    def _blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Position of each shard with rows to train on, and their first and last rows (exclusive), shape (n, 2)."""
        for stream in self.streams(training=True):
            for number in np.unique(stream.blocks[:, 0]):
                yield int(number), stream.blocks[stream.blocks[:, 0] == number, 1:]

    def sampler(self, world: int) -> CorpusBatches:
        """Order of the batches."""
        lanes = world if self.lanes is None else self.lanes
        batches = CorpusBatches(
            self.streams(training=True), self.batch_size, seed=self.seed, lanes=lanes, joined=self.joined
        )
        self.parts = batches.parts
        return batches

    def loaders(self, sampler: Any, *, processes: int, pin: bool) -> tuple[BatchLoader, BatchLoader | None]:  # noqa: ARG002
        """Batches to train on, and those of held-out patients."""
        train = CorpusLoader(self.items(), sampler, pin=pin)
        held_out = self.streams(training=False) if self.held_out else []
        if sum(stream.rows for stream in held_out) < 2:
            return train, None
        most = rows_to_validate(self.batch_size, len(self.streams(training=True)), 1 / len(held_out))
        rows = max(stream.rows for stream in held_out) * len(held_out)
        # batches of one size that hold nearly all of them, as those of items in memory
        rows = max(2, rows // -(-rows // most))
        fixed = CorpusBatches(held_out, rows, seed=self.seed, fixed=VALIDATION_STEPS)
        return train, CorpusLoader(self.items(), fixed, pin=pin, training=False)

    def items(self) -> CorpusItems:
        """What looks up the batches."""
        return CorpusItems(self.corpus.shards, self.dims, self.standards)


def drawn_blocks(
    corpus: Corpus, modalities: Iterable[str], *, held_out: frozenset[str], rows: int, seed: int
) -> np.ndarray:
    """Blocks that are drawn at random of those with one of some modalities, shape (n, 3); all of them where they have no more rows.

    Parameters
    ----------
    corpus
        The corpus.
    modalities
        The modalities.
    held_out
        Patients that are not drawn.
    rows
        Number of rows.
    seed
        Seed of the draw.
    """
    records = [shard.record for shard in corpus.shards]
    pairs = [(m, m) for m in modalities]
    streams = streams_of(records, pairs, keep=lambda p: p not in held_out, balanced=False)
    if not streams:
        return np.empty((0, 3), np.int64)
    blocks = np.random.default_rng([seed, rows]).permutation(streams[0].blocks)
    size = blocks[:, 2] - blocks[:, 1]
    return blocks[: int(np.searchsorted(np.cumsum(size), rows)) + 1]


def training_statistics(
    corpus: Corpus, modality: str, dim: int, *, held_out: frozenset[str], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the features of a modality, both float32 (d,), of `SAMPLE_ROWS` rows of the training patients.

    Raises
    ------
    ValueError
        If no row is left.
    """
    n, total, squares = 0, np.zeros(dim), np.zeros(dim)
    shift: np.ndarray | None = None
    blocks = drawn_blocks(corpus, [modality], held_out=held_out, rows=SAMPLE_ROWS, seed=seed).tolist()
    for first in range(0, len(blocks), WINDOW_BLOCKS):
        some = [(corpus.shards[i], start, stop) for i, start, stop in blocks[first : first + WINDOW_BLOCKS]]
        for block in read_blocks(some):
            x = block.features[modality].astype(np.float64)
            # the first mean is subtracted, so that squares of large values do not cancel
            shift = x.mean(axis=0) if shift is None else shift
            n, total, squares = n + len(x), total + (x - shift).sum(axis=0), squares + np.square(x - shift).sum(axis=0)
    if not n or shift is None:
        raise ValueError(f"No training patient has {modality} features; hold out fewer with validation=….")
    mean = shift + total / n
    std = np.sqrt(np.maximum(squares / n - np.square(total / n), 0))
    tiny = std <= 1e-7 * np.maximum(1.0, np.abs(mean))
    return mean.astype(np.float32), np.where(tiny, 1.0, std).astype(np.float32)
