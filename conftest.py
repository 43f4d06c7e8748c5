"""Fixtures of the tests and of the examples in the docstrings."""

from __future__ import annotations

import os

import pytest

# numba's pool, which scanpy starts, would give torch as many threads as there are processors; numba reads this when it is imported
os.environ.setdefault("NUMBA_NUM_THREADS", "1")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Small models on a shared machine are slower with several threads than with one."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Runs and downloads of the tests stay out of the user's cache."""
    from spatialwhisperer.settings import settings

    settings.cache_dir = tmp_path_factory.mktemp("cache")
