"""Preprocessing: where tiles and nuclei are, which genes to use, and features of images, counts and texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spatialwhisperer._lazy import lazy_namespace

if TYPE_CHECKING:
    from spatialwhisperer.pp.corpus.build import build_corpus
    from spatialwhisperer.pp.corpus.captions import caption_metadata
    from spatialwhisperer.pp.corpus.sources import CorpusSource
    from spatialwhisperer.pp.correction import harmonize_expression
    from spatialwhisperer.pp.gene_selection import select_genes
    from spatialwhisperer.pp.genes import embed_genes, fit_gene_encoder
    from spatialwhisperer.pp.images import embed_images
    from spatialwhisperer.pp.nuclei import nuclei
    from spatialwhisperer.pp.texts import embed_texts
    from spatialwhisperer.pp.tiles import tiles

_PLACES = {
    "CorpusSource": "pp.corpus.sources",
    "build_corpus": "pp.corpus.build",
    "caption_metadata": "pp.corpus.captions",
    "embed_genes": "pp.genes",
    "embed_images": "pp.images",
    "embed_texts": "pp.texts",
    "fit_gene_encoder": "pp.genes",
    "harmonize_expression": "pp.correction",
    "nuclei": "pp.nuclei",
    "select_genes": "pp.gene_selection",
    "tiles": "pp.tiles",
}

__all__ = lazy_namespace(__name__, _PLACES)
