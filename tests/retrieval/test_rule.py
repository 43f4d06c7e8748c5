from __future__ import annotations

from typing import Any

import pytest

from spatialwhisperer._storage.schema import from_plain, to_plain
from spatialwhisperer.retrieval.rule import Retrieval


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"query": "spot"}, "There is no modality 'spot'"),
        ({"key": "spot"}, "There is no modality 'spot'"),
        ({"weights": "inverse"}, "Unknown weights 'inverse'; choose one of uniform"),
        ({"k": 0}, "k must be a whole number of at least 1, or None"),
        ({"k": 2.5}, "k must be a whole number of at least 1, or None"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"temperature": float("nan")}, "temperature must be positive"),
    ],
)
def test_a_rule_refuses_what_no_retrieval_can_do(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Retrieval(**options)


@pytest.mark.parametrize("rule", [Retrieval(), Retrieval(key="image", k=None, weights="softmax", temperature=0.02)])
def test_a_rule_survives_plain_values(rule: Retrieval) -> None:
    assert from_plain(Retrieval, to_plain(rule), "a retrieval") == rule


def test_stored_values_are_checked_too() -> None:
    with pytest.raises(ValueError, match="Unknown weights"):
        from_plain(Retrieval, to_plain(Retrieval()) | {"weights": "inverse"}, "a retrieval")
