"""The order of a corpus: every row once, by the seed alone, from any step on."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest

from spatialwhisperer.training.corpus import order
from spatialwhisperer.training.corpus.manifest import ShardRecord
from spatialwhisperer.training.corpus.order import CorpusBatches, Stream, blocks_of, deal, streams_of

if TYPE_CHECKING:
    from spatialwhisperer.training.corpus.order import Piece

PAIRS = [("image", "gene"), ("gene", "text")]


def stream(*rows: int, first: int = 0) -> Stream:
    """A stream of shards with so many rows."""
    blocks = [
        blocks_of(first + i, ShardRecord("s", ("gene", "image"), n, (("P", 0),)), bool) for i, n in enumerate(rows)
    ]
    return Stream(np.concatenate(blocks))


def rows_of(pieces: list[Piece]) -> list[tuple[int, int]]:
    """Shard and row of each row of a batch."""
    out = []
    for piece in pieces:
        blocks = piece.window.blocks
        flat = [(int(s), r) for s, start, stop in blocks for r in range(start, stop)]
        out += [flat[i] for i in piece.window.order[piece.rows]]
    return out


def an_epoch(batches: CorpusBatches, epoch: int = 0) -> list[list[tuple[int, int]]]:
    batches.set_epoch(epoch)
    return [rows_of(pieces) for pieces in batches]


def test_blocks_lie_in_one_chunk_and_leave_patients_out() -> None:
    record = ShardRecord("s", ("gene", "image"), 600, (("A", 0), ("B", 100), ("C", 300)))
    everything = blocks_of(7, record, bool)
    assert everything.tolist() == [[7, 0, 256], [7, 256, 512], [7, 512, 600]]
    assert blocks_of(7, record, lambda p: p != "B").tolist() == [[7, 0, 100], [7, 300, 512], [7, 512, 600]]


def test_a_pass_holds_every_row_of_the_longest_stream_once_and_repeats_the_other() -> None:
    batches = CorpusBatches([stream(700, 500), stream(400, first=2)], 60, seed=0)
    assert len(batches) == 40
    seen = Counter(row for batch in an_epoch(batches) for row in batch)
    long = {row: n for row, n in seen.items() if row[0] < 2}
    short = [n for row, n in seen.items() if row[0] == 2]
    assert len(long) == 1200
    assert set(long.values()) == {1}
    assert len(short) == 400
    assert set(short) == {3}


def test_every_batch_holds_the_streams_in_equal_parts() -> None:
    batches = CorpusBatches([stream(700), stream(400, first=1), stream(300, first=2)], 32, seed=0)
    for batch in an_epoch(batches):
        assert Counter(shard for shard, _ in batch) == {0: 11, 1: 11, 2: 10}


def test_rows_of_one_shard_are_spread_over_the_batches() -> None:
    batches = CorpusBatches([stream(*[1024] * 16)], 256, seed=0)
    shards = [len({shard for shard, _ in batch}) for batch in an_epoch(batches)]
    assert min(shards) >= 8


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    given = [stream(700, 500), stream(400, first=2)]
    first = an_epoch(CorpusBatches(given, 60, seed=0), 2)
    other = CorpusBatches(given, 60, seed=0)
    an_epoch(other, 0)
    an_epoch(other, 1)
    assert an_epoch(other, 2) == first
    assert an_epoch(CorpusBatches(given, 60, seed=1), 2) != first
    assert an_epoch(CorpusBatches(given, 60, seed=0), 1) != first


def test_parts_of_a_pass_are_the_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    given = [stream(700, 500), stream(400, first=2)]
    whole = an_epoch(CorpusBatches(given, 60, seed=0))
    monkeypatch.setattr(order, "PART_STEPS", 10)
    parts = CorpusBatches(given, 60, seed=0)
    assert (parts.parts, len(parts)) == (4, 10)
    assert [batch for part in range(4) for batch in an_epoch(parts, part)] == whole
    # the last part alone, as a run that is resumed
    assert an_epoch(CorpusBatches(given, 60, seed=0), 3) == whole[30:]


@pytest.mark.parametrize("rows", [[256] * 16, [700, 100, 30]])
def test_ranks_read_rows_of_their_own_that_together_are_the_joined_batch(rows: list[int]) -> None:
    given = [stream(*rows), stream(300, 300, first=len(rows))]
    joined = an_epoch(CorpusBatches(given, 20, seed=0, lanes=2, joined=True))
    ranks = []
    for rank in range(2):
        batches = CorpusBatches(given, 20, seed=0, lanes=2)
        batches.rank_of = partial(int, rank)
        ranks.append(an_epoch(batches))
    assert [a + b for a, b in zip(*ranks, strict=True)] == joined
    own = [{row for batch in rank for row in batch if row[0] < len(rows)} for rank in ranks]
    assert not own[0] & own[1]
    if len(rows) == 16:
        assert not {s for s, _ in own[0]} & {s for s, _ in own[1]}, "a shard is read by two ranks"


def test_shards_of_uneven_size_are_dealt_block_by_block() -> None:
    blocks = stream(5000, 100).blocks
    rows = [int((lane[:, 2] - lane[:, 1]).sum()) for lane in deal(blocks, np.random.default_rng(0), 3)]
    assert sum(rows) == 5100
    assert max(rows) - min(rows) <= 2 * 256


def test_validation_batches_are_the_same_in_every_epoch() -> None:
    batches = CorpusBatches([stream(700)], 64, seed=0, lanes=1, fixed=5)
    assert len(batches) == 5
    assert an_epoch(batches, 0) == an_epoch(batches, 3)


def test_streams_are_sets_of_modalities_or_one() -> None:
    records = [
        ShardRecord("a", ("gene", "image"), 10, (("A", 0),)),
        ShardRecord("b", ("gene", "text"), 20, (("B", 0),)),
        ShardRecord("c", ("image", "text"), 30, (("C", 0),)),
        ShardRecord("d", ("gene", "text"), 40, (("D", 0),)),
    ]
    assert [s.rows for s in streams_of(records, PAIRS, keep=bool, balanced=True)] == [10, 60]
    assert [s.rows for s in streams_of(records, PAIRS, keep=bool, balanced=False)] == [70]
    assert [s.rows for s in streams_of(records, PAIRS, keep=lambda p: p == "B", balanced=True)] == [20]
