"""Opening the slides of a source."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer._access.tables import is_spatialdata
from spatialwhisperer.pp.corpus.sources import check_names
from tests import corpora


def table_of(data: Any) -> Any:
    return data["table"] if is_spatialdata(data) else data


def double(data: Any) -> None:
    table_of(data).X = table_of(data).X * 2


@pytest.mark.parametrize("called", [False, True])
@pytest.mark.parametrize("kind", ["AnnData", "SpatialData"])
def test_objects_in_memory_are_prepared_as_copies(kind: str, called: bool, simulated: Any) -> None:
    data = simulated.reference if kind == "AnnData" else simulated.sections["P1"]
    before = table_of(data).X.copy()
    source = sw.pp.CorpusSource("cells", (lambda: data) if called else data, licence="CC0", prepare=double)
    for opened in (source.peek("cells"), source.open("cells")):
        assert np.allclose(table_of(opened).X.toarray(), 2 * before.toarray())
    assert (table_of(data).X != before).nnz == 0


def test_keys_may_be_numbers() -> None:
    one = corpora.slide(0, 10, ["A"])
    source = sw.pp.CorpusSource("slides", {1: one}, licence="CC0")
    assert source.names == ["1"]
    assert source.open("1") is source.peek("1") is one
    with pytest.raises(ValueError, match="same name as text: 1, 1"):
        check_names([sw.pp.CorpusSource("slides", {1: one, "1": one}, licence="CC0")])
