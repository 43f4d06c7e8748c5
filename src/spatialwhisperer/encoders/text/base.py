"""What every text encoder is: texts in, one vector each out."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from spatialwhisperer.encoders.base import Encoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np


class TextEncoder(Encoder):
    """Texts in, features out. Derive from it for an encoder of your own."""

    @abstractmethod
    def encode(  # type: ignore[override]
        self, inputs: Sequence[str], *, batch_size: int | None = None, device: str | None = None
    ) -> np.ndarray:
        """Turn texts into float32 features (n, dim), row by row."""


def check_texts(texts: Any) -> list[str]:
    """Return the texts as a list after checking that each is a string with something in it."""
    if isinstance(texts, str):
        raise TypeError("texts is one string; pass a list of strings: [text].")
    try:
        texts = list(texts)
    except TypeError as error:
        raise TypeError(f"texts must be a list of strings, not {type(texts).__name__}.") from error
    if not texts:
        raise ValueError("texts is empty; pass at least one.")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"texts[{i}] is {text!r}, of type {type(text).__name__}, not a string.")
        if not text.strip():
            raise ValueError(f"texts[{i}] is empty: there is nothing to embed. Leave it out or describe it.")
    return texts
