"""How far a label lies from every text that a model was trained with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer._messages import listing
from spatialwhisperer.tl._embedding.texts import text_features

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialwhisperer.models.whisperer import Whisperer

LEFT_OUT_QUANTILE = 0.5
"""A label is far where it is less similar to all known texts than half of the texts of a class that is left out are to those of the others."""


@dataclass(frozen=True)
class Nearness:
    """Nearest known text of each label.

    Attributes
    ----------
    labels
        The labels.
    similarity
        Highest cosine of the text features of a label's sentences with those of a known text, by label.
    nearest
        That text, by label.
    limit
        Similarity below which a label is far.
    """

    labels: tuple[str, ...]
    similarity: tuple[float, ...]
    nearest: tuple[str, ...]
    limit: float

    def warning(self) -> str | None:
        """A sentence on the labels that are far; ``None`` where none is."""
        far = [
            f"{name!r} ({value:.2f} to {text!r})"
            for name, value, text in zip(self.labels, self.similarity, self.nearest, strict=True)
            if value < self.limit
        ]
        if not far:
            return None
        return (
            f"The model was trained with no text like {listing(far, 4)}: cosines of text features below {self.limit:.2f}, the median of "
            "classes that are left out. Its scores may mean nothing. Ask in words that it knows (model.config.labels, "
            "model.config.wordings)."
        )


def nearness(
    model: Whisperer, labels: Sequence[str], sentences: Sequence[Sequence[str]], *, device: str | None = None
) -> Nearness | None:
    """How near labels are to the captions and wordings that a model was trained with.

    Parameters
    ----------
    model
        Its vocabulary holds the features of the texts that are compared.
    labels, sentences
        Labels, and the sentences of each.
    device
        Torch device.

    Returns
    -------
    ``None`` where the model stores the features of no caption, or of one caption alone.
    """
    known = _known(model)
    if known is None:
        return None
    texts, features, states = known
    limit = float(np.quantile(left_out_similarity(features, states), LEFT_OUT_QUANTILE))
    flat = [s for group in sentences for s in group]
    cosines = _unit(text_features(model, flat, device=device)) @ features.T
    ends = np.cumsum([len(group) for group in sentences])[:-1]
    best = [part.max(axis=0) for part in np.split(cosines, ends)]
    return Nearness(
        tuple(labels), tuple(float(b.max()) for b in best), tuple(texts[int(b.argmax())] for b in best), limit
    )


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
