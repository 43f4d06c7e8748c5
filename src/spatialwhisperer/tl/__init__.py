"""Tools: train a joint space, embed, annotate, query, predict expression, classify, find domains, and evaluate the results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spatialwhisperer._lazy import lazy_namespace

if TYPE_CHECKING:
    from spatialwhisperer.pp.features.options import GeneFeatures, ImageFeatures, TextFeatures
    from spatialwhisperer.tl._annotation.rollup import Hierarchy
    from spatialwhisperer.tl._tissue.neighbours import Smoothing
    from spatialwhisperer.tl._training.options import ExpressionOptions
    from spatialwhisperer.tl.agreement import agreement
    from spatialwhisperer.tl.annotate import zero_shot_annotate
    from spatialwhisperer.tl.calibrate import calibrate
    from spatialwhisperer.tl.classify import classify
    from spatialwhisperer.tl.domains import spatial_domains
    from spatialwhisperer.tl.embed import embed
    from spatialwhisperer.tl.evaluation.annotation import evaluate_annotation
    from spatialwhisperer.tl.evaluation.baselines import tissue_darkness
    from spatialwhisperer.tl.evaluation.batches import batch_report
    from spatialwhisperer.tl.evaluation.calibration import abstention_curve, evaluate_calibration, top_labels
    from spatialwhisperer.tl.evaluation.classes import evaluate_classes
    from spatialwhisperer.tl.evaluation.domains import evaluate_domains
    from spatialwhisperer.tl.evaluation.errors import evaluate_errors
    from spatialwhisperer.tl.evaluation.expression import evaluate_expression
    from spatialwhisperer.tl.evaluation.genes import gene_report, gene_set_enrichment
    from spatialwhisperer.tl.evaluation.retrieval import evaluate_retrieval
    from spatialwhisperer.tl.evidence import evidence
    from spatialwhisperer.tl.expression import predict_expression
    from spatialwhisperer.tl.query import query
    from spatialwhisperer.tl.tissue_range import tissue_range
    from spatialwhisperer.tl.train import train
    from spatialwhisperer.tl.transitivity import transitivity

_PLACES = {
    "ExpressionOptions": "tl._training.options",
    "GeneFeatures": "pp.features.options",
    "Hierarchy": "tl._annotation.rollup",
    "ImageFeatures": "pp.features.options",
    "Smoothing": "tl._tissue.neighbours",
    "TextFeatures": "pp.features.options",
    "abstention_curve": "tl.evaluation.calibration",
    "agreement": "tl.agreement",
    "batch_report": "tl.evaluation.batches",
    "calibrate": "tl.calibrate",
    "classify": "tl.classify",
    "embed": "tl.embed",
    "evaluate_annotation": "tl.evaluation.annotation",
    "evaluate_calibration": "tl.evaluation.calibration",
    "evaluate_classes": "tl.evaluation.classes",
    "evaluate_domains": "tl.evaluation.domains",
    "evaluate_errors": "tl.evaluation.errors",
    "evaluate_expression": "tl.evaluation.expression",
    "evidence": "tl.evidence",
    "evaluate_retrieval": "tl.evaluation.retrieval",
    "gene_report": "tl.evaluation.genes",
    "gene_set_enrichment": "tl.evaluation.genes",
    "predict_expression": "tl.expression",
    "query": "tl.query",
    "spatial_domains": "tl.domains",
    "tissue_darkness": "tl.evaluation.baselines",
    "tissue_range": "tl.tissue_range",
    "top_labels": "tl.evaluation.calibration",
    "train": "tl.train",
    "transitivity": "tl.transitivity",
    "zero_shot_annotate": "tl.annotate",
}

__all__ = lazy_namespace(__name__, _PLACES)
