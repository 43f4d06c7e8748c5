from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

import spatialwhisperer as sw
from spatialwhisperer._compute.batched import Computing, batch_rows, batches_of, by_batches

CPU = torch.device("cpu")


def test_results_are_in_the_order_of_the_rows_whichever_device_computes_them() -> None:
    rows = np.arange(42, dtype=np.float32).reshape(21, 2)
    meet = threading.Barrier(2, timeout=10)
    threads: dict[str, list[str]] = {}

    def computing(name: str, batches: int) -> Computing:
        def function(batch: torch.Tensor) -> torch.Tensor:
            assert torch.is_inference_mode_enabled()
            threads.setdefault(name, []).append(threading.current_thread().name)
            if len(threads[name]) <= batches:
                meet.wait()
            return batch * 2

        return Computing(CPU, function)

    # both are at work at the same time, so that neither can do all
    found = by_batches(rows, 4, [computing("one", 2), computing("other", 2)])
    np.testing.assert_array_equal(found, rows * 2)
    assert len(set(threads["one"])) == len(set(threads["other"])) == 1
    assert sum(map(len, threads.values())) == 6


def test_one_device_computes_in_the_thread_of_the_caller() -> None:
    sizes: list[int] = []

    def function(batch: torch.Tensor) -> torch.Tensor:
        assert threading.current_thread() is threading.main_thread()
        sizes.append(len(batch))
        return batch.double().sum(dim=1, keepdim=True)

    rows = np.ones((10, 3), np.uint8)
    found = by_batches(rows, 4, [Computing(CPU, function)])
    assert found.dtype == np.float32
    assert found.tolist() == [[3]] * 10
    assert sizes == [4, 4, 2]
    assert by_batches(rows[:0], 4, [Computing(CPU, function)]).shape == (0, 1)


def test_an_error_on_one_device_ends_the_call() -> None:
    done: list[int] = []
    failed = threading.Event()

    def fails(_: torch.Tensor) -> torch.Tensor:
        failed.set()
        raise RuntimeError("out of memory")

    def works(batch: torch.Tensor) -> torch.Tensor:
        assert failed.wait(10)
        done.append(len(batch))
        return batch

    with pytest.raises(RuntimeError, match="out of memory"):
        by_batches(np.zeros((1000, 1)), 1, [Computing(CPU, works), Computing(CPU, fails)])
    assert len(done) < 900


def test_the_rows_of_a_batch_are_those_of_the_block_else_of_the_settings() -> None:
    with sw.settings.override(batch_size=7):
        assert batch_rows() == 7
        with batches_of(3):
            assert batch_rows() == 3
        assert batch_rows() == 7
