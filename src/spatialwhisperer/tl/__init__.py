"""Answers: train a joint space, embed, annotate, query, predict expression, classify, find domains, evaluate, say how far to trust it."""

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
from spatialwhisperer.tl.evaluation.expression import evaluate_expression
from spatialwhisperer.tl.evaluation.genes import gene_report, gene_set_enrichment
from spatialwhisperer.tl.expression import predict_expression
from spatialwhisperer.tl.query import query
from spatialwhisperer.tl.train import train
from spatialwhisperer.tl.transitivity import transitivity

__all__ = [
    "abstention_curve",
    "batch_report",
    "calibrate",
    "classify",
    "embed",
    "evaluate_annotation",
    "evaluate_calibration",
    "evaluate_classes",
    "evaluate_domains",
    "evaluate_expression",
    "gene_report",
    "gene_set_enrichment",
    "predict_expression",
    "query",
    "spatial_domains",
    "tissue_darkness",
    "top_labels",
    "train",
    "transitivity",
    "zero_shot_annotate",
]
