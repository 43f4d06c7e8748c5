"""Encoders of gene expression: raw counts in, a batch-agnostic embedding out. Arrays only."""

from __future__ import annotations

from spatialwhisperer.models.genes.base import GeneEncoder, gene_encoder_from, load_gene_encoder
from spatialwhisperer.models.genes.pca import PCAEncoder
from spatialwhisperer.models.genes.scvi import SCANVIEncoder, SCVIEncoder

__all__ = ["GeneEncoder", "PCAEncoder", "SCANVIEncoder", "SCVIEncoder", "gene_encoder_from", "load_gene_encoder"]
