"""Small models with random heads, and rows for them."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch

from spatialwhisperer.encoders.recipe import EncoderIdentity, FeatureRecipe
from spatialwhisperer.encoders.spec import EncoderSpec
from spatialwhisperer.encoders.text.base import TextEncoder
from spatialwhisperer.models.configuration.model import HeadConfig, ModalityConfig, ModelConfig
from spatialwhisperer.models.whisperer import Whisperer


class LetterCounts(TextEncoder):
    """How often each of six letters occurs in a text; remembers what it was asked for."""

    spec = EncoderSpec("letters", "text", 6)

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, inputs: Any, *, batch_size: int | None = None, device: str | None = None) -> np.ndarray:  # noqa: ARG002
        self.asked += inputs
        return np.array([[text.count(c) for c in "abcdef"] for text in inputs], np.float32)


def modality(recipe: FeatureRecipe, dim: int, **values: Any) -> ModalityConfig:
    return ModalityConfig(recipe, dim, HeadConfig("linear", dim), **values)


@pytest.fixture
def letters() -> LetterCounts:
    return LetterCounts()


@pytest.fixture
def given(letters: LetterCounts) -> Whisperer:
    """A model of features that lie in ``.obsm``, and of texts."""
    torch.manual_seed(0)
    modalities = {
        "image": modality(FeatureRecipe(None, "X_tiles"), 4),
        "gene": modality(FeatureRecipe(None, "X_genes"), 5),
        "text": modality(FeatureRecipe(EncoderIdentity("letters", digest="0")), 6),
    }
    return Whisperer(ModelConfig(3, modalities), encoders={"text": letters})


@pytest.fixture
def rows() -> ad.AnnData:
    """Eight rows with both kinds of features, the third without a tile."""
    rng = np.random.default_rng(0)
    adata = ad.AnnData(np.zeros((8, 0), np.float32), obs=pd.DataFrame(index=[f"r{i}" for i in range(8)]))
    adata.obsm["X_tiles"] = rng.normal(size=(8, 4)).astype(np.float32)
    adata.obsm["X_genes"] = rng.normal(size=(8, 5)).astype(np.float32)
    adata.obsm["X_tiles"][2] = np.nan
    return adata
