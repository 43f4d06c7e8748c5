"""Encoders of gene expression: raw counts in, a batch-agnostic embedding out. Arrays only."""

from __future__ import annotations

from spatialwhisperer.encoders.gene.base import GeneEncoder, gene_encoder_from, load_gene_encoder
from spatialwhisperer.encoders.gene.expression import ExpressionEncoder
from spatialwhisperer.encoders.gene.pca import PCAEncoder
from spatialwhisperer.encoders.gene.scvi import SCANVIEncoder, SCVIEncoder
from spatialwhisperer.encoders.gene.sentence import GeneSentenceEncoder, gene_sentences
from spatialwhisperer.encoders.gene.set_transformer import SetTransformerEncoder

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
