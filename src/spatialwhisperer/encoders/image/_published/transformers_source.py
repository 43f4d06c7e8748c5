"""Networks of transformers, read from a folder."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from spatialwhisperer._random import untouched_rng
from spatialwhisperer.encoders._transformers import open_model
from spatialwhisperer.encoders.hub import first_line
from spatialwhisperer.encoders.image._published.folder import Built
from spatialwhisperer.encoders.image._published.pooling import (
    BlueFirst,
    Projected,
    TransformersTokens,
    n_class_tokens,
    show_all_patches,
)
from spatialwhisperer.encoders.image.base import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    from pathlib import Path

    from spatialwhisperer.encoders.spec import EncoderSpec

_TOKENS = ("cls", "cls+mean", "mean")
_NO_ENCODER = (AttributeError, TypeError, ValueError, IndexError, RuntimeError)
_Colours = tuple[float, float, float]


def build(folder: Path, spec: EncoderSpec, *, pretrained: bool) -> Built:
    """Open the image tower of a model in a folder.

    Raises
    ------
    ValueError
        If it is not a vision model, its features are random, or weights are missing.
    """

    def asked(network: Any) -> str:
        return spec.pooling or _usual_pooling(network)

    network = open_model(folder, pretrained=pretrained, needs_pooler=lambda network: asked(network) not in _TOKENS)
    show_all_patches(network)
    stated = _preprocessing(folder)
    config = getattr(network.config, "vision_config", network.config)
    px = _edge(stated) or _edge({"size": getattr(config, "image_size", None)})
    probe = torch.linspace(-1, 1, 3 * (px or 224) ** 2).reshape(1, 3, px or 224, px or 224)
    what = f"{spec.name} ({type(network).__name__})"
    pooling = asked(network)
    if not spec.pooling and pooling == "pooler" and not _pools(network, probe):
        pooling = "mean"
    module = _pooled(network, pooling, what)
    if stated.get("do_flip_channel_order"):
        module = BlueFirst(module)
    mean, std = _normalisation(stated)
    return Built(
        module,
        _width(module.eval(), probe, f"{what} does not encode images with pooling {pooling!r}"),
        pooling,
        # only a model of images and texts is bound to one edge
        px if pooling == "projection" or spec.input_px is None else None,
        mean,
        std,
    )


def _usual_pooling(network: Any) -> str:
    if hasattr(network, "vision_model") and hasattr(network, "text_model"):
        return "projection"
    return "cls" if n_class_tokens(network) else "pooler"


def _pools(network: torch.nn.Module, probe: torch.Tensor) -> bool:
    """Whether a network has a pooler output."""
    with torch.inference_mode(), untouched_rng():
        try:
            return getattr(network.eval()(pixel_values=probe), "pooler_output", None) is not None
        except _NO_ENCODER:
            return True  # said where its features are asked for


def _pooled(network: Any, pooling: str, what: str) -> torch.nn.Module:
    if pooling == "projection":
        return Projected(network.vision_model, getattr(network, "visual_projection", None) or torch.nn.Identity())
    if pooling.startswith("cls") and not n_class_tokens(network):
        raise ValueError(f"{what} has no class token for pooling {pooling!r}; take 'pooler' or 'mean'.")
    if pooling in _TOKENS and getattr(network, "pooler", None) is not None:
        # its output is not used, and repositories leave its weights out
        network.pooler = None
    return TransformersTokens(network, pooling)


def _width(module: torch.nn.Module, probe: torch.Tensor, problem: str) -> int:
    """Number of features of a network that gives a row for a tile, and the same one each time."""
    with torch.inference_mode(), untouched_rng():
        try:
            once, again = module(probe), module(probe)
        except _NO_ENCODER as error:
            raise ValueError(f"{problem} ({first_line(error)}).") from error
    if once.ndim != 2 or len(once) != 1:
        raise ValueError(f"{problem} (it gives an array of shape {tuple(once.shape)} for one tile).")
    if not torch.allclose(once, again, rtol=1e-3, atol=1e-4, equal_nan=True):
        raise ValueError(f"{problem} (the same tile has other features each time).")
    return int(once.shape[1])


def _preprocessing(folder: Path) -> dict[str, Any]:
    file = folder / "preprocessor_config.json"
    if not os.path.isfile(file):
        return {}
    held = json.loads(file.read_text(encoding="utf-8"))
    return held if isinstance(held, dict) else {}


def _normalisation(stated: dict[str, Any]) -> tuple[_Colours, _Colours]:
    """Mean and standard deviation of R, G, B in [0, 1] by which the steps that are stated come to the same."""
    mean, std = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
    # a processor that never normalises states its other steps alone
    if not stated.get("do_normalize", not any(key.startswith("do_") for key in stated)):
        mean, std = np.zeros(3), np.ones(3)
    elif stated.get("image_mean") is not None and stated.get("image_std") is not None:
        mean, std = np.broadcast_to(stated["image_mean"], 3), np.broadcast_to(stated["image_std"], 3)
    # what a white pixel is before it is normalised, and a black one
    white = 255 * (stated.get("rescale_factor") or 1 / 255) if stated.get("do_rescale", True) else 255.0
    black = -1.0 if stated.get("do_rescale", True) and stated.get("rescale_offset") else 0.0
    again = std if stated.get("include_top") else 1.0  # EfficientNet divides twice
    return _three((mean - black) / white), _three(std * again / white)


def _three(values: np.ndarray) -> _Colours:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _edge(stated: dict[str, Any]) -> int | None:
    """Edge of the tiles in pixels: that of the crop where there is one."""
    for key in ("size",) if stated.get("do_center_crop") is False else ("crop_size", "size"):
        value = stated.get(key)
        if isinstance(value, dict):
            value = value.get("height") or value.get("shortest_edge")
        if isinstance(value, int):
            return value
    return None
