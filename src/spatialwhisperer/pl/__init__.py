"""Pictures: one per answer. Each returns its axes and shows nothing by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spatialwhisperer._lazy import lazy_namespace

if TYPE_CHECKING:
    from spatialwhisperer.pl.agreement import agreement
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

_PLACES = {
    "agreement": "pl.agreement",
    "annotation": "pl.annotation",
    "batches": "pl.batches",
    "confusion": "pl.confusion",
    "domains": "pl.domains",
    "expression": "pl.expression",
    "gene_ranking": "pl.expression",
    "reliability": "pl.reliability",
    "roc": "pl.roc",
    "scores": "pl.annotation",
    "top_tiles": "pl.top_tiles",
    "training": "pl.training",
    "transitivity": "pl.transitivity",
}

__all__ = lazy_namespace(__name__, _PLACES)
