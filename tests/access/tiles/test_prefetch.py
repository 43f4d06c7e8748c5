from __future__ import annotations

import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import pytest

from spatialwhisperer._access.tiles.prefetch import batches, in_order, prefetch

if TYPE_CHECKING:
    from collections.abc import Iterator


def readers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "spatialwhisperer-prefetch"]


def test_items_come_in_order_and_an_error_after_those_before_it() -> None:
    def numbers(n: int) -> Iterator[int]:
        yield from range(n)
        raise OSError("disk")

    ahead = prefetch(numbers(5))
    assert [next(ahead) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(OSError, match="disk"):
        next(ahead)
    assert list(prefetch([])) == []
    assert not readers()


def test_the_thread_ends_with_the_loop_however_that_ends() -> None:
    ahead = prefetch(iter(range(10**9)))
    assert next(ahead) == 0
    ahead.close()
    time.sleep(0.01)
    assert not readers()

    def interrupted() -> None:
        with closing(prefetch(iter(range(10**9)))) as items:
            for _ in items:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not readers()


def test_no_more_than_the_depth_is_read_ahead() -> None:
    seen: list[int] = []

    def numbers() -> Iterator[int]:
        for i in range(100):
            seen.append(i)
            yield i

    with closing(prefetch(numbers(), depth=3)) as ahead:
        next(ahead)
        time.sleep(0.3)
        # one is handed out, three wait, and one is in the hands of the thread
        assert len(seen) <= 5


def test_batches_have_one_size() -> None:
    pieces = [(np.arange(a, b), np.arange(a, b)[:, None]) for a, b in ((0, 3), (3, 4), (4, 15), (15, 16), (16, 18))]
    got = list(batches(pieces, 4))
    assert [len(rows) for rows, _ in got] == [4, 4, 4, 4, 2]
    assert np.array_equal(np.concatenate([rows for rows, _ in got]), np.arange(18))
    assert all(np.array_equal(rows, values[:, 0]) for rows, values in got)
    assert list(batches([], 4)) == []


# ------------------------------------------------------------------------------------------------- several threads


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_the_order_of_the_items(workers: int) -> None:
    def late(i: int) -> int:
        time.sleep(0.002 * (i % 3))
        return i * i

    assert list(in_order(late, range(20), workers=workers)) == [i * i for i in range(20)]
    assert list(in_order(late, [], workers=workers)) == []


def test_an_error_comes_after_the_results_before_it_and_ends_the_threads() -> None:
    results = in_order(lambda i: 6 // (3 - i), range(9), workers=2)
    assert [next(results) for _ in range(3)] == [2, 3, 6]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert not [t for t in threading.enumerate() if t.name.startswith("spatialwhisperer-batches")]


def test_a_timeout_of_a_call_is_an_error_like_any_other() -> None:
    def fails(i: int) -> int:
        raise TimeoutError(f"call {i} is too late")

    with pytest.raises(TimeoutError, match="call 1 is too late"):
        next(in_order(fails, [1], workers=1))
