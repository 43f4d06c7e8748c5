"""Simulated image–gene–text worlds in which it is known whether images depend on genes by a linear map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from spatialwhisperer.encoders.recipe import FeatureRecipe
from spatialwhisperer.models.configuration.model import HeadConfig, ModalityConfig, ModelConfig
from spatialwhisperer.models.joint_space import JointSpace
from spatialwhisperer.statistics.standardize import standardize
from spatialwhisperer.training.batches import Items

if TYPE_CHECKING:
    from numpy.random import Generator

FACTORS, PROGRAMMES, GENES, IMAGES, CAPTIONS = 8, 8, 20, 60, 10
"""Hidden factors and programmes of a row, and dimensions of its gene features, its image features and of the captions."""

INTERACTION = 0.5
"""Weight of the products of factors in a non-linear world."""

TEST_PATIENTS, TEST_ROWS = 6, 500
TEXT_ROWS, TEXT_PATIENTS = 4000, 4
TRUE = 0.75
"""A caption is true of the rows whose value lies above this quantile of their patient."""

GENE_NOISE, IMAGE_NOISE, PATIENT_SD = 0.7, 1.0, 0.5


@dataclass(frozen=True)
class World:
    """How images, genes and captions follow from the hidden factors of a row.

    Attributes
    ----------
    images
        Linear map of the factors to image features, shape (IMAGES, FACTORS).
    first, second
        Directions of the factors, shape (PROGRAMMES, FACTORS).
    genes, captions
        Linear maps of the programmes, shapes (GENES, PROGRAMMES) and (CAPTIONS, PROGRAMMES).
    interaction
        Weight of the products of factors in a programme; 0 makes a linear world.
    """

    images: np.ndarray
    first: np.ndarray
    second: np.ndarray
    genes: np.ndarray
    captions: np.ndarray
    interaction: float

    def programmes(self, factors: np.ndarray) -> np.ndarray:
        """Programmes of expression, of about unit variance: a direction of the factors, and its product with another one."""
        a, b = factors @ self.first.T, factors @ self.second.T
        return np.asarray((a + self.interaction * a * b) / np.sqrt(1 + self.interaction**2))


@dataclass(frozen=True)
class Rows:
    """Rows of some patients: standardised gene features, standardised image features, captions (Boolean) and patients."""

    gene: np.ndarray
    image: np.ndarray
    holds: np.ndarray
    patient: np.ndarray


def make_world(seed: int, *, linear: bool) -> World:
    """Draw a world."""
    rng = np.random.default_rng([seed, 0])

    def draw(n_out: int, n_in: int) -> np.ndarray:
        return np.asarray(rng.normal(size=(n_out, n_in)) / np.sqrt(n_in))

    return World(
        images=draw(IMAGES, FACTORS),
        first=draw(PROGRAMMES, FACTORS),
        second=draw(PROGRAMMES, FACTORS),
        genes=draw(GENES, PROGRAMMES),
        captions=draw(CAPTIONS, PROGRAMMES),
        interaction=0.0 if linear else INTERACTION,
    )


def draw_rows(world: World, n: int, n_patients: int, rng: Generator, prefix: str) -> Rows:
    """Draw rows of patients, each of whom has own mixtures of factors and own noise of the image features."""
    patient = np.arange(n) * n_patients // n
    tissue = rng.normal(scale=PATIENT_SD, size=(n_patients, FACTORS))
    factors = rng.normal(size=(n, FACTORS)) + tissue[patient]
    programmes = world.programmes(factors)
    gene = programmes @ world.genes.T + GENE_NOISE * rng.normal(size=(n, GENES))
    stain = rng.normal(scale=PATIENT_SD, size=(n_patients, IMAGES))
    image = factors @ world.images.T + IMAGE_NOISE * rng.normal(size=(n, IMAGES)) + stain[patient]
    value = programmes @ world.captions.T
    names = np.array([f"{prefix}{p}" for p in range(n_patients)])[patient]
    holds = np.zeros((n, CAPTIONS), bool)
    for p in range(n_patients):
        inside = patient == p
        holds[inside] = value[inside] > np.quantile(value[inside], TRUE, axis=0)
    return Rows(_z(gene, names), _z(image, names), holds, names)


def _z(x: np.ndarray, patient: np.ndarray) -> np.ndarray:
    mean, std = np.zeros(x.shape[1], np.float32), np.ones(x.shape[1], np.float32)
    return standardize(x.astype(np.float32), how="section", mean=mean, std=std, sections=patient)


def training_items(world: World, n_pairs: int, n_patients: int, seed: int) -> tuple[Items, Rows]:
    """Items of image–gene pairs of some patients and of captioned rows of others, and rows of test patients."""
    rng = np.random.default_rng([seed, 1])
    pairs = draw_rows(world, n_pairs, n_patients, rng, "P")
    texts = draw_rows(world, TEXT_ROWS, TEXT_PATIENTS, rng, "T")
    test = draw_rows(world, TEST_PATIENTS * TEST_ROWS, TEST_PATIENTS, rng, "N")
    row, caption = np.nonzero(texts.holds)
    inputs = {
        "image": pairs.image,
        "gene": np.concatenate([pairs.gene, texts.gene]),
        "text": np.eye(CAPTIONS, dtype=np.float32),
    }
    none = np.full(len(row), -1)
    index = {
        "image": np.concatenate([np.arange(n_pairs), none]),
        "gene": np.concatenate([np.arange(n_pairs), n_pairs + row]),
        "text": np.concatenate([np.full(n_pairs, -1), caption]),
    }
    group = np.concatenate([pairs.patient, texts.patient[row]])
    return Items(inputs, index, index["gene"].copy(), group), test


def empty_space() -> JointSpace:
    """An untrained joint space of the dimensions of a world."""
    widths = {"image": IMAGES, "gene": GENES, "text": CAPTIONS}
    modalities = {
        name: ModalityConfig(FeatureRecipe(None, name), width, HeadConfig("linear", width))
        for name, width in widths.items()
    }
    with torch.random.fork_rng():
        return JointSpace(ModelConfig(GENES + 1, modalities))
