"""The state of the generators is what a checkpoint holds of them, and gives the same numbers again."""

from __future__ import annotations

import io
import random

import numpy as np
import torch

from spatialwhisperer._random import isolated_rng
from spatialwhisperer.training.resuming.random_states import random_states, restore_random_states, states_of_ranks

CPU = torch.device("cpu")


def drawn() -> tuple[list[float], list[float], list[float]]:
    numbers = [float(x) for x in np.random.normal(size=3)]  # noqa: NPY002
    return [random.random() for _ in range(3)], numbers, torch.rand(3).tolist()


def test_restored_generators_draw_the_same_numbers() -> None:
    with isolated_rng(0):
        # an odd number of normal deviates leaves one that NumPy keeps for the next call
        drawn()
        file = io.BytesIO()
        torch.save(random_states(CPU), file)
        first = drawn()
        assert drawn() != first
        file.seek(0)
        restore_random_states(torch.load(file, weights_only=True), CPU)
        assert drawn() == first


def test_one_process_has_one_state() -> None:
    (state,) = states_of_ranks(CPU)
    assert set(state) == {"python", "numpy", "torch"}
