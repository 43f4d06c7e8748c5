"""Fixtures of the tests and of the examples in the docstrings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Examples of docstrings run with the slow tests: many of them train a model."""
    for item in items:
        if isinstance(item, pytest.DoctestItem):
            item.add_marker("slow")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Small models are slower with several threads than with one, and numba, once scanpy has started it, sets their number anew."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Runs and downloads of the tests stay out of the user's cache."""
    from spatialwhisperer._settings import settings

    settings.cache_dir = tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_modalities() -> Iterator[None]:
    """A modality that a test or an example registers is gone after it."""
    from spatialwhisperer._modalities import MODALITIES

    before = dict(MODALITIES)
    yield
    if before != MODALITIES:
        MODALITIES.clear()
        MODALITIES.update(before)
