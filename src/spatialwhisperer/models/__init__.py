"""The model, its presets and the encoder registry. Whatever needs torch is imported when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from spatialwhisperer.encoders.registry import EncoderSpec, get_spec, list_encoders, register_encoder
from spatialwhisperer.models.ontology import Ontology, Term
from spatialwhisperer.models.parts import Context, Evaluation, Expression, PairLoss, Preset, Recipe
from spatialwhisperer.models.presets import get_preset, presets
from spatialwhisperer.models.vocabulary import Vocabulary
from spatialwhisperer.retrieval.rule import Retrieval

if TYPE_CHECKING:
    from spatialwhisperer.encoders.gene.all import GeneEncoder, load_gene_encoder
    from spatialwhisperer.encoders.image.timm import ImageEncoder, image_encoder
    from spatialwhisperer.encoders.text.transformer import TextEncoder, text_encoder
    from spatialwhisperer.models.default import default_model
    from spatialwhisperer.models.expression import ExpressionPredictor
    from spatialwhisperer.models.reference import Reference
    from spatialwhisperer.models.whisperer import Whisperer

_LAZY = {
    "ExpressionPredictor": "models.expression",
    "GeneEncoder": "encoders.gene.all",
    "ImageEncoder": "encoders.image.timm",
    "Reference": "models.reference",
    "TextEncoder": "encoders.text.transformer",
    "Whisperer": "models.whisperer",
    "default_model": "models.default",
    "image_encoder": "encoders.image.timm",
    "load_gene_encoder": "encoders.gene.all",
    "text_encoder": "encoders.text.transformer",
}

__all__ = [
    "Context",
    "EncoderSpec",
    "Evaluation",
    "Expression",
    "ExpressionPredictor",
    "GeneEncoder",
    "ImageEncoder",
    "Ontology",
    "PairLoss",
    "Preset",
    "Recipe",
    "Reference",
    "Retrieval",
    "Term",
    "TextEncoder",
    "Vocabulary",
    "Whisperer",
    "default_model",
    "get_preset",
    "get_spec",
    "image_encoder",
    "list_encoders",
    "load_gene_encoder",
    "presets",
    "register_encoder",
    "text_encoder",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(
            f"module 'spatialwhisperer.models' has no attribute {name!r}; it has {', '.join(__all__)}."
        )
    value = getattr(import_module(f"spatialwhisperer.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
