"""The form in which texts are read: captions, labels and descriptions."""

from __future__ import annotations

import unicodedata

_UNSEEN = ("Cc", "Cf", "Zl", "Zp", "Zs")
"""Categories of Unicode of controls, of characters without width, and of blanks."""


def plain_text(text: str) -> str:
    """A text in the Unicode form NFC, with one blank between its words and none around them; empty where nothing of it can be seen."""
    plain = " ".join(unicodedata.normalize("NFC", text).split())
    return plain if any(unicodedata.category(c) not in _UNSEEN for c in plain) else ""
