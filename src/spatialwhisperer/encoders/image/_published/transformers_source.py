"""Networks of transformers, read from a folder."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import torch

from spatialwhisperer.encoders._transformers import open_model
from spatialwhisperer.encoders.hub import first_line
from spatialwhisperer.encoders.image._published.folder import Built
from spatialwhisperer.encoders.image._published.pooling import Projected, TransformersTokens
from spatialwhisperer.encoders.image.base import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    from pathlib import Path

    from spatialwhisperer.encoders.spec import EncoderSpec

_TOKENS = ("cls", "cls+mean", "mean")


def build(folder: Path, spec: EncoderSpec, *, pretrained: bool) -> Built:
    """Open the image tower of a model in a folder.

    Raises
    ------
    ValueError
        If it is not a vision model, or weights are missing.
    """
    network = open_model(folder, pretrained=pretrained, pooler=spec.pooling not in _TOKENS)
    config = getattr(network.config, "vision_config", network.config)
    pooling = spec.pooling or _usual_pooling(network)
    if pooling == "projection":
        side, projection = network.vision_model, getattr(network, "visual_projection", None)
        module: torch.nn.Module = Projected(side, projection or torch.nn.Identity())
    else:
        module = TransformersTokens(network, pooling)
        if pooling in _TOKENS and getattr(network, "pooler", None) is not None:
            # its output is not used, and repositories leave its weights out
            network.pooler = None
    stated = _preprocessing(folder)
    px = _edge(stated) or _edge({"size": getattr(config, "image_size", None)})
    module.eval()
    probe = torch.zeros(1, 3, px or 224, px or 224)
    with torch.inference_mode():
        try:
            out = module(probe)
        except (AttributeError, TypeError, ValueError, IndexError, RuntimeError) as error:
            raise ValueError(
                f"{spec.name} ({type(network).__name__}) does not encode images with pooling {pooling!r} ({first_line(error)})."
            ) from error
    return Built(
        module,
        int(out.shape[1]),
        pooling,
        # only a model of images and texts is bound to one edge
        px if pooling == "projection" or spec.input_px is None else None,
        tuple(stated.get("image_mean") or IMAGENET_MEAN),
        tuple(stated.get("image_std") or IMAGENET_STD),
    )


def _usual_pooling(network: Any) -> str:
    if hasattr(network, "vision_model") and hasattr(network, "text_model"):
        return "projection"
    # convolutional networks have stages and no hidden size of their tokens
    return "cls" if hasattr(network.config, "num_attention_heads") else "pooler"


def _preprocessing(folder: Path) -> dict[str, Any]:
    file = folder / "preprocessor_config.json"
    if not os.path.isfile(file):
        return {}
    held = json.loads(file.read_text(encoding="utf-8"))
    return held if isinstance(held, dict) else {}


def _edge(stated: dict[str, Any]) -> int | None:
    """Edge of the tiles in pixels: that of the crop where there is one."""
    for key in ("crop_size", "size"):
        value = stated.get(key)
        if isinstance(value, dict):
            value = value.get("height") or value.get("shortest_edge")
        if isinstance(value, int):
            return value
    return None
