"""How far the texts of a label lie from every text that a model was trained with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer._messages import listing, shortened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialwhisperer.models.whisperer import Whisperer

LEFT_OUT_QUANTILE = 0.5
"""A text is far where it is less similar to all known texts than half of the texts of a class that is left out are to those of the others."""


@dataclass(frozen=True)
class Nearness:
    """Nearest known text of each label.

    Attributes
    ----------
    similarity
        Highest cosine of the text features of a label's sentences with those of a known text, by label.
    nearest
        That text, by label.
    far
        Each sentence that is far from all known texts, with its highest cosine and the text that has it. One sentence of a label
        says nothing about the others.
    limit
        Similarity below which a sentence is far.
    """

    similarity: tuple[float, ...]
    nearest: tuple[str, ...]
    far: tuple[tuple[str, float, str], ...]
    limit: float

    def warning(self) -> str | None:
        """A sentence on the texts that are far; ``None`` where none is."""
        far = [f"{shortened(text)!r} ({value:.2f} to {near!r})" for text, value, near in self.far]
        if not far:
            return None
        return (
            f"The model was trained with no text like {listing(far, 4)}: cosines of text features below {self.limit:.2f}, the median of "
            "classes that are left out. Its scores may mean nothing. Ask in words that it knows (model.config.labels, "
            "model.config.wordings)."
        )


def nearness(model: Whisperer, sentences: Sequence[Sequence[str]], features: np.ndarray) -> Nearness | None:
    """How near labels are to the captions and wordings that a model was trained with.

    Parameters
    ----------
    model
        Its vocabulary holds the features of the texts that are compared.
    sentences
        Sentences of each label.
    features
        Text features of all sentences, shape (n, t).

    Returns
    -------
    ``None`` where the model stores the features of no caption, or of one caption alone.
    """
    known = _known(model)
    if known is None:
        return None
    texts, stored, states = known
    limit = float(np.quantile(left_out_similarity(stored, states), LEFT_OUT_QUANTILE))
    cosines = _unit(features) @ stored.T
    nearest = [(float(row.max()), texts[int(row.argmax())]) for row in cosines]
    found = iter(nearest)
    best = [max((next(found) for _ in group), key=lambda one: one[0]) for group in sentences]
    flat = [sentence for group in sentences for sentence in group]
    far = {s: (s, value, text) for s, (value, text) in zip(flat, nearest, strict=True) if value < limit}
    return Nearness(tuple(value for value, _ in best), tuple(text for _, text in best), tuple(far.values()), limit)


def left_out_similarity(features: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Highest cosine of each text with the texts of other captions: how near the texts of a class are when it is not known.

    Parameters
    ----------
    features
        Of unit length, shape (n, t).
    states
        Which captions a text states, Boolean, shape (n, c).

    Returns
    -------
    Shape (m,), without the texts that share a caption with every other one.
    """
    shared = states.astype(int) @ states.T.astype(int) > 0
    highest = np.where(shared, -np.inf, features @ features.T).max(axis=1)
    return highest[np.isfinite(highest)]


def _known(model: Whisperer) -> tuple[list[str], np.ndarray, np.ndarray] | None:
    """Texts with stored features that the model was trained with, their unit features (n, t), and which captions they state (n, c)."""
    if model.vocabulary is None or "text" in model.towers:
        return None
    captions = list(model.config.labels)
    stated: dict[str, set[int]] = {}
    for i, caption in enumerate(captions):
        for text in (caption, *model.config.wordings.get(caption, ())):
            stated.setdefault(text, set()).add(i)
    texts = [text for text in stated if text in model.vocabulary]
    if len(set().union(*(stated[t] for t in texts))) < 2:
        return None
    states = np.array([[i in stated[t] for i in range(len(captions))] for t in texts])
    return texts, _unit(model.vocabulary.lookup(texts)[0]), states


def _unit(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, dtype=np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True).clip(min=1e-12)
