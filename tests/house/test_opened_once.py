"""A call opens its object once, and hands it down."""

from __future__ import annotations

import importlib
from collections import Counter
from typing import Any

import pytest

import spatialwhisperer as sw


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a call asks for the table, the sections and the model."""
    from spatialwhisperer._access import slide
    from spatialwhisperer._access.sections import libraries, regions
    from spatialwhisperer.models import whisperer

    annotate = importlib.import_module("spatialwhisperer.tl.annotate")

    counted: Counter[str] = Counter()

    def count(place: Any, name: str, what: str) -> None:
        original = getattr(place, name)

        def counting(*args: Any, **kwargs: Any) -> Any:
            counted[what] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(place, name, counting)

    count(slide, "table_name", "table")
    count(regions, "region_codes", "sections")
    count(libraries, "library_codes", "sections")
    count(regions, "region_sections", "images")
    count(annotate, "open_model", "model")
    count(whisperer.Whisperer, "from_artifact", "model files")
    return counted


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["section", "adata"])
def test_an_annotation_opens_table_sections_and_model_once(
    kind: str, counts: Counter[str], request: pytest.FixtureRequest
) -> None:
    data = request.getfixturevalue(kind)
    sw.models.default_model()  # shared by the process
    sw.tl.zero_shot_annotate(data)
    counts.clear()
    sw.tl.zero_shot_annotate(data)  # its features are in place
    assert counts["table"] == 1
    assert counts["sections"] == 1
    assert counts["model"] == 1
    assert counts["images"] <= 1
    assert counts["model files"] == 0
