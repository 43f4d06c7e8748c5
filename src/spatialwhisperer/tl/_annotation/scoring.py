"""Scores of rows for labels: cosines, the background that is subtracted from them, and the probabilities that follow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
import scipy.sparse as sp

from spatialwhisperer._access.columns import column
from spatialwhisperer._compute.blocks import blocks, each
from spatialwhisperer._messages import listing
from spatialwhisperer._modalities import get_modality
from spatialwhisperer.statistics.calibration import positive_temperature

if TYPE_CHECKING:
    from anndata import AnnData

    from spatialwhisperer.models.whisperer import Whisperer

_NUMBERS = 2**21
"""Most numbers of a block of embeddings or of scores that is computed at a time."""

_FEW = 16
"""Most labels of a row that are found one after the other; more are sorted."""

Normalize = Literal["none", "softmax", "centre"]


class Correction(NamedTuple):
    """How cosines are corrected, and the temperature that turns the result into probabilities.

    Attributes
    ----------
    normalize
        "none", "softmax" or "centre".
    background
        What "centre" subtracts: "section", "training" or "given"; ``None`` for the others.
    mean
        Mean embedding of the background, shape (u,); ``None`` where it is the section's own.
    temperature
        What scores are divided by before a softmax.
    calibrated
        Whether the temperature was fitted for this correction, or is that of the training.
    empty
        Rows that show no tissue, and have no part in means over a section, Boolean, shape (n,); ``None`` where that is not known.
    """

    normalize: str
    background: str | None
    mean: np.ndarray | None
    temperature: float
    calibrated: bool
    empty: np.ndarray | None = None


def choose_correction(model: Whisperer, normalize: str | None, background: Any, *, modality: str | None) -> Correction:
    """The correction that the caller asks for; what is left open is that of the model's calibration for this modality.

    Raises
    ------
    ValueError, TypeError, KeyError
        If the normalisation or the background is unknown, or a background is given that the normalisation does not use.
    """
    known = model.config.annotation
    if known is not None and known.modality not in (None, modality):
        known = None
    if normalize is None:
        normalize = "none" if known is None else known.normalize
    if normalize not in get_args(Normalize):
        raise ValueError(f"normalize must be 'none', 'softmax' or 'centre', not {normalize!r}.")
    name = mean = None
    if normalize == "centre":
        own = known.background or "section" if known is not None and known.normalize == "centre" else None
        name, mean = _background(model, (own or "section") if background is None else background, modality)
        fitted = name == own
    else:
        if background is not None:
            raise ValueError(
                f"background is what normalize='centre' subtracts; {normalize!r} does not use it. Leave it out."
            )
        # "none" and "softmax" have the same probabilities
        fitted = known is not None and known.normalize in ("none", "softmax")
    temperature = known.temperature if fitted and known is not None else 1 / model.scale
    return Correction(normalize, name, mean, float(temperature), fitted)


def _background(model: Whisperer, background: Any, modality: str | None) -> tuple[str, np.ndarray | None]:
    """Name and mean embedding of the background."""
    if isinstance(background, str):
        if background not in ("section", "training"):
            raise ValueError(f"background must be 'section', 'training', an array or an AnnData, not {background!r}.")
        return background, None if background == "section" else training_mean(model, modality)
    width = model.config.projection_dim
    if hasattr(background, "obsm"):
        key = get_modality(modality or "image").embedding_key
        if key not in background.obsm:
            raise KeyError(
                f"The background has no .obsm[{key!r}] (found: {listing(background.obsm)}). Run sw.tl.embed(background, "
                "model=model) first, or pass the array itself."
            )
        background = background.obsm[key]
    try:
        z = np.asarray(background, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"background must be 'section', 'training', an array or an AnnData, not {type(background).__name__}."
        ) from error
    if z.ndim != 2 or z.shape[1] != width:
        raise ValueError(f"background must have shape (n, {width}), as the model's embeddings; found {z.shape}.")
    whole = np.isfinite(z).all(axis=1)
    if not whole.any():
        raise ValueError(f"None of the {len(z)} rows of background is finite.")
    return "given", z[whole].mean(axis=0)


def training_mean(model: Whisperer, modality: str | None) -> np.ndarray:
    """Mean embedding of the training rows of a modality, shape (u,).

    Raises
    ------
    ValueError
        If the model does not store it.
    """
    name = f"mean_{modality}"
    reference = model.reference
    if reference is None or not reference.has(name):
        why = (
            "has no sample of training tissue"
            if reference is None
            else f"has no {modality} embeddings of training tissue"
        )
        raise ValueError(
            f"background='training' needs a model with a sample of its training tissue; this one {why}. Train it with "
            "sw.tl.train(…), or pass background='section' or embeddings of your own."
        )
    return np.asarray(reference.arrays[name], dtype=np.float64)


def pooled(z: np.ndarray, groups: np.ndarray | None, empty: np.ndarray | None = None) -> np.ndarray:
    """Rows of a group share the mean of their unit embeddings, scaled back to unit length.

    Rows without an embedding stay NaN; rows without a group, and those that show no tissue (``empty``, Boolean, shape (n,)), keep their
    own embedding. Schaefer et al. (ICML 2026) do not scale the mean back, so that the scores of a group get smaller the more its rows
    differ.
    """
    if groups is None:
        return z
    whole = np.isfinite(z).all(axis=1) if empty is None else np.isfinite(z).all(axis=1) & ~empty
    codes = np.where(whole, pd.factorize(groups)[0], -1)
    rows = np.flatnonzero(codes >= 0)
    if not len(rows):
        return z
    rows = rows[np.argsort(codes[rows], kind="stable")]
    starts = np.flatnonzero(np.r_[True, np.diff(codes[rows]) > 0])
    sums = np.add.reduceat(z[rows].astype(np.float64), starts, axis=0)
    unit = sums / np.linalg.norm(sums, axis=1, keepdims=True).clip(min=1e-12)
    out = z.copy()
    out[rows] = np.repeat(unit, np.diff(np.r_[starts, len(rows)]), axis=0)
    return out


def score_rows(
    z: np.ndarray, text: np.ndarray, *, sections: np.ndarray, correction: Correction
) -> tuple[np.ndarray, np.ndarray]:
    """Scores (n, c) and probabilities (n, c) of unit rows (n, u) for unit labels (c, u); NaN rows stay NaN."""
    import torch

    scores, probability = (np.empty((len(z), len(text)), np.float32) for _ in range(2))
    z, text = (np.ascontiguousarray(x, np.float32) for x in (z, text))
    offsets, code = _offsets(z, text, sections, correction)
    temperature = positive_temperature(correction.temperature)
    columns = torch.from_numpy(text).T
    # each block is written where it belongs, and its softmax follows while it is in the cache; products of fewer rows are slow
    for rows in blocks(len(z), len(text), _NUMBERS):
        part, soft = torch.from_numpy(scores[rows]), torch.from_numpy(probability[rows])
        torch.mm(torch.from_numpy(z[rows]), columns, out=part)
        if offsets is not None:
            part -= torch.from_numpy(offsets[code[rows]])
        torch.softmax(torch.div(part, temperature, out=soft), dim=1, out=soft)
    return (probability if correction.normalize == "softmax" else scores), probability


def of_cosines(correction: Correction) -> Correction:
    """The correction whose scores are cosines: "softmax" stores the probabilities of the same cosines."""
    return correction._replace(normalize="none") if correction.normalize == "softmax" else correction


def _offsets(
    z: np.ndarray, text: np.ndarray, sections: np.ndarray, correction: Correction
) -> tuple[np.ndarray | None, np.ndarray]:
    """What is subtracted from scores, float32 (k, c), and which row of it from each row (n,); ``None`` where nothing is.

    The mean score over the rows of a section is the score of their mean embedding. A section without tissue has none, and nothing is
    subtracted there.
    """
    if correction.normalize != "centre":
        return None, np.zeros(len(z), int)
    if correction.mean is not None:
        return (text.astype(np.float64) @ correction.mean).astype(np.float32)[None], np.zeros(len(z), int)
    code, names = pd.factorize(sections)
    whole = np.isfinite(z).all(axis=1) & (code >= 0)
    if correction.empty is not None:
        whole &= ~correction.empty
    sums = np.zeros((len(names), z.shape[1]))
    for rows in blocks(len(z), z.shape[1], _NUMBERS):
        known = np.flatnonzero(whole[rows]) + rows.start
        of = sp.csr_matrix((np.ones(len(known)), (code[known], np.arange(len(known)))), (len(names), len(known)))
        sums += of @ z[known].astype(np.float64)
    means = sums / np.bincount(code[whole], minlength=len(names)).clip(1)[:, None]
    # the last one is that of rows without a section, whose code is -1
    return np.concatenate([means @ text.T.astype(np.float64), np.zeros((1, len(text)))]).astype(np.float32), code


class Best(NamedTuple):
    """The best label of each row: its code (-1 in rows without scores), its probability, and how far the second is behind."""

    code: np.ndarray
    confidence: np.ndarray
    margin: np.ndarray


def best_labels(probability: np.ndarray, code: np.ndarray | None = None) -> Best:
    """Best label by row, of probabilities of shape (n, c).

    Parameters
    ----------
    probability
        Shape (n, c).
    code
        The label of each row where it was chosen otherwise, shape (n,). Its margin is 0 where another one is more probable.
    """
    n = len(probability)
    best, confidence, margin = np.empty(n, np.int64), np.empty(n, np.float32), np.empty(n, np.float32)

    def fill(rows: slice) -> None:
        part = probability[rows].copy()
        at = np.arange(len(part))
        own = part.argmax(axis=1) if code is None else code[rows]
        first = part[at, own]
        part[at, own] = 0
        second = part.max(axis=1)
        # the maximum of a row with a NaN is NaN
        whole = np.isfinite(first) & np.isfinite(second)
        best[rows] = np.where(whole, own, -1)
        confidence[rows] = np.where(whole, first, np.nan)
        margin[rows] = np.where(whole, (first - second).clip(0), np.nan)

    each(fill, blocks(*probability.shape))
    return Best(best, confidence, margin)


def top_codes(probability: np.ndarray, k: int, first: np.ndarray) -> np.ndarray:
    """Codes of the best labels of each row; int16 of shape (n, k), -1 in rows without scores.

    Parameters
    ----------
    probability
        Shape (n, c).
    k
        Number of labels.
    first
        The label that was chosen, shape (n,); the others follow from the most probable one.
    """
    out = np.empty((len(probability), min(k, probability.shape[1])), np.int16)

    def fill(rows: slice) -> None:
        whole = np.isfinite(probability[rows]).all(axis=1)
        found, left = out[rows], probability[rows].copy()
        at = np.arange(len(found))
        left[at, first[rows]] = np.inf
        if k > _FEW:
            found[:] = np.argsort(-left, axis=1, kind="stable")[:, :k]
        else:
            for rank in range(found.shape[1]):
                found[:, rank] = left.argmax(axis=1)
                left[at, found[:, rank]] = -np.inf
        found[~whole] = -1

    each(fill, blocks(*probability.shape))
    return out


def check_fraction(name: str, value: Any) -> None:
    """Refuse what is not a number between 0 and 1."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value <= 1:
        raise ValueError(f"{name} must be between 0 and 1, not {value!r}.")


def check_groups(table: AnnData, group_key: str | None) -> np.ndarray | None:
    """Group of each row, ``None`` where it is missing.

    Raises
    ------
    KeyError
        If the column does not exist.
    """
    return None if group_key is None else column(table, group_key, "group_key")
