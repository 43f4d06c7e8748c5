"""How a model reads the texts of labels: which are far from all that it knows, which it takes for negations, and which cancel out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer._messages import inform, listing, shortened, warn
from spatialwhisperer.networks.negations import says_no
from spatialwhisperer.tl._annotation.known_texts import nearness
from spatialwhisperer.tl._annotation.labels import mean_embeddings, sentence_embeddings
from spatialwhisperer.tl._embedding.texts import project_texts, text_features

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialwhisperer.models.whisperer import Whisperer
    from spatialwhisperer.tl._annotation.known_texts import Nearness

LEAST_MEAN = 0.5
"""Length of the mean of unit embeddings below which they cancel out. Two of them then make an angle of more than 120°."""


@dataclass(frozen=True)
class Reading:
    """How a model reads the sentences of each label.

    Attributes
    ----------
    labels
        The labels.
    parts
        Unit embeddings of the sentences of each label, each of shape (number of sentences, u).
    near
        How near the sentences are to the texts of training; ``None`` where the model stores no features of such texts.
    negations
        Sentences that are read as negations: they score high where what they name is absent.
    overlooked
        Sentences that begin like a negation and are not read as one.
    """

    labels: tuple[str, ...]
    parts: list[np.ndarray]
    near: Nearness | None = None
    negations: tuple[str, ...] = ()
    overlooked: tuple[str, ...] = ()

    @cached_property
    def text(self) -> np.ndarray:
        """Mean embedding of the sentences of each label, scaled back to unit length; shape (number of labels, u)."""
        return mean_embeddings(self.parts)

    def say(self) -> None:
        """Tell the user what is unusual about the texts, in one line for each kind."""
        meant, unmeant = ([t for t in self.negations if says_no(t) is no] for no in (True, False))
        far = None if self.near is None else self.near.warning()
        for sentence in (far, _reversed(unmeant), _overlooked(self.overlooked), self._cancelled()):
            if sentence is not None:
                warn(sentence)
        if meant:
            inform(f"The model reads {_negations(meant)}: scores are high where what is named is absent.")

    def _cancelled(self) -> str | None:
        """A sentence on the labels whose sentences cancel out; ``None`` where there is none."""
        lengths = [float(np.linalg.norm(part.mean(axis=0))) for part in self.parts]
        found = [
            f"{shortened(name)!r} ({x:.2f})" for name, x in zip(self.labels, lengths, strict=True) if x < LEAST_MEAN
        ]
        if not found:
            return None
        return (
            f"The descriptions of {listing(found, 4)} cancel out: the number is the length of their mean embedding, 1 where all say the "
            "same. What is left of it says little. Ask for each description by itself."
        )


def read_texts(
    model: Whisperer, labels: Sequence[str], sentences: Sequence[Sequence[str]], *, device: str | None = None
) -> Reading:
    """Embed the sentences of each label, and find out how the model reads them.

    Raises
    ------
    KeyError
        If the model reads no text.
    ImportError, FileNotFoundError
        If a text is not in the vocabulary and the text encoder is not installed, or its weights are not available.
    """
    if "text" not in model.modalities or "text" in model.towers:
        return Reading(tuple(labels), sentence_embeddings(model, sentences, device=device))
    flat = [text for group in sentences for text in group]
    ends = np.cumsum([len(group) for group in sentences])[:-1]
    # once for all that follows
    features = text_features(model, flat, device=device)
    z, negates = project_texts(model, flat, features, device=device)
    parts = np.split(z, ends)
    near = nearness(model, sentences, features)
    if negates is None:
        return Reading(tuple(labels), parts, near)
    read = dict(zip(flat, negates, strict=True))
    negations = tuple(text for text, no in read.items() if no)
    return Reading(
        tuple(labels), parts, near, negations, tuple(text for text, no in read.items() if not no and says_no(text))
    )


def _reversed(texts: Sequence[str]) -> str | None:
    """A sentence on texts that are read as negations although they do not begin like one; ``None`` where there is none."""
    if not texts:
        return None
    return (
        f"The model reads {_negations(texts)}, as it does 'no tumour': scores are high where what is named is absent. If you look for the "
        "thing itself, say in other words what is there, for example 'basal-like breast cancer' for 'triple-negative breast cancer'."
    )


def _overlooked(texts: Sequence[str]) -> str | None:
    """A sentence on negations that are not read as such; ``None`` where there is none."""
    if not texts:
        return None
    return (
        f"The model does not read {_quoted(texts)} as {_noun(texts)}: scores are high where what is named is present. Ask for the thing "
        "itself, and look for low scores."
    )


def _negations(texts: Sequence[str]) -> str:
    return f"{_quoted(texts)} as {_noun(texts)}"


def _noun(texts: Sequence[str]) -> str:
    return "a negation" if len(texts) == 1 else "negations"


def _quoted(texts: Sequence[str]) -> str:
    return listing([repr(shortened(text)) for text in texts], 4)
