"""Sizes of the tiles that an image encoder takes, and whether images are fine enough for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer._messages import listing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialwhisperer._access.records import TilesRecord
    from spatialwhisperer._access.sections.section import Section
    from spatialwhisperer.encoders.spec import EncoderSpec


def tile_sizes(
    spec: EncoderSpec, stated: TilesRecord | None, tile_um: float | Sequence[float] | None, tile_px: int | None
) -> tuple[list[float], int | None]:
    """Edges of the tiles in microns and in pixels: those that a call gives, else what `tiles` recorded, else those of the encoder.

    Raises
    ------
    ValueError
        If sizes are repeated, none is known, or some are given to an encoder that has its own.
    """
    given = _as_list(tile_um)
    if has_own_sizes(spec) and spec.tile_um is not None:
        check_own_sizes(spec, tile_um, tile_px)
        return [spec.tile_um], spec.input_px
    if not given and stated is not None:
        given = [stated.tile_um]
    tile_px = stated.tile_px if tile_px is None and stated is not None else tile_px
    tile_px = spec.input_px if tile_px is None else tile_px
    if not given:
        trained_um = spec.input_px * spec.mpp if spec.input_px and spec.mpp else None
        size = spec.tile_um or trained_um
        if size is None:
            raise ValueError(
                f"The size of the tiles is not known, and encoder {spec.name!r} names no field of view. Pass tile_um=…, or run "
                "sw.pp.tiles(data, tile_um=…) first."
            )
        given = [size]
    return given, tile_px


def has_own_sizes(spec: EncoderSpec) -> bool:
    """Whether an encoder describes windows of its own, so that no other sizes apply."""
    # the spec of an object of the caller's may be of any class
    return bool(getattr(spec, "windows_um", ()))


def check_own_sizes(spec: EncoderSpec, tile_um: float | Sequence[float] | None, tile_px: int | None) -> None:
    """Refuse sizes for an encoder that describes windows of its own."""
    if not has_own_sizes(spec) or (tile_um is None and tile_px is None):
        return
    found = ", ".join(
        f"{name}={value}" for name, value in (("tile_um", tile_um), ("tile_px", tile_px)) if value is not None
    )
    raise ValueError(
        f"Encoder {spec.name!r} describes windows of {listing(f'{um:g}' for um in spec.windows_um)} µm, and takes no other sizes; "
        f"found {found}. Leave out tile_um and tile_px."
    )


def coarse_sections(sections: Sequence[Section], spec: EncoderSpec) -> dict[str, float]:
    """Sections whose image is too coarse for an encoder, with its microns per pixel."""
    coarsest = getattr(spec, "coarsest_mpp", None)
    if coarsest is None:
        return {}
    out = {}
    for section in sections:
        if section.image is None or section.mpp is None:
            continue
        finest = section.image.levels[0]
        width_um, height_um = section.pixel_um(section.mpp)
        mpp = max(width_um * finest.scale_x, height_um * finest.scale_y)
        if mpp > coarsest:
            out[section.name] = float(mpp)
    return out


def check_fine_enough(sections: Sequence[Section], spec: EncoderSpec) -> None:
    """Refuse sections whose image is too coarse for an encoder.

    Raises
    ------
    ValueError
        If there are any; the message names the image and what would help.
    """
    coarse = coarse_sections(sections, spec)
    if coarse:
        name, mpp = next(iter(coarse.items()))
        raise ValueError(
            f"The image of section {name!r} has {mpp:.3g} µm per pixel, and encoder {spec.name!r} needs {spec.coarsest_mpp:g} or finer. "
            f"This slide is too coarse for a model that was trained on features of {spec.name!r}. Add the full-resolution image "
            "(sw.io.read_slide), correct mpp=…, or take a model of another encoder."
        )


def _as_list(tile_um: float | Sequence[float] | None) -> list[float]:
    """The tile sizes of an argument as a list; empty for ``None``."""
    if tile_um is None:
        return []
    if np.ndim(tile_um) == 0:
        return [tile_um]  # type: ignore[list-item]
    sizes = list(tile_um)  # type: ignore[arg-type]
    if not sizes:
        raise ValueError("tile_um names no size. Pass one (tile_um=112) or several (tile_um=(112, 224)).")
    if len(set(sizes)) < len(sizes):
        raise ValueError(f"tile_um names a size twice: {listing(sizes)}. Name each once.")
    return sizes
