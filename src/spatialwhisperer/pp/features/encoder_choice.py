"""Which image encoder a call means, and whether the images are fine enough for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from spatialwhisperer._access.images import missing_factor
from spatialwhisperer._compute.opened import opened_once
from spatialwhisperer._messages import inform, listing
from spatialwhisperer.encoders.catalogue import encoder_class, get_spec
from spatialwhisperer.encoders.resolve import image_encoder
from spatialwhisperer.pp.features.tile_sizes import coarse_sections

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import torch

    from spatialwhisperer._access.slide import Slide
    from spatialwhisperer.encoders.image.base import ImageEncoder
    from spatialwhisperer.encoders.recipe import EncoderIdentity
    from spatialwhisperer.encoders.spec import EncoderSpec

COARSE_ENCODER = "stain_texture"
"""Encoder of images that are too coarse for the one that was chosen."""


@dataclass(frozen=True)
class EncoderChoice:
    """An image encoder that may not have been opened yet.

    Attributes
    ----------
    spec
        Facts about it.
    identity
        Name and digest that tell it from other encoders.
    open
        Function that opens it.
    """

    spec: EncoderSpec
    identity: EncoderIdentity
    open: Callable[[], ImageEncoder]


def choose_encoder(
    encoder: str | torch.nn.Module | ImageEncoder, *, weights: str | Path | None = None, pretrained: bool = True
) -> EncoderChoice:
    """Find out which encoder is meant. Its weights are not loaded where the name is enough to identify it."""
    if isinstance(encoder, str):
        identity = encoder_class(encoder, "image").identify(encoder, weights=weights, pretrained=pretrained)
        if identity is not None:

            def load() -> ImageEncoder:
                key = ("image encoder", encoder, None if weights is None else str(weights), pretrained)
                return opened_once(key, lambda: image_encoder(encoder, weights=weights, pretrained=pretrained))

            return EncoderChoice(get_spec(encoder, "image"), identity, load)
    opened = image_encoder(encoder, weights=weights, pretrained=pretrained)
    return EncoderChoice(opened.spec, opened.identity, lambda: opened)


def fine_enough(choice: EncoderChoice, slides: Sequence[Slide]) -> EncoderChoice:
    """The chosen encoder, or `stain_texture` where an image is too coarse for it, which the user is told.

    Raises
    ------
    KeyError, ValueError
        If a section has no image or no scale.
    """
    if getattr(choice.spec, "coarsest_mpp", None) is None:
        return choice
    coarse = {name: mpp for slide in slides for name, mpp in coarse_sections(slide.scaled(), choice.spec).items()}
    if not coarse:
        return choice
    inform(
        f"Encoder {choice.spec.name!r} needs {choice.spec.coarsest_mpp:g} µm per pixel or finer, and "
        f"{listing(f'{name} has {mpp:.3g}' for name, mpp in coarse.items())}: {COARSE_ENCODER!r} is taken instead."
    )
    return choose_encoder(COARSE_ENCODER)


def why_unfit(slide: Slide, spec: EncoderSpec) -> str:
    """Why the images of a slide do not serve an encoder, as text; empty where they do."""
    try:
        if not slide.has_image():
            return missing_factor(slide.data) or "there is no image"
        sections = slide.scaled()
    except (KeyError, ValueError) as error:
        return str(error.args[0] if error.args else error)
    coarse = coarse_sections(sections, spec)
    found = listing(f"{name} has {mpp:.3g}" for name, mpp in coarse.items())
    return f"{spec.name!r} needs {spec.coarsest_mpp:g} µm per pixel or finer, and {found}" if coarse else ""
