from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from spatialwhisperer.encoders import registry

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def own_registry() -> Iterator[None]:
    """What a test registers is gone after it."""
    registry.load_own()
    # the same dictionary, because other modules hold it
    before = dict(registry.ENTRIES)
    names = {entry.make: entry.make.names for entry in before.values()}
    yield
    registry.ENTRIES.clear()
    registry.ENTRIES.update(before)
    for kind, own in names.items():
        kind.names = own
