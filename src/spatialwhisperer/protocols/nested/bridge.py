"""A model whose link from image to expression is solved again, for other image features or shuffled pairs; all else stays as it is."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer._access.slide import Slide
from spatialwhisperer.protocols import captions
from spatialwhisperer.protocols.annotation.methods import TRAINED
from spatialwhisperer.protocols.annotation.references import target_embeddings
from spatialwhisperer.protocols.nested.folds import units_of
from spatialwhisperer.training.closed_form import install_image_link
from spatialwhisperer.training.ridge_link import solve_ridge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from spatialwhisperer.models import GeneEncoder, Whisperer
    from spatialwhisperer.protocols.nested.candidates import Candidate

CLOSED = TRAINED["whisperer"]


@dataclass(frozen=True)
class Bridge:
    """What the image is linked to.

    Attributes
    ----------
    model
        A model that is trained on the sections.
    train
        The sections, with standardised image features.
    genes
        Standardised gene features of each section, shape (n, g).
    text
        Unit embedding of each class, shape (classes, u).
    """

    model: Whisperer
    train: Sequence[AnnData]
    genes: Sequence[np.ndarray]
    text: np.ndarray

    def link(self, features: str, genes: Sequence[np.ndarray] | None = None) -> np.ndarray:
        """Weights (g, d) of the ridge regression from image features to gene features, or to others in their place."""
        image = np.concatenate([t.obsm[features] for t in self.train])
        target = np.concatenate(self.genes if genes is None else genes)
        units = np.concatenate(units_of(self.train))
        known = np.isfinite(image).all(axis=1) & np.isfinite(target).all(axis=1)
        return solve_ridge(image[known], target[known], units[known])[0]

    def shuffled(self, features: str, seed: int) -> np.ndarray:
        """The same weights for gene features of other spots of the same section."""
        rng = np.random.default_rng(seed)
        return self.link(features, [rng.permutation(g) for g in self.genes])

    def scores(self, weight: np.ndarray, test: AnnData, candidate: Candidate) -> pd.DataFrame:
        """Scores of the classes in a section, by a link to its image features."""
        linked = deepcopy(self.model)
        linked.config = linked.config.with_modality("image", feature_dim=weight.shape[1])
        install_image_link(linked, weight, neighbour_weight=candidate.neighbours)
        z = linked.project("image", test.obsm[candidate.features], positions=Slide.open(test).positions())
        return pd.DataFrame(z @ self.text.T, columns=list(captions.TARGETS))


def train_bridge(
    train: Sequence[AnnData], texts: Sequence[AnnData], encoder: GeneEncoder, candidate: Candidate
) -> Bridge:
    """Train a candidate on sections whose image features are standardised by their own statistics.

    Parameters
    ----------
    train
        The sections.
    texts
        Tables with counts and captions.
    encoder
        Gene encoder.
    candidate
        The recipe of the model.
    """
    standardize = {"image": "none", "gene": "global", "text": "none"}
    preset = CLOSED.preset.replace(standardize=standardize, neighbour_weight=candidate.neighbours)
    method = replace(CLOSED, preset=preset)
    model = method.train([*train, *texts], encoder, candidate.features, random_state=0)
    genes = [model.standardized("gene", np.asarray(sw.pp.embed_genes(t, encoder, inplace=False))) for t in train]
    return Bridge(model, train, genes, target_embeddings(model))


def candidate_scores(
    bridge: Bridge, tests: Sequence[AnnData], candidates: Sequence[Candidate]
) -> dict[str, list[pd.DataFrame]]:
    """Scores of each section by each candidate; a link is solved once for all candidates with its image features."""
    links: dict[str, np.ndarray] = {}
    out = {}
    for candidate in candidates:
        if candidate.features not in links:
            links[candidate.features] = bridge.link(candidate.features)
        out[candidate.name] = [bridge.scores(links[candidate.features], t, candidate) for t in tests]
    return out
