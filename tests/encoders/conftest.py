from __future__ import annotations

import pytest

from spatialwhisperer.encoders import registry


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    registry.load_own()
    # the same dictionaries, because other modules hold them
    for entries in (registry.ENTRIES, registry.OTHERS):
        before = dict(entries)
        for key in before:
            monkeypatch.setitem(entries, key, before[key])
    names = set(registry.ENTRIES)
    yield
    for key in set(registry.ENTRIES) - names:
        del registry.ENTRIES[key]
