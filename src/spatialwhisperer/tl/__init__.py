"""Answers: train a joint space, embed, annotate, query, evaluate."""

from spatialwhisperer.tl.annotate import zero_shot_annotate
from spatialwhisperer.tl.embed import embed
from spatialwhisperer.tl.evaluate import evaluate_annotation
from spatialwhisperer.tl.expression import predict_expression
from spatialwhisperer.tl.query import query
from spatialwhisperer.tl.train import train

__all__ = ["embed", "evaluate_annotation", "predict_expression", "query", "train", "zero_shot_annotate"]
