"""Texts in the joint space: with the stored features of the model's vocabulary, else with its text encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer._checks.texts import plain_text
from spatialwhisperer._messages import listing
from spatialwhisperer.encoders.outputs import encoded
from spatialwhisperer.encoders.text.base import TextEncoder, check_texts
from spatialwhisperer.networks.negations import prior_odds
from spatialwhisperer.tl._embedding.models import encoder_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialwhisperer.models.whisperer import Whisperer


def embed_texts(model: Whisperer, texts: Sequence[str], *, device: str | None = None) -> np.ndarray:
    """Unit embeddings of texts in the joint space, shape (n, u).

    Texts of the model's vocabulary need no text encoder; the features of other texts are computed with it.

    Raises
    ------
    KeyError
        If the model reads no text.
    ImportError, FileNotFoundError
        If a text is not in the vocabulary and the text encoder is not installed, or its weights are not available.
    """
    if "text" not in model.modalities:
        raise KeyError(f"This model reads no text (it has: {listing(model.modalities)}).")
    texts = [plain_text(text) for text in check_texts(texts)]
    if "text" in model.towers:
        return model.project("text", texts, device=device)
    return project_texts(model, texts, text_features(model, texts, device=device), device=device)[0]


def project_texts(
    model: Whisperer, texts: Sequence[str], features: np.ndarray, *, device: str | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Unit embeddings of texts from their features, and which of them are read as negations.

    The text head sees features alone, and takes each text for one that hardly ever negates. A text that begins like a negation is read
    at even odds.

    Returns
    -------
    The embeddings, shape (n, u), and a Boolean array of shape (n,); ``None`` in its place for a head that knows no negations.
    """
    import torch

    from spatialwhisperer.networks.heads import SignedLinear

    z = model.project("text", features, device=device)
    head = model.heads["text"]
    if not isinstance(head, SignedLinear):
        return z, None
    x = torch.from_numpy(model.contextual("text", features)).to(head.sign.weight.device)
    with torch.inference_mode():
        by_head, logit = head.factor(x)[:, 0].cpu().numpy() < 0, head.sign(x)[:, 0].cpu().numpy()
    negates = logit + np.log(prior_odds(texts)) < 0
    return np.where((by_head != negates)[:, None], -z, z), negates


def text_features(model: Whisperer, texts: Sequence[str], *, device: str | None = None) -> np.ndarray:
    """Features of texts, before the text head, shape (n, d): stored ones, else those of the model's frozen text encoder.

    Raises
    ------
    ImportError, FileNotFoundError
        If a text is not in the vocabulary and the text encoder is not installed, or its weights are not available.
    """
    # as captions are read in training
    texts = [plain_text(text) for text in texts]
    if model.vocabulary is None:
        return _encoded(model, texts, device)
    features, missing = model.vocabulary.lookup(texts)
    if missing:
        row = dict(zip(missing, _encoded(model, missing, device), strict=True))
        for i, text in enumerate(texts):
            if text in row:
                features[i] = row[text]
    return features


def _encoded(model: Whisperer, texts: list[str], device: str | None) -> np.ndarray:
    """Features of texts from the model's text encoder; where it is not available, the error names the texts that need none."""
    try:
        encoder = encoder_of(model, "text")
        if not isinstance(encoder, TextEncoder):
            raise TypeError(f"The text encoder of this model is a {type(encoder).__name__}, not a TextEncoder.")
        return encoded(encoder, texts, device=device)
    except (ImportError, FileNotFoundError) as error:
        kind = ImportError if isinstance(error, ImportError) else FileNotFoundError
        raise kind(_unknown_texts(model, texts, str(error))) from error


def _unknown_texts(model: Whisperer, texts: list[str], why: str) -> str:
    vocabulary = model.vocabulary
    if vocabulary is None:
        known = "This model stores no texts of its own. "
    else:
        near = {t: [repr(n) for n in vocabulary.nearest(t)] for t in texts[:4]}
        like = "; ".join(f"nearest to {t!r}: {', '.join(n)}" for t, n in near.items() if n)
        known = f"Without it the model knows {listing([repr(k) for k in vocabulary.labels], 20)} and {len(vocabulary.texts)} texts "
        known += f"(model.vocabulary.texts){'; ' + like if like else ''}. "
    return f"The text encoder is needed for {listing([repr(t) for t in texts], 6)}, and cannot be used. {known}{why}"
