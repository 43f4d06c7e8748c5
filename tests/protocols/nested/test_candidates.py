from __future__ import annotations

import pandas as pd
import pytest

from spatialwhisperer.protocols.nested.candidates import (
    EMBEDDED,
    FEATURES,
    candidates,
    choose,
    means,
    usable,
)


def table(rows: list[tuple[str, str, str, float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["candidate", "patient", "section", "auroc"])


def test_patients_have_the_same_weight_whatever_their_number_of_sections() -> None:
    scores = table(
        [
            ("many", "P", "P1", 0.9),
            ("many", "P", "P2", 0.9),
            ("many", "P", "P3", 0.9),
            ("many", "Q", "Q1", 0.5),
            ("both", "P", "P1", 0.8),
            ("both", "P", "P2", 0.8),
            ("both", "P", "P3", 0.8),
            ("both", "Q", "Q1", 0.7),
        ]
    )
    assert means(scores).to_dict() == pytest.approx({"many": 0.7, "both": 0.75})
    assert choose(scores) == "both"


def test_of_equal_candidates_the_first_is_chosen() -> None:
    assert choose(table([("simple", "P", "P1", 0.7), ("other", "P", "P1", 0.7)])) == "simple"


def test_candidates_are_compared_on_the_same_sections() -> None:
    with pytest.raises(ValueError, match="same sections"):
        choose(table([("a", "P", "P1", 0.7), ("a", "P", "P2", 0.9), ("b", "P", "P1", 0.8)]))


def test_nuclei_need_every_section() -> None:
    fine = {part for parts in FEATURES.values() for part in parts}
    coarse = fine - {"nuclei"}
    assert usable([fine, fine]) == list(FEATURES)
    assert usable([fine, coarse]) == list(FEATURES)[:3]


def test_the_recipe_of_the_embedded_model_is_among_the_candidates() -> None:
    assert EMBEDDED in candidates(FEATURES)
    assert len({c.name for c in candidates(FEATURES)}) == 2 * len(FEATURES)
