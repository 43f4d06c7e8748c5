"""What a zero-shot annotation is measured against."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer.protocols import her2st_text as words
from spatialwhisperer.statistics.standardize import standardize, statistics
from spatialwhisperer.training.ridge_link import solve_ridge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from spatialwhisperer.models import GeneEncoder, Whisperer

PROBE_PENALTY = 0.003
"""Inverse penalty of the probe's logistic regression: features outnumber the positive spots of most classes."""


def _image(table: AnnData, slot: str) -> np.ndarray:
    x = np.asarray(table.obsm[slot], dtype=np.float32)
    mean, std = statistics(x)
    return standardize(x, how="section", mean=mean, std=std)


def probe(train: Sequence[AnnData], test: AnnData, slot: str) -> pd.DataFrame:
    """Logistic regression from image features to presence, with the labels of the training sections."""
    from sklearn.linear_model import LogisticRegression

    x = np.concatenate([_image(t, slot) for t in train])
    truths = pd.concat([words.targets(t) for t in train], ignore_index=True)
    out = {}
    for name in truths:
        known = np.asarray(truths[name].notna())
        present = truths[name][known].astype(bool).to_numpy()
        if len(np.unique(present)) == 2:
            model = LogisticRegression(C=PROBE_PENALTY, max_iter=2000).fit(x[known], present)
            out[name] = model.decision_function(_image(test, slot))
    return pd.DataFrame(out)


def two_stage(
    train: Sequence[AnnData],
    test: AnnData,
    texts: Sequence[AnnData],
    encoder: GeneEncoder,
    slot: str,
    *,
    several: bool = False,
) -> pd.DataFrame:
    """Ridge from image features to gene features, then logistic regression from gene features to the captions' classes.

    A class is learnt on the rows with a caption of its kind; with ``several`` a row holds every cell type that is there.
    """
    from sklearn.linear_model import LogisticRegression

    genes = np.concatenate([_genes(t, encoder) for t in texts])
    complete = np.isfinite(genes).all(axis=1)
    mean, std = statistics(genes)
    image, target = _pairs(train, encoder, slot)
    weight, _ = solve_ridge(image, (target - mean) / std)
    predicted = _image(test, slot) @ weight.T
    out = {}
    for name, captions in words.TARGETS.items():
        columns = ["caption_region"]
        if name in words.CELLS:
            columns = [c for c in words.SEVERAL_COLUMNS if c != "caption_region"] if several else ["caption_cells"]
        stated = np.stack([np.concatenate([_column(t, c) for t in texts]) for c in columns], axis=1)
        rows = complete & np.array([any(isinstance(c, str) for c in row) for row in stated])
        present = np.isin(stated[rows].astype(str), captions).any(axis=1)
        model = LogisticRegression(class_weight="balanced", max_iter=2000).fit((genes[rows] - mean) / std, present)
        out[name] = model.decision_function(predicted)
    return pd.DataFrame(out)


def shuffled(
    model: Whisperer, train: Sequence[AnnData], test: AnnData, encoder: GeneEncoder, slot: str, n: int
) -> list[pd.DataFrame]:
    """Scores after linking the image to gene embeddings of random other spots of the same section."""
    from spatialwhisperer.tl._annotation.labels import class_embeddings

    text = class_embeddings(model, list(words.TARGETS.values()))
    parts = [_pairs([t], encoder, slot) for t in train]
    embedded = [(image, model.project("gene", genes)) for image, genes in parts]
    image = np.concatenate([i for i, _ in embedded])
    out = []
    for seed in range(n):
        rng = np.random.default_rng(seed)
        target = np.concatenate([rng.permutation(g) for _, g in embedded])
        weight, _ = solve_ridge(image, target)
        z = _image(test, slot) @ weight.T
        z /= np.linalg.norm(z, axis=1, keepdims=True).clip(min=1e-12)
        out.append(pd.DataFrame(z @ text.T, columns=list(words.TARGETS)))
    return out


def shuffled_closed_form(
    model: Whisperer, train: Sequence[AnnData], test: AnnData, encoder: GeneEncoder, slot: str, n: int
) -> list[pd.DataFrame]:
    """The same for a model in closed form, whose link is chosen and fitted again, penalty included."""
    from spatialwhisperer._access import positions
    from spatialwhisperer.tl.annotate import class_embeddings
    from spatialwhisperer.training.closed_form import set_image_link

    text = class_embeddings(model, list(words.TARGETS.values()))
    parts = [_pairs([t], encoder, slot) for t in train]
    image = np.concatenate([i for i, _ in parts])
    genes = [model.standardized("gene", g) for _, g in parts]
    share = sw.models.get_preset("whisperer").sequential.neighbour_share
    out = []
    for seed in range(n):
        rng = np.random.default_rng(seed)
        weight, _ = solve_ridge(image, np.concatenate([rng.permutation(g) for g in genes]))
        null = deepcopy(model)
        set_image_link(null, weight, neighbour_share=share)
        z = null.project("image", test.obsm[slot], positions=positions(test))
        out.append(pd.DataFrame(z @ text.T, columns=list(words.TARGETS)))
    return out


def _pairs(train: Sequence[AnnData], encoder: GeneEncoder, slot: str) -> tuple[np.ndarray, np.ndarray]:
    image = np.concatenate([_image(t, slot) for t in train])
    genes = np.concatenate([_genes(t, encoder) for t in train])
    complete = np.isfinite(image).all(axis=1) & np.isfinite(genes).all(axis=1)
    return image[complete], genes[complete]


def _genes(table: AnnData, encoder: GeneEncoder) -> Any:
    return sw.pp.embed_genes(table, encoder, inplace=False)


def _column(table: AnnData, column: str) -> np.ndarray:
    return table.obs[column].astype(object).to_numpy() if column in table.obs else np.full(table.n_obs, None, object)
