"""Texts are not embedded twice where a second call asks for the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spatialwhisperer._settings import settings
from spatialwhisperer.encoders.recipe import EncoderIdentity
from spatialwhisperer.encoders.spec import EncoderSpec
from spatialwhisperer.encoders.text import kept_features
from spatialwhisperer.encoders.text.base import TextEncoder
from spatialwhisperer.encoders.text.kept_features import encoded_or_kept

TEXTS = ["fat tissue", "a lymph node"]


class Counting(TextEncoder):
    """Length of each text, and how often it was asked."""

    spec = EncoderSpec("counting", "text", 1)

    def __init__(self, digest: str | None = None) -> None:
        self.asked, self.digest = 0, digest

    @property
    def identity(self) -> EncoderIdentity:
        return EncoderIdentity("counting", digest=self.digest)

    def encode(self, inputs: Any, **_: Any) -> np.ndarray:
        self.asked += 1
        return np.array([[len(text)] for text in inputs], np.float32)


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    kept_features._KEPT.clear()


def test_the_same_texts_are_embedded_once() -> None:
    encoder = Counting()
    first = encoded_or_kept(encoder, TEXTS)
    expected = first.copy()
    # what a caller does to an array does not reach the one that is kept
    first[:] = 0
    np.testing.assert_array_equal(encoded_or_kept(encoder, list(TEXTS)), expected)
    assert encoder.asked == 1


@pytest.mark.parametrize("what", ["texts", "order", "batch size", "class"])
def test_another_call_is_made_again(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder: Counting = Counting()
    encoded_or_kept(encoder, TEXTS)
    texts = {"texts": [*TEXTS, "blood"], "order": TEXTS[::-1]}.get(what, TEXTS)
    if what == "batch size":
        monkeypatch.setattr(settings, "batch_size", settings.batch_size + 1)
    if what == "class":
        encoder = type("Counting", (Counting,), {})()
    asked = encoder.asked
    encoded_or_kept(encoder, texts)
    assert encoder.asked == asked + 1


def test_an_encoder_that_its_name_does_not_define_is_always_asked() -> None:
    encoder = Counting(digest="0" * 64)
    for _ in range(2):
        encoded_or_kept(encoder, TEXTS)
    assert encoder.asked == 2


def test_few_and_small_ones_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Counting()
    for i in range(6):
        encoded_or_kept(encoder, [f"text {i}"])
    assert len(kept_features._KEPT) == 4
    monkeypatch.setattr(kept_features, "_MOST_BYTES", 3)
    for _ in range(2):
        encoded_or_kept(encoder, ["another"])
    assert encoder.asked == 8
