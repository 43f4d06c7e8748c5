from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer.encoders.text.base import TextEncoder


class Letters(TextEncoder):
    """How many letters and words a text has."""

    spec = sw.models.EncoderSpec("letters", "text", 2)

    def encode(self, inputs: Any, *, batch_size: int | None = None, device: str | None = None) -> np.ndarray:
        self.asked = (list(inputs), batch_size, device)
        return np.array([[len(t), len(t.split())] for t in inputs], np.float32)


def test_texts_go_to_the_encoder_with_its_options() -> None:
    encoder = Letters()
    got = sw.pp.embed_texts(("fat", "a tumour"), encoder=encoder, batch_size=7, device="cpu")
    assert got.tolist() == [[3, 1], [8, 2]]
    assert encoder.asked == (["fat", "a tumour"], 7, "cpu")


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        ("fat", TypeError, "texts is one string; pass a list"),
        ([], ValueError, "texts is empty"),
        (["fat", " "], ValueError, r"texts\[1\] is empty"),
        (["fat", 3], TypeError, r"texts\[1\] is 3, of type int"),
        (7, TypeError, "must be a list of strings, not int"),
    ],
)
def test_what_is_no_text_is_refused_before_an_encoder_is_opened(
    texts: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        sw.pp.embed_texts(texts, encoder="no such encoder")


def test_an_encoder_that_is_none_is_refused() -> None:
    with pytest.raises(TypeError, match="encoder must be 'minilm', a folder, a hub id or a TextEncoder, not int"):
        sw.pp.embed_texts(["fat"], encoder=3)  # type: ignore[arg-type]
