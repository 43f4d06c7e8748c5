"""A small ontology, and a model with a vocabulary of it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from spatialwhisperer.models.ontology import Ontology, Term
from spatialwhisperer.models.vocabulary import Label, Vocabulary

TERMS = [
    Term("CL:0", "cell"),
    Term("CL:1", "leukocyte", ("white blood cell",), ("CL:0",)),
    Term("CL:2", "lymphocyte", (), ("CL:1",)),
    Term("CL:3", "T cell", ("T lymphocyte", "T-cell"), ("CL:2",)),
    Term("CL:4", "B cell", ("B lymphocyte",), ("CL:2",)),
    Term("CL:5", "macrophage", (), ("CL:1",)),
    Term("CL:6", "fat cell", ("adipocyte",), ("CL:0",)),
    Term("CL:7", "hematopoietic cell", (), ("CL:0",)),
    Term("CL:8", "stem cell / progenitor", (), ("CL:7",)),
]
ONTOLOGY = Ontology(TERMS)
LABELS = {
    "T cells": Label(("T lymphocytes", "immune infiltrate"), "CL:3"),
    "B/plasma": Label(("B lymphocytes",), "CL:4"),
    "fat": Label(("fat tissue",), "CL:6"),
    "tumour": Label(("cancer",)),
}
TEXTS = [
    *("T lymphocytes", "immune infiltrate", "B lymphocytes", "fat tissue", "cancer"),
    *("cell", "leukocyte", "lymphocyte", "T cell", "B cell", "macrophage", "fat cell", "T lymphocyte", "adipocyte"),
]


@pytest.fixture(scope="session")
def ontology() -> Ontology:
    return ONTOLOGY


@pytest.fixture(scope="session")
def worded(model: Any) -> Any:
    """The model with a vocabulary. Read only."""
    out = copy.deepcopy(model)
    features = (
        np.random.default_rng(0).normal(size=(len(TEXTS), model.config.modality("text").feature_dim)).astype(np.float32)
    )
    out.vocabulary = Vocabulary(LABELS, TEXTS, features, ONTOLOGY)
    return out
