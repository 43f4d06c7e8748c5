from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from spatialwhisperer.protocols.wordings.negations import negations

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_the_prior_spares_ordinary_texts_and_keeps_most_negations(data_folder: Path) -> None:
    table = negations(data_folder)
    assert table.columns.tolist() == ["texts", "even odds", "three to one", "as shipped"]
    negate, other, negative, names = (row for _, row in table.iterrows())
    assert negate["as shipped"] > 0.9 * negate["texts"]
    assert (other["as shipped"], other["even odds"] > 0) == (0, True)
    assert negative["as shipped"] < negative["even odds"]
    assert names["as shipped"] < names["even odds"] / 2
