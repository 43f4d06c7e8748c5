"""The form in which texts are read: captions, labels and descriptions."""

from __future__ import annotations

import unicodedata

_UNSEEN = ("Cc", "Cf", "Zl", "Zp", "Zs")
"""Categories of Unicode of controls, of characters without width, and of blanks."""

_MISSING = frozenset({"", "nan", "NaN", "NaT", "<NA>", "None", "NA", "na", "N/A", "n/a"})
"""What missing values become where a column is turned into text, and how tables write them. A class may be called "none"."""


def plain_text(text: str) -> str:
    """A text in the Unicode form NFC, with one blank between its words and none around them; empty where nothing of it can be seen."""
    plain = " ".join(unicodedata.normalize("NFC", text).split())
    return plain if any(unicodedata.category(c) not in _UNSEEN for c in plain) else ""


def reads_missing(text: str) -> bool:
    """Whether a text is most likely a missing value."""
    return text.strip() in _MISSING
