"""Pictures: one per answer. Each returns its axes and shows nothing by itself."""

from spatialwhisperer.pl.annotation import annotation, scores
from spatialwhisperer.pl.training import training

__all__ = ["annotation", "scores", "training"]
