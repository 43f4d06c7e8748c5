"""Pictures: one per answer. Each returns its axes and shows nothing by itself."""

from spatialwhisperer.pl.annotation import annotation, scores
from spatialwhisperer.pl.batches import batches
from spatialwhisperer.pl.confusion import confusion
from spatialwhisperer.pl.domains import domains
from spatialwhisperer.pl.expression import expression, gene_ranking
from spatialwhisperer.pl.reliability import reliability
from spatialwhisperer.pl.roc import roc
from spatialwhisperer.pl.top_tiles import top_tiles
from spatialwhisperer.pl.training import training
from spatialwhisperer.pl.transitivity import transitivity

__all__ = [
    "annotation",
    "batches",
    "confusion",
    "domains",
    "expression",
    "gene_ranking",
    "reliability",
    "roc",
    "scores",
    "top_tiles",
    "training",
    "transitivity",
]
