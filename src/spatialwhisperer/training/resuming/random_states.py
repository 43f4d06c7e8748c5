"""The state of all random generators, as tensors and plain values that a checkpoint can hold."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

_DEVICES = ("cuda", "mps")


def random_states(device: torch.device) -> dict[str, Any]:
    """State of the generators of Python, NumPy, torch and the device of the model."""
    kind, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (str(kind), torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest),
        "torch": torch.get_rng_state(),
    }
    if device.type in _DEVICES:
        states[device.type] = getattr(torch, device.type).get_rng_state()
    return states


def restore_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Set the generators to a state that `random_states` returned."""
    random.setstate(states["python"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if device.type in states:
        getattr(torch, device.type).set_rng_state(states[device.type])


def states_of_ranks(device: torch.device) -> list[dict[str, Any]]:
    """The states of all processes of the run, in the order of their ranks. All of them must call it."""
    own = random_states(device)
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return [own]
    states: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(states, own)
    return states
