"""Random numbers that leave the process's own state alone."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from spatialwhisperer._messages import import_torch_stack

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def isolated_rng(random_state: int | None) -> Iterator[None]:
    """Seed Python, NumPy and torch inside the block and give the process its own state back afterwards."""
    seed_everything = import_torch_stack("lightning.pytorch").seed_everything
    from lightning.pytorch.utilities.seed import isolate_rng

    states = isolate_rng()
    states.__enter__()
    try:
        with _environment():
            if random_state is not None:
                seed_everything(random_state, verbose=False)
            yield
    finally:
        # without an error's details, because Lightning would raise it again before it restores anything
        states.__exit__(None, None, None)


@contextmanager
def untouched_rng() -> Iterator[None]:
    """Give torch its own state back after the block: for networks whose initial weights are replaced anyway.

    It does not import torch, because the block may end before a network is built. A torch that is imported in the block has no state to
    give back: its first seed is a random one.
    """
    torch: Any = sys.modules.get("torch")
    if torch is None:
        yield
        return
    state = torch.random.get_rng_state()
    try:
        yield
    finally:
        torch.random.set_rng_state(state)


@contextmanager
def _environment() -> Iterator[None]:
    # Lightning leaves its seed there, for processes that it starts
    before = {name: os.environ.get(name) for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
