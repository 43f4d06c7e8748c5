"""What a zero-shot annotation is compared with: a supervised probe, the route through expression, and null distributions."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer._access.slide import Slide
from spatialwhisperer.protocols import captions
from spatialwhisperer.statistics.intervals.auroc import auroc
from spatialwhisperer.statistics.left_out import left_out_units
from spatialwhisperer.statistics.standardize import standardize, statistics
from spatialwhisperer.tl.evaluation.baselines import DARKNESS
from spatialwhisperer.training.closed_form import install_image_link
from spatialwhisperer.training.ridge_link import solve_ridge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from spatialwhisperer.models import GeneEncoder, Whisperer

PROBE_PENALTY = 0.003
"""Inverse penalty of the probe's logistic regression: for most classes there are more features than positive spots."""


def standardised(table: AnnData, key: str, how: str = "section") -> np.ndarray:
    """Image features of a section, float32 (n, d): standardised over its spots, or with "none" as they are."""
    x = np.asarray(table.obsm[key], dtype=np.float32)
    mean, std = statistics(x)
    return standardize(x, how=how, mean=mean, std=std)


def probe(train: Sequence[AnnData], test: AnnData, key: str, how: str = "section") -> pd.DataFrame:
    """Scores of a logistic regression from image features to presence, trained on the labels of the training sections.

    Parameters
    ----------
    train, test
        Tables with image features and labels.
    key
        Key of ``.obsm`` with image features.
    how
        How they are standardised, as :func:`standardised` takes it.
    """
    from sklearn.linear_model import LogisticRegression

    x = np.concatenate([standardised(t, key, how) for t in train])
    truths = pd.concat([captions.targets(t) for t in train], ignore_index=True)
    out = {}
    for name in truths:
        known = np.asarray(truths[name].notna())
        present = truths[name][known].astype(bool).to_numpy()
        if len(np.unique(present)) == 2:
            model = LogisticRegression(C=PROBE_PENALTY, max_iter=2000).fit(x[known], present)
            out[name] = model.decision_function(standardised(test, key, how))
    return pd.DataFrame(out)


def darkness(train: Sequence[AnnData], test: AnnData) -> pd.DataFrame:
    """Scores that are the darkness of the tile alone, with one sign for each class, learnt from the labels of the training sections."""
    truths = [captions.targets(t) for t in train]
    dark = np.asarray(test.obs[DARKNESS], np.float64)
    out = {}
    for name in dict.fromkeys(c for truth in truths for c in truth):
        above = [
            auroc(np.asarray(t.obs[DARKNESS], np.float64)[known], truth[name][known].astype(bool).to_numpy()) - 0.5
            for t, truth in zip(train, truths, strict=True)
            if name in truth
            for known in [np.asarray(truth[name].notna())]
        ]
        out[name] = np.sign(np.mean(above)) * dark
    return pd.DataFrame(out)


def own_probe(test: AnnData, key: str, how: str = "section") -> pd.DataFrame:
    """Scores of the same probe, trained on the labels of the test section itself: a ceiling for these image features.

    Eight blocks of neighbouring spots are left out in turn, and scored by the others.
    """
    from sklearn.linear_model import LogisticRegression

    x, truth = standardised(test, key, how), captions.targets(test)
    one = np.zeros(test.n_obs)
    blocks = left_out_units(one, one, Slide.open(test).positions())
    out = {}
    for name in truth:
        known = np.asarray(truth[name].notna())
        present = truth[name].fillna(value=False).astype(bool).to_numpy()
        scores = np.full(test.n_obs, np.nan)
        for block in np.unique(blocks):
            fit, left = known & (blocks != block), blocks == block
            if len(np.unique(present[fit])) == 2:
                model = LogisticRegression(C=PROBE_PENALTY, max_iter=2000).fit(x[fit], present[fit])
                scores[left] = model.decision_function(x[left])
        out[name] = scores
    return pd.DataFrame(out)


def two_stage(
    train: Sequence[AnnData],
    test: AnnData,
    texts: Sequence[AnnData],
    encoder: GeneEncoder,
    key: str,
    *,
    several: bool = False,
    how: str = "section",
) -> pd.DataFrame:
    """Scores of a ridge regression from image to gene features, and a logistic regression from gene features to classes.

    Parameters
    ----------
    train, test
        Tables with image features and counts.
    texts
        Tables with counts and captions. A class is trained on the rows that have a caption of its kind.
    encoder
        Gene encoder.
    key
        Key of ``.obsm`` with image features.
    several
        Train on all cell types that are present in a row, instead of the one with the largest proportion.
    how
        How image features are standardised, as :func:`standardised` takes it.
    """
    from sklearn.linear_model import LogisticRegression

    genes = np.concatenate([_genes(t, encoder) for t in texts])
    complete = np.isfinite(genes).all(axis=1)
    mean, std = statistics(genes)
    image, target, units = _pairs(train, encoder, key, how)
    weight, _ = solve_ridge(image, (target - mean) / std, units)
    predicted = standardised(test, key, how) @ weight.T
    out = {}
    for name, descriptions in captions.TARGETS.items():
        columns = _columns(name, several=several)
        stated = np.stack([np.concatenate([_column(t, c) for t in texts]) for c in columns], axis=1)
        rows = complete & np.array([any(isinstance(c, str) for c in row) for row in stated])
        present = np.isin(stated[rows].astype(str), descriptions).any(axis=1)
        model = LogisticRegression(class_weight="balanced", max_iter=2000).fit((genes[rows] - mean) / std, present)
        out[name] = model.decision_function(predicted)
    return pd.DataFrame(out)


def shuffled(
    model: Whisperer, train: Sequence[AnnData], test: AnnData, encoder: GeneEncoder, key: str, n: int
) -> list[pd.DataFrame]:
    """Null distribution of a model with a ridge link: the image is linked to gene embeddings of other spots of its section.

    Parameters
    ----------
    model
        The model.
    train, test
        Tables with image features and counts.
    encoder
        Gene encoder of the model.
    key
        Key of ``.obsm`` with image features.
    n
        Number of shufflings.

    Returns
    -------
    Scores of the test section, one frame for each shuffling.
    """
    text = target_embeddings(model)
    image, units, genes = _each_section(train, encoder, key)
    embedded = [model.project("gene", g) for g in genes]
    out = []
    for seed in range(n):
        rng = np.random.default_rng(seed)
        weight, _ = solve_ridge(image, np.concatenate([rng.permutation(g) for g in embedded]), units)
        z = standardised(test, key) @ weight.T
        z /= np.linalg.norm(z, axis=1, keepdims=True).clip(min=1e-12)
        out.append(pd.DataFrame(z @ text.T, columns=list(captions.TARGETS)))
    return out


def shuffled_closed_form(
    model: Whisperer, train: Sequence[AnnData], test: AnnData, encoder: GeneEncoder, key: str, n: int
) -> list[pd.DataFrame]:
    """The same for a model in closed form; its link is fitted again with the penalty that suits the shuffled pairs."""
    recipe = sw.models.get_preset("whisperer").sequential
    if recipe is None:
        raise ValueError("The preset 'whisperer' has no sequential schedule.")
    text = target_embeddings(model)
    image, units, parts = _each_section(train, encoder, key)
    genes = [model.standardized("gene", g) for g in parts]
    out = []
    for seed in range(n):
        rng = np.random.default_rng(seed)
        weight, _ = solve_ridge(image, np.concatenate([rng.permutation(g) for g in genes]), units)
        null = deepcopy(model)
        install_image_link(null, weight, neighbour_weight=recipe.neighbour_weight)
        z = null.project("image", test.obsm[key], positions=Slide.open(test).positions())
        out.append(pd.DataFrame(z @ text.T, columns=list(captions.TARGETS)))
    return out


def target_embeddings(model: Whisperer) -> np.ndarray:
    """Unit embedding of every class that is scored, the mean over its descriptions; shape (classes, u)."""
    groups = list(captions.TARGETS.values())
    z = model.project("text", sw.pp.embed_texts([d for group in groups for d in group]))
    ends = np.cumsum([len(group) for group in groups])
    means = np.stack([part.mean(axis=0) for part in np.split(z, ends[:-1])])
    return means / np.linalg.norm(means, axis=1, keepdims=True).clip(min=1e-12)


def _each_section(
    train: Sequence[AnnData], encoder: GeneEncoder, key: str
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Image features and units of all rows, as `_pairs` returns them, and the gene features of each section."""
    image, _, units = _pairs(train, encoder, key)
    return image, units, [_pairs([t], encoder, key)[1] for t in train]


def _pairs(
    train: Sequence[AnnData], encoder: GeneEncoder, key: str, how: str = "section"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image and gene features of the rows that have both, and the unit of each that is left out when a penalty is chosen."""
    image = np.concatenate([standardised(t, key, how) for t in train])
    genes = np.concatenate([_genes(t, encoder) for t in train])
    complete = np.isfinite(image).all(axis=1) & np.isfinite(genes).all(axis=1)
    section = np.repeat(np.arange(len(train)), [t.n_obs for t in train])
    patient = np.concatenate([t.obs["patient"].astype(str).to_numpy() for t in train])
    xy = np.concatenate([Slide.open(t).positions() for t in train])
    units = left_out_units(patient[complete], section[complete], xy[complete])
    return image[complete], genes[complete], units


def _genes(table: AnnData, encoder: GeneEncoder) -> np.ndarray:
    features = sw.pp.embed_genes(table, encoder, inplace=False)
    if features is None:
        raise TypeError("embed_genes(inplace=False) returns the features.")
    return features


def _columns(name: str, *, several: bool) -> list[str]:
    """Columns with captions of the kind of a class."""
    if name not in captions.CELLS:
        return ["caption_region"]
    return [c for c in captions.SEVERAL_COLUMNS if c != "caption_region"] if several else ["caption_cells"]


def _column(table: AnnData, column: str) -> np.ndarray:
    return table.obs[column].astype(object).to_numpy() if column in table.obs else np.full(table.n_obs, None, object)
