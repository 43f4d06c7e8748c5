"""Preparation: where to look, and features of images, counts and texts."""

from spatialwhisperer.pp.correction import harmonize_expression
from spatialwhisperer.pp.gene_selection import select_genes
from spatialwhisperer.pp.genes import embed_genes, fit_gene_encoder
from spatialwhisperer.pp.images import embed_images
from spatialwhisperer.pp.texts import embed_texts
from spatialwhisperer.pp.tiles import tiles

__all__ = [
    "embed_genes",
    "embed_images",
    "embed_texts",
    "fit_gene_encoder",
    "harmonize_expression",
    "select_genes",
    "tiles",
]
