from __future__ import annotations

import pytest

from spatialwhisperer._compute import blocks as parallel
from spatialwhisperer._compute.blocks import blocks, each


@pytest.mark.parametrize(("rows", "width"), [(0, 3), (1, 0), (7, 3), (10, 1), (3, 100)])
def test_blocks_cover_each_row_once(rows: int, width: int) -> None:
    parts = blocks(rows, width, 6)
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(rows))
    assert all((part.stop - part.start) * width <= max(6, width) for part in parts)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_keep_their_order_on_any_number_of_threads(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "cores", lambda: threads)
    assert each(lambda x: x * x, range(50)) == [x * x for x in range(50)]
    assert each(abs, []) == []


def test_an_error_of_a_part_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "cores", lambda: 2)
    with pytest.raises(ZeroDivisionError):
        each(lambda x: 1 / x, [1, 0, 2])
