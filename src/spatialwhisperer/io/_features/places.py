"""The slide that tiles of another tool belong to, and whether they fit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer import _keys
from spatialwhisperer._access.elements.squares import Squares, squares_alone, squares_on
from spatialwhisperer._access.images import find_image
from spatialwhisperer._access.sections.choice import the_image
from spatialwhisperer._access.sections.platforms import pixel_of
from spatialwhisperer._access.sections.regions import image_scales
from spatialwhisperer._access.sections.scale import check_mpp, differ
from spatialwhisperer._access.tables import is_spatialdata
from spatialwhisperer._checks.values import check_key_added

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from spatialwhisperer.io._features.files import FeatureFile


@dataclass(frozen=True)
class Target:
    """The slide that tiles belong to.

    Attributes
    ----------
    slide, image, size_px
        Object, name and size of its image; ``None`` where there is none.
    mpp, rule
        Microns per pixel and what states them.
    """

    slide: SpatialData | None
    image: str | None
    size_px: tuple[float, float] | None
    mpp: float | None
    rule: str


def find_target(slide: Any, image_key: str | None, mpp: float | None, stated: float | None = None) -> Target:
    """The slide, and the scale by the caller, its image and the other tool; two that differ raise an error, and so does a smaller copy."""
    check_mpp(mpp)
    scales = [] if mpp is None else [(float(mpp), "mpp=…")]
    image, size = None, None
    if slide is not None:
        if not is_spatialdata(slide):
            raise TypeError("slide must be a SpatialData, as sw.io.read_slide reads it, not an AnnData.")
        image = the_image(slide, image_key)
        pixel = pixel_of(slide, image)
        if differ(pixel.per_pixel, 1.0):
            raise ValueError(
                f"Tiles lie in pixels of the full resolution, and {pixel.image} is a smaller copy of the slide: a pixel is {pixel.per_pixel:.4g} "
                f"of these wide. Pass the slide at its full resolution, slide=sw.io.read_slide(path), or leave slide out and pass mpp=…."
            )
        size = find_image(slide, image).size_px
        scales += [(scale.mpp, f"image {image!r}") for scale in image_scales(slide, image)]
    if stated is not None:
        scales.append((stated, "the object of the other tool"))
    for other, rule in scales[1:]:
        if differ(scales[0][0], other):
            raise ValueError(
                f"Two statements about the scale disagree: {scales[0][0]:.4g} µm per pixel by {scales[0][1]}, {other:.4g} by {rule}. Leave "
                "out what is wrong, or take the slide that the features were computed on."
            )
    found, by = scales[0] if scales else (None, "")
    return Target(slide, image, size, found, by)


def placed(file: FeatureFile, squares: Squares, target: Target, encoder: str, tool: str, key_added: str) -> SpatialData:
    """The tiles alone, or with their slide."""
    check_key_added(key_added)
    key = _keys.features(re.sub(r"[^\w.-]", "_", encoder, flags=re.ASCII))
    parameters = {
        "source": tool,
        "file": file.path.name,
        "encoder": encoder,
        "edge_px": squares.edge_px,
        "mpp": squares.mpp,
    }
    if target.slide is None or target.image is None or target.size_px is None:
        stem = re.sub(r"[^\w.-]", "_", file.path.stem, flags=re.ASCII).lstrip("_.") or "slide"
        return squares_alone(squares, stem, key, parameters, key_added)
    outside = ((squares.centres_px < 0) | (squares.centres_px > np.array(target.size_px))).any(axis=1)
    if outside.any():
        width, height = target.size_px
        right, bottom = squares.centres_px.max(axis=0)
        raise ValueError(
            f"{int(outside.sum())} of {len(outside)} tiles of {file.path.name} lie outside image {target.image!r} of {width:.0f} x "
            f"{height:.0f} pixels (up to x = {right:.0f}, y = {bottom:.0f}): they belong to another slide, or their unit or scale is wrong."
        )
    return squares_on(target.slide, target.image, squares, key, parameters, key_added)
