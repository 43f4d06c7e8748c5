"""Embedding texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spatialwhisperer._checks.checked import checked
from spatialwhisperer._checks.values import check_batch_size
from spatialwhisperer._docs import shared
from spatialwhisperer.encoders.outputs import encoded
from spatialwhisperer.encoders.resolve import text_encoder
from spatialwhisperer.encoders.text.base import check_texts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np

    from spatialwhisperer.encoders.text.base import TextEncoder


@shared
@checked
def embed_texts(
    texts: Sequence[str],
    *,
    encoder: str | Path | TextEncoder = "minilm",
    batch_size: int | None = None,
    device: str | None = None,
) -> np.ndarray:
    """Embed labels, captions or prompts with a sentence encoder.

    Parameters
    ----------
    texts
        The texts; repeated ones are computed once. Words beyond the longest input of the encoder are cut off, with a warning that
        counts the texts: after 256 tokens (words, or parts of rare ones) for "minilm".
    encoder
        ``"minilm"`` (all-MiniLM-L6-v2, 384 dimensions, Apache-2.0), a folder with a transformers model in safetensors, the id of
        one on the Hugging Face hub, or what :func:`spatialwhisperer.models.text_encoder` returned.
    %(batch_size)s
    %(device)s

    Returns
    -------
    Embeddings, float32, shape (n, d), in the order of ``texts``.

    Raises
    ------
    TypeError
        If ``texts`` is a single string, or an entry is not a string.
    ValueError
        If there is no text or an empty one, ``batch_size`` is not a positive whole number, or the weights of the encoder are not the
        published ones.
    FileNotFoundError
        If the weights are neither installed nor cached and cannot be fetched.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sw.pp.embed_texts(["invasive carcinoma", "adipose tissue"]).shape
    (2, 384)
    """
    check_batch_size(batch_size)
    texts = check_texts(texts)
    return encoded(text_encoder(encoder), texts, batch_size=batch_size, device=device)
