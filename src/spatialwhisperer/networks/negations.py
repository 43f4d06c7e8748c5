"""How likely a text is to negate before a model reads it, by how it begins."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

ORDINARY_ODDS = 3.0
"""Odds that a text does not negate, before it is read. The logistic regression of the head "signed_linear" is fitted with classes of equal
weight, as if every second text negated; most texts that people ask do not. With these odds a text is turned round where the regression
says more than three to one that it negates. Larger odds turn round fewer names that do not negate, and leave more negations as they are
(the table of ``python -m spatialwhisperer.protocols paraphrases`` counts both)."""

EVEN_ODDS = 1.0
"""Odds that a text does not negate where as many texts negate as do not: those of a text that begins like a negation, and those at which
the map of texts is fitted, because the negations of training are known to be some."""

_SAYS_NO = re.compile(
    r"(?:^|\bof)\s*(?!no[- ]special[- ]type|not[- ]otherwise[- ]specified)"
    r"(?:no|not|without|absence of|lack of|lacking|free of|negative for)\b",
    re.IGNORECASE,
)
"""A negation at the beginning, or after the "of" of a template such as "a photo of …", but for two names of tumour types."""


def says_no(text: str) -> bool:
    """Whether a text, or what a template is filled with, begins like a negation."""
    return _SAYS_NO.search(text) is not None


def prior_odds(texts: Iterable[str]) -> np.ndarray:
    """Odds that each text does not negate, before it is read, shape (n,)."""
    return np.array([EVEN_ODDS if says_no(text) else ORDINARY_ODDS for text in texts])
