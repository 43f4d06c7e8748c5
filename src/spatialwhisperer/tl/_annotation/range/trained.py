"""Which sections of a slide a model was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from spatialwhisperer._access.table.fingerprints import trained_sections
from spatialwhisperer.pp.features.images import image_looks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialwhisperer._access.result import Result
    from spatialwhisperer._access.slide import Slide
    from spatialwhisperer.models.reference import Reference
    from spatialwhisperer.models.whisperer import Whisperer

SAME_IMAGE = 1e-3
"""Distance of two looks at the same image, as a fraction of the limit: what rounding leaves of none."""


def trained_on(slide: Slide, model: Whisperer, results: Sequence[Result] = ()) -> list[str]:
    """Sections of the slide that the model was trained on, in the order of the slide.

    They are recognised by the names and positions of their rows, or by their image: a grid of tiles over a training section has rows of
    its own, and the encoder sees the same in the image as in training.

    Parameters
    ----------
    slide
        The slide.
    model
        The model.
    results
        Features that were just computed, with what the encoder saw of the images.
    """
    reference = model.reference
    if reference is None:
        return []
    found = set(trained_sections(slide, reference.config.trained_sections, reference.arrays))
    if "image" in model.modalities:
        looks = image_looks(slide, model.config.modality("image").features.key, results)
        found |= {name for name, look in looks.items() if _seen(reference, look)}
    return [name for name in map(str, pd.unique(slide.sections)) if name in found]


def _seen(reference: Reference, look: Sequence[float]) -> bool:
    distance = reference.look_distance(look)
    return distance is not None and distance < SAME_IMAGE * reference.image_limit()
