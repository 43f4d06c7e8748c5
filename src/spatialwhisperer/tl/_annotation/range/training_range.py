"""Whether images are like those that a model was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer.models.training_range import on_tissue
from spatialwhisperer.pp.features.images import feature_record, image_looks
from spatialwhisperer.statistics.standardize import MIN_ROWS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spatialwhisperer._access.result import Result
    from spatialwhisperer._access.slide import Slide
    from spatialwhisperer.models.reference import Reference, ReferenceConfig
    from spatialwhisperer.models.whisperer import Whisperer

SAME_MPP = 1.25
"""Scales within this factor of the training images' count as theirs."""

MAX_BACKGROUND = 0.5


@dataclass(frozen=True)
class SectionRange:
    """How the image of one section compares with the training images.

    Attributes
    ----------
    name
        Section.
    n_rows, n_tissue
        Rows, and those with a complete tile on tissue.
    mpp, factor
        Microns per pixel at which its tiles are read, and their ratio to those of the training images (above 1: coarser, below 1:
        finer); ``None`` where one of the two is not known.
    distance, limit
        Distance of its mean features from those of the training sections, or of what was seen of its image if that is further, and the
        largest that counts as similar (:meth:`~spatialwhisperer.models.reference.Reference.image_distance`); ``None`` where there are
        no features.
    look
        Distance of what was seen of its image, which does not depend on the rows, with the same limit.
    mean
        Distance of its mean features alone, with the same limit.
    """

    name: str
    n_rows: int
    n_tissue: int
    mpp: float | None
    factor: float | None
    distance: float | None
    limit: float | None
    look: float | None = None
    mean: float | None = None


def range_warnings(ranges: Sequence[SectionRange], model: Whisperer) -> list[str]:
    """Sentences on how images differ from those that a model was trained on.

    Parameters
    ----------
    ranges
        Of each section; see `section_ranges`.
    model
        A trained model.

    Returns
    -------
    One sentence with numbers for each difference: scale, colour and texture, too few rows on tissue. An empty list where there is
    none.

    Examples
    --------
    >>> import numpy as np, spatialwhisperer as sw
    >>> from spatialwhisperer.tl._annotation.range.training_range import range_warnings, section_ranges
    >>> model = sw.models.default_model()
    >>> ranges = section_ranges(model, None, np.array(["A"] * 30), {"A": 0.1})
    >>> len(range_warnings(ranges, model))
    0
    """
    sentences: list[str] = []
    training = None if model.reference is None else model.reference.config.mpp
    within = model.reference is not None and model.config.modality("image").standardize == "section"
    for kind in (_scale, _look, *((_rows,) if within else ())):
        own = [s for s in (kind(one, training) for one in ranges) if s]
        more = len(own) - 3
        sentences += own[:3] + ([f"… and likewise {more} more sections."] if more > 0 else [])
    return sentences


def slide_ranges(
    slide: Slide, model: Whisperer, features: np.ndarray | None, results: Sequence[Result]
) -> list[SectionRange]:
    """Compare each section of a slide with the training images; see `section_ranges`.

    Parameters
    ----------
    slide
        The slide.
    model
        A trained model.
    features
        Image features of the rows, shape (n, d); ``None`` where the image encoder is trained with the model.
    results
        Features that were just computed, with what the encoder saw of the images; what is not there is read from the slide.
    """
    key = model.config.modality("image").features.key
    looks = image_looks(slide, key, results)
    return section_ranges(model, features, slide.sections, image_mpp(slide, key, results), looks)


def section_ranges(
    model: Whisperer,
    features: np.ndarray | None,
    sections: np.ndarray,
    mpp: Mapping[str, float],
    looks: Mapping[str, tuple[float, ...]] | None = None,
) -> list[SectionRange]:
    """Compare each section with the training images; none where the model has no reference or reads no images.

    Parameters
    ----------
    model
        A trained model.
    features
        Image features of the rows, shape (n, d); ``None`` where the image encoder is trained with the model.
    sections
        Section of each row, shape (n,).
    mpp
        Microns per full-resolution pixel by section, as far as they are known.
    looks
        What the image encoder saw of the image of each section, as far as it looks at images.
    """
    if model.reference is None or "image" not in model.modalities:
        return []
    out = []
    for name in dict.fromkeys(sections):
        rows = sections == name
        # the one image of a table that was taken out of its SpatialData is recorded under the region's name
        scale = mpp.get(name, next(iter(mpp.values())) if len(mpp) == 1 else None)
        x = None if features is None else features[rows]
        look = (looks or {}).get(str(name), ())
        out.append(section_range(str(name), int(rows.sum()), scale, x, model.reference, look))
    return out


def section_range(
    name: str,
    n: int,
    mpp: float | None,
    x: np.ndarray | None,
    reference: Reference,
    look: tuple[float, ...] = (),
) -> SectionRange:
    """Compare one section, of n rows, their features x (n, d) and what was seen of its image, with the training images."""
    read_at, factor = _factor(mpp, reference.config)
    if x is None:
        return SectionRange(name, n, n, read_at, factor, None, None)
    tissue = on_tissue(x, reference.config.encoder)
    distance = limit = seen = mean = None
    if reference.has("feature_mean") and tissue.any():
        mean, limit = reference.image_distance(x[tissue]), reference.image_limit()
        seen = reference.look_distance(look)
        distance = mean if seen is None else max(mean, seen)
    return SectionRange(name, n, int(tissue.sum()), read_at, factor, distance, limit, seen, mean)


def image_mpp(slide: Slide, key: str | None, results: Sequence[Result] = ()) -> Mapping[str, float]:
    """Microns per full-resolution pixel by section: of features that were just computed, else of stored ones, else of the slide."""
    record = feature_record(slide, key, results)
    if record is not None and record.where.mpp:
        return record.where.mpp
    return slide.where.mpp


def _factor(mpp: float | None, config: ReferenceConfig) -> tuple[float | None, float | None]:
    """Scale at which tiles are read, and how much coarser or finer that is than in training.

    A tile is never sharper than its image, and never sharper than its own pixels.
    """
    if mpp is None or not config.mpp:
        return None, None
    low, high = config.mpp
    if config.tile_um and config.tile_px:
        own = min(config.tile_um) / config.tile_px
        mpp, low, high = max(mpp, own), max(low, own), max(high, own)
    return mpp, mpp / high if mpp > high else min(1.0, mpp / low)


# ------------------------------------------------------------------------------------------------- sentences


def _scale(one: SectionRange, training: Any) -> str | None:
    if one.factor is None or 1 / SAME_MPP <= one.factor <= SAME_MPP:
        return None
    low, high = training
    trained = f"{low:.3g}" if np.isclose(low, high, rtol=0.01) else f"{low:.3g} to {high:.3g}"
    how = f"{one.factor:.1f} times coarser" if one.factor > 1 else f"{1 / one.factor:.1f} times finer"
    return (
        f"Section {one.name!r} is read at {one.mpp:.3g} µm per pixel, {how} than the images in training ({trained} µm per "
        "pixel), so that its fine texture differs."
    )


def _look(one: SectionRange, _training: Any) -> str | None:
    if one.distance is None or one.limit is None or one.distance <= one.limit:
        return None
    return (
        f"The colours and textures of section {one.name!r} lie {one.distance:.1f} standard deviations from the nearest "
        f"training section (up to {one.limit:.1f} is usual): check the stain, the scale and that the image is in colour."
    )


def _rows(one: SectionRange, _training: Any) -> str | None:
    if one.n_tissue < MIN_ROWS:
        return (
            f"Section {one.name!r} has {one.n_tissue} rows with a whole tile on tissue, of {one.n_rows}; with fewer than "
            f"{MIN_ROWS} its features cannot be brought to the scale of a section."
        )
    if one.n_tissue < (1 - MAX_BACKGROUND) * one.n_rows:
        return (
            f"Of {one.n_rows} rows of section {one.name!r} only {one.n_tissue} have a tile on tissue; the others shift the "
            "scale of its features. Leave out empty tiles."
        )
    return None
