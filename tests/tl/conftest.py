"""What the tests of the verbs share."""

from __future__ import annotations

from typing import Any

import pytest


class Keys:
    """Names of everything that a table holds, to be compared before and after a call."""

    PARTS = ("obs", "var", "obsm", "layers", "uns")

    def of(self, table: Any) -> dict[str, set[str]]:
        names = {part: set(getattr(table, part)) for part in self.PARTS}
        return names | {"recorded": set(table.uns.get("spatialwhisperer", {}))}

    def added(self, before: dict[str, set[str]], table: Any) -> dict[str, set[str]]:
        now = self.of(table)
        assert all(before[part] <= now[part] for part in now)
        return {part: now[part] - before[part] for part in now if now[part] != before[part]}


@pytest.fixture(scope="session")
def keys() -> Keys:
    return Keys()


@pytest.fixture
def own(model: Any) -> Any:
    """A copy of the model that may be changed."""
    import copy

    return copy.deepcopy(model)
