from __future__ import annotations

import pytest

from spatialwhisperer.networks.negations import EVEN_ODDS, ORDINARY_ODDS, prior_odds, says_no


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no tumour", True),
        ("Absence of fat", True),
        (" not a T cell", True),
        ("a photo of no tumour", True),
        ("north", False),
        ("node-negative", False),
        ("benign", False),
        ("stroma but no tumour", False),
        ("no special type carcinoma", False),
        ("carcinoma of no special type", False),
        ("not otherwise specified carcinoma", False),
    ],
)
def test_how_a_text_begins_that_negates(text: str, expected: bool) -> None:
    assert says_no(text) is expected


def test_a_text_that_begins_like_a_negation_is_as_likely_as_not_to_be_one() -> None:
    assert prior_odds(["no tumour", "tumour"]).tolist() == [EVEN_ODDS, ORDINARY_ODDS]
    assert EVEN_ODDS == 1
    assert ORDINARY_ODDS > 1
