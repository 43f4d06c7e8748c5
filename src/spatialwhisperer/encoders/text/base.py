"""Base class of text encoders."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from spatialwhisperer._annotations import is_text
from spatialwhisperer._checks.texts import plain_text
from spatialwhisperer.encoders.base import Encoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np


class TextEncoder(Encoder):
    """Computes features of texts."""

    @abstractmethod
    def encode(self, inputs: Sequence[str], *, batch_size: int | None = None, device: str | None = None) -> np.ndarray:
        """Compute features of texts; row i depends on text i alone.

        Parameters
        ----------
        inputs
            The texts.
        batch_size
            Texts in one pass; ``None`` takes ``settings.batch_size``.
        device
            Torch device; ``None`` takes ``settings.device``.

        Returns
        -------
        float32 (n, dim).
        """


def check_texts(texts: Any) -> list[str]:
    """Return texts as a list.

    Raises
    ------
    TypeError
        If they are one string, or an entry is not a string.
    ValueError
        If there is none, or an empty one.
    """
    if isinstance(texts, str):
        raise TypeError("texts is one string; pass a list of strings: [text].")
    try:
        texts = list(texts)
    except TypeError as error:
        raise TypeError(f"texts must be a list of strings, not {type(texts).__name__}.") from error
    if not texts:
        raise ValueError("texts is empty; pass at least one.")
    for i, text in enumerate(texts):
        if not is_text(text):
            raise TypeError(f"texts[{i}] is {text!r}, of type {type(text).__name__}, not a string.")
        if not plain_text(text):
            raise ValueError(f"texts[{i}] is empty: there is nothing to embed. Leave it out or describe it.")
    return texts
