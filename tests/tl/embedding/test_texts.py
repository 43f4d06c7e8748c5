"""Texts in the joint space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from spatialwhisperer.models.configuration.model import ModelConfig
from spatialwhisperer.models.ontology import Ontology, Term
from spatialwhisperer.models.vocabulary import Label, Vocabulary
from spatialwhisperer.models.whisperer import Whisperer
from spatialwhisperer.tl._embedding.texts import embed_texts

if TYPE_CHECKING:
    from collections.abc import Sequence

KNOWN = ["abba", "deaf"]


@pytest.fixture
def vocabulary() -> Vocabulary:
    features = np.arange(12, dtype=np.float32).reshape(2, 6)
    return Vocabulary({"band": Label(("abba",))}, KNOWN, features, Ontology([Term("X:0", "thing")]))


def test_texts_are_encoded_and_projected(given: Whisperer, letters: Any) -> None:
    texts = ["abba", "cafe"]
    got = embed_texts(given, texts)
    assert np.allclose(got, given.project("text", letters.encode(texts)), atol=1e-6)
    assert np.allclose(np.linalg.norm(got, axis=1), 1, atol=1e-5)


def test_texts_are_read_as_captions_are(given: Whisperer, letters: Any) -> None:
    assert np.array_equal(embed_texts(given, [" abba\u00a0 cafe\n"]), embed_texts(given, ["abba cafe"]))
    assert letters.asked == ["abba cafe"] * 2


def test_texts_of_the_vocabulary_need_no_encoder(given: Whisperer, letters: Any, vocabulary: Vocabulary) -> None:
    given.vocabulary = vocabulary
    got = embed_texts(given, ["deaf", "abba"])
    assert np.allclose(got, given.project("text", vocabulary.features[::-1]), atol=1e-6)
    assert letters.asked == []


def test_the_other_texts_are_encoded_in_their_place(given: Whisperer, letters: Any, vocabulary: Vocabulary) -> None:
    given.vocabulary = vocabulary
    got = embed_texts(given, ["cafe", "abba", "fade", "cafe"])
    assert sorted(letters.asked) == ["cafe", "fade"]
    features = np.stack([*letters.encode(["cafe"]), vocabulary.features[0], *letters.encode(["fade", "cafe"])])
    assert np.allclose(got, given.project("text", features), atol=1e-6)


@pytest.mark.parametrize("error", [ImportError, FileNotFoundError])
def test_without_an_encoder_the_known_texts_are_named(
    given: Whisperer, letters: Any, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error("install it")

    monkeypatch.setattr(letters, "encode", fail)
    with pytest.raises(error, match="needed for 'cafe', and cannot be used. This model stores no texts.*install it"):
        embed_texts(given, ["cafe"])
    given.vocabulary = vocabulary
    with pytest.raises(error, match=r"the model knows 'band' and 2 texts .*nearest to 'abbe': 'abba'.*install it"):
        embed_texts(given, ["abba", "abbe"])


@pytest.mark.parametrize(("texts", "error"), [([], ValueError), ("abba", TypeError), (["a", " "], ValueError)])
def test_what_is_no_list_of_texts_is_refused(given: Whisperer, texts: Sequence[str], error: type[Exception]) -> None:
    with pytest.raises(error):
        embed_texts(given, texts)


def test_a_model_without_text_is_refused(given: Whisperer) -> None:
    model = Whisperer(ModelConfig(3, {"gene": given.config.modality("gene")}))
    with pytest.raises(KeyError, match="This model reads no text .it has: gene"):
        embed_texts(model, ["abba"])
