"""The model, its presets and the encoders. Whatever needs torch is imported when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spatialwhisperer._lazy import lazy_namespace

if TYPE_CHECKING:
    from spatialwhisperer._modalities import Modality, register_modality
    from spatialwhisperer.encoders.base import Encoder
    from spatialwhisperer.encoders.catalogue import get_spec, list_encoders, open_encoder
    from spatialwhisperer.encoders.gene.base import GeneEncoder
    from spatialwhisperer.encoders.image.base import ImageEncoder
    from spatialwhisperer.encoders.recipe import EncoderIdentity, FeatureRecipe
    from spatialwhisperer.encoders.registry import register_encoder
    from spatialwhisperer.encoders.resolve import image_encoder, load_gene_encoder, text_encoder
    from spatialwhisperer.encoders.spec import EncoderSpec
    from spatialwhisperer.encoders.text.base import TextEncoder
    from spatialwhisperer.models.configuration.augmentation import Augmentation
    from spatialwhisperer.models.configuration.model import ModelConfig
    from spatialwhisperer.models.configuration.parts import Context, Evaluation, Expression, PairLoss, Preset
    from spatialwhisperer.models.default import default_model
    from spatialwhisperer.models.expression.predictor import ExpressionPredictor
    from spatialwhisperer.models.ontology import Ontology, Term
    from spatialwhisperer.models.presets.catalogue import get_preset, presets
    from spatialwhisperer.models.presets.comparison import compare_protocols
    from spatialwhisperer.models.presets.recipe import Recipe
    from spatialwhisperer.models.published.catalogue import list_models
    from spatialwhisperer.models.published.image_text import image_text_model
    from spatialwhisperer.models.published.loading import load
    from spatialwhisperer.models.reference import Reference
    from spatialwhisperer.models.vocabulary import Label, Vocabulary
    from spatialwhisperer.models.whisperer import Whisperer
    from spatialwhisperer.retrieval.rule import Retrieval

_PLACES = {
    "Augmentation": "models.configuration.augmentation",
    "Context": "models.configuration.parts",
    "Encoder": "encoders.base",
    "EncoderIdentity": "encoders.recipe",
    "EncoderSpec": "encoders.spec",
    "Evaluation": "models.configuration.parts",
    "Expression": "models.configuration.parts",
    "ExpressionPredictor": "models.expression.predictor",
    "FeatureRecipe": "encoders.recipe",
    "GeneEncoder": "encoders.gene.base",
    "ImageEncoder": "encoders.image.base",
    "Label": "models.vocabulary",
    "Modality": "_modalities",
    "ModelConfig": "models.configuration.model",
    "Ontology": "models.ontology",
    "PairLoss": "models.configuration.parts",
    "Preset": "models.configuration.parts",
    "Recipe": "models.presets.recipe",
    "Reference": "models.reference",
    "Retrieval": "retrieval.rule",
    "Term": "models.ontology",
    "TextEncoder": "encoders.text.base",
    "Vocabulary": "models.vocabulary",
    "Whisperer": "models.whisperer",
    "compare_protocols": "models.presets.comparison",
    "default_model": "models.default",
    "get_preset": "models.presets.catalogue",
    "get_spec": "encoders.catalogue",
    "image_encoder": "encoders.resolve",
    "image_text_model": "models.published.image_text",
    "list_encoders": "encoders.catalogue",
    "list_models": "models.published.catalogue",
    "load": "models.published.loading",
    "load_gene_encoder": "encoders.resolve",
    "open_encoder": "encoders.catalogue",
    "presets": "models.presets.catalogue",
    "register_encoder": "encoders.registry",
    "register_modality": "_modalities",
    "text_encoder": "encoders.resolve",
}

__all__ = lazy_namespace(__name__, _PLACES)
