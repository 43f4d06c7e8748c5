"""Modalities are entries of one table."""

from __future__ import annotations

from typing import Any

import pytest

from spatialwhisperer import _modalities
from spatialwhisperer._modalities import MODALITIES, Modality, get_modality, register_modality


@pytest.fixture
def own_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_modalities, "MODALITIES", dict(MODALITIES))


def test_the_first_three_stand_in_the_order_of_the_locking_code() -> None:
    assert list(MODALITIES)[:3] == ["gene", "text", "image"]
    assert [get_modality(m).reads for m in ("image", "gene", "text")] == ["tiles", "counts", "captions"]
    assert get_modality("image").embedding_key == "X_sw_image"


@pytest.mark.usefixtures("own_table")
def test_a_new_one_is_found_and_a_taken_name_needs_overwrite() -> None:
    register_modality(Modality("protein", reads="matrix", key="protein"), overwrite=True)
    assert get_modality("protein").key == "protein"
    with pytest.raises(ValueError, match="registered already; pass overwrite=True"):
        register_modality(Modality("protein", reads="matrix", key="other"))
    register_modality(Modality("protein", reads="matrix", key="other"), overwrite=True)
    assert get_modality("protein").key == "other"


def test_an_unknown_one_lists_those_there_are() -> None:
    with pytest.raises(ValueError, match="There is no modality 'sound'; there are gene, text, image"):
        get_modality("sound")


@pytest.mark.parametrize(
    "values",
    [{"name": "x", "reads": "matrix"}, {"name": "x", "reads": "tiles", "key": "y"}, {"name": "a b", "reads": "tiles"}],
)
def test_entries_that_do_not_hold_together_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="needs key=|a word without blanks"):
        Modality(**values)
