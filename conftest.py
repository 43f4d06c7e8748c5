"""Fixtures of the tests and of the examples in the docstrings."""

from __future__ import annotations

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Small models are slower with several threads than with one, and numba, once scanpy has started it, sets their number anew."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Runs and downloads of the tests stay out of the user's cache."""
    from spatialwhisperer.settings import settings

    settings.cache_dir = tmp_path_factory.mktemp("cache")
