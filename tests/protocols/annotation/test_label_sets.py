from __future__ import annotations

import numpy as np
import pytest

from spatialwhisperer.protocols.annotation.label_sets import LABEL_SETS, LIZARD, PANNUKE, PATHOCELL


@pytest.mark.parametrize("labels", LABEL_SETS.values(), ids=list(LABEL_SETS))
def test_label_sets_are_whole(labels) -> None:
    for prompts in labels.prompts.values():
        texts = [prompts.text(name) for name in labels.prompted]
        assert len(set(texts)) == len(texts)
        assert all(t.strip() and "{}" not in t for t in texts)
        assert prompts.source
    assert not {*labels.dropped, *labels.unscored, *labels.ignored} & set(labels.prompted)
    for values in labels.published_by_class.values():
        assert list(values) == list(labels.groups)
    assert all(0 < v < 1 for v in labels.published.values())


def test_label_sets_are_those_of_the_paper() -> None:
    assert len(PATHOCELL.groups) == 13
    main_model = PATHOCELL.published_by_class["SpatialWhisperer, released (terms1)"]
    assert np.mean(list(main_model.values())) == pytest.approx(0.630, abs=5e-4)
    assert len(LIZARD.images) == 70
    assert LIZARD.choose("terms1").text("Connective tissue") == "fibroblast"
    assert PANNUKE.choose("terms1").text("Neoplastic cells") == "cancer cells"
    assert "chosen" in PANNUKE.choose("terms1").note
    assert not PANNUKE.choose("raw").note
    assert PATHOCELL.choose("terms2").text("B cells") == "A sample of B cells"
    assert PATHOCELL.choose("terms2").text("Stroma") == "A sample of Stroma cells"
    assert PATHOCELL.choose("tissue").text("Stroma") == "a tissue sample containing Stroma"
