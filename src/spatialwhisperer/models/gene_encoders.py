"""Encoders of gene expression: raw counts in, a batch-agnostic embedding out. Arrays only."""

from __future__ import annotations

from spatialwhisperer.models.genes.base import GeneEncoder, gene_encoder_from, load_gene_encoder
from spatialwhisperer.models.genes.expression import ExpressionEncoder
from spatialwhisperer.models.genes.pca import PCAEncoder
from spatialwhisperer.models.genes.scvi import SCANVIEncoder, SCVIEncoder
from spatialwhisperer.models.genes.sentence import GeneSentenceEncoder, gene_sentences
from spatialwhisperer.models.genes.set_transformer import SetTransformerEncoder

__all__ = [
    "ExpressionEncoder",
    "GeneEncoder",
    "GeneSentenceEncoder",
    "PCAEncoder",
    "SCANVIEncoder",
    "SCVIEncoder",
    "SetTransformerEncoder",
    "gene_encoder_from",
    "gene_sentences",
    "load_gene_encoder",
]
