"""Microns per pixel: the rules that state them, and which rule is used. Nothing is guessed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._access.contract import check_affine, scale_factor
from spatialwhisperer._access.sections.lattice import (
    ARRAY_COLUMNS,
    VISIUM_PITCH_UM,
    hexagonal_pitch_px,
    lattice_of,
    say_misplaced,
    say_unread_indices,
    spot_pitch_px,
    squared,
)
from spatialwhisperer._checks.values import positive
from spatialwhisperer._messages import warn

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

MICRONS = re.compile(r"(^|[_\-\s:./])(um|µm|μm|microns?|micromet(er|re)s?)($|[_\-\s:./])", re.IGNORECASE)
FIDUCIAL_UM = 105.0

_ALIKE = 1.05
_STRETCHED = 1.01
_SHEARED = 0.01
_MAGNIFICATIONS = (20, 40)
_SMALLEST_SPOT, _LARGEST_SPOT = 0.5, 0.75
_MOST_SPOTS = 20_000

_VISIUM_RULE = "the 100 µm pitch of the Visium array"
_MPP_RULE = "mpp=…"
_PITCH_RULE = "spot_pitch_um="


@dataclass(frozen=True)
class Scale:
    """Microns per pixel, and the rule that states them.

    Attributes
    ----------
    mpp
        Edge of a square pixel of the same area, in microns. A pixel is one of the full resolution in an AnnData, and one of the image in
        a SpatialData.
    rule
        What states it.
    stretch
        Width of a pixel divided by its height.
    """

    mpp: float
    rule: str
    stretch: float = 1.0


@dataclass(frozen=True)
class GivenPixel:
    """The pixel that an ``mpp`` of the caller is about.

    Attributes
    ----------
    words
        What it is.
    image
        The image that is read, with its size in pixels; empty where the words leave no doubt.
    per_pixel
        How many of them a pixel of the image is wide: the root of its area.
    """

    words: str = "full-resolution pixel"
    image: str = ""
    per_pixel: float = 1.0


def settle(
    section: str,
    image: str,
    *,
    mpp: float | Mapping[str, float] | None,
    spot_pitch_um: float | None,
    xy_px: np.ndarray,
    stated: Scale | None,
    found: Sequence[Scale],
    stretch: float = 1.0,
    array: pd.DataFrame | None = None,
    pixel: GivenPixel | None = None,
) -> Scale | None:
    """Choose the scale of one section: that of the caller, else the one that `tiles` recorded, else the one that the object states.

    Parameters
    ----------
    section, image
        Names of the section and its image.
    mpp, spot_pitch_um
        Arguments of the caller.
    xy_px
        Centres of the rows in full-resolution pixels, shape (n, 2).
    stated
        Scale that :func:`spatialwhisperer.pp.tiles` recorded.
    found
        Scales that the object states.
    stretch
        Width of a pixel of the image divided by its height.
    array
        Rows of the table, with ``array_col`` and ``array_row`` where they have them.
    pixel
        What ``mpp`` is about; ``None`` for a full-resolution pixel.

    Returns
    -------
    The scale, with that stretch, or ``None`` where nothing states one.

    Raises
    ------
    ValueError
        If a value is not a scale, or two of the scales differ by more than 5 %, also where both are arguments, or one is what `tiles`
        recorded. Scales of the object may differ where the caller gives one of them.
    """
    pixel = GivenPixel() if pixel is None else pixel
    of_call = _given(section, image, mpp, spot_pitch_um, squared(xy_px, stretch), array, pixel)
    given = of_call[0] if of_call else None
    said = stated if given is None and of_caller(stated) else given
    if said is not None:
        # what the caller says settles it between statements of the object that disagree
        found = [one for one in found if not differ(one.mpp, said.mpp)] or found
    if given is None and stated is not None:
        for other in found:
            if differ(stated.mpp, other.mpp):
                raise ValueError(
                    f"sw.pp.tiles recorded {stated.mpp:.4g} µm per pixel for section {section!r}, and the object now states "
                    f"{other.mpp:.4g} by {other.rule}. Run sw.pp.tiles again, or correct the object."
                )
        return replace(stated, stretch=stretch)
    rules = [*of_call, *found]
    for a, b in ((a, b) for i, a in enumerate(rules) for b in rules[i + 1 :]):
        if differ(a.mpp, b.mpp):
            its, per = ("", "") if pixel.per_pixel == 1 else (f" of {pixel.image}", f", the microns per {pixel.words}")
            remedy = (
                f"Say which one is right with mpp=…{per}" if given is None else "Leave out the argument that is wrong"
            )
            if b not in of_call:
                remedy += (
                    ", or correct the object: the scale factors in .uns['spatial'][library] of an AnnData, or "
                    "spatialdata.transformations.set_transformation for a SpatialData"
                )
            raise ValueError(
                f"Two statements about the scale of section {section!r} disagree: {a.mpp:.4g} µm per pixel{its} by {a.rule}, {b.mpp:.4g} "
                f"by {b.rule}. {remedy}."
            )
    return replace(rules[0], stretch=stretch) if rules else None


def differ(a: float, b: float) -> bool:
    """Whether two scales differ by more than 5 %."""
    return max(a, b) > _ALIKE * min(a, b)


def check_mpp(mpp: float | None) -> None:
    """Refuse microns per pixel that are no scale, or look like a magnification.

    Raises
    ------
    ValueError
        If they do.
    """
    if mpp is None:
        return
    if mpp in _MAGNIFICATIONS:
        raise ValueError(
            f"mpp={mpp:g} looks like the magnification of an objective. mpp is microns per full-resolution pixel: about "
            "0.5 at 20x, 0.25 at 40x."
        )
    positive("mpp", mpp)


def _given(
    section: str,
    image: str,
    mpp: float | Mapping[str, float] | None,
    spot_pitch_um: float | None,
    xy_px: np.ndarray,
    array: pd.DataFrame | None,
    pixel: GivenPixel,
) -> list[Scale]:
    """What the arguments of the caller state, ``mpp`` first. Beside it, spots whose pitch cannot be measured contradict nothing."""
    out = []
    value = mpp.get(section, mpp.get(image)) if isinstance(mpp, Mapping) else mpp
    if value is not None:
        check_mpp(value)
        said = "" if pixel.per_pixel == 1 else f" ({value:g} µm per {pixel.words})"
        out.append(Scale(float(value) * pixel.per_pixel, f"{_MPP_RULE}{said}"))
    if spot_pitch_um is not None:
        pitch = positive("spot_pitch_um", spot_pitch_um)
        # without an image there are no pixels to measure
        if np.isfinite(xy_px).all(axis=1).any():
            try:
                out.append(Scale(pitch / spot_pitch_px(section, xy_px, array), f"{_PITCH_RULE}{pitch:g}"))
            except ValueError:
                if not out:
                    raise
    return out


def of_caller(scale: Scale | None) -> bool:
    """Whether the caller stated a scale."""
    return scale is not None and scale.rule.startswith((_MPP_RULE, _PITCH_RULE))


def is_given(scale: Scale) -> bool:
    """Whether an ``mpp`` of the caller stated a scale."""
    return scale.rule.startswith(_MPP_RULE)


def is_measured(rule: str) -> bool:
    """Whether a rule measures the distance between the spots of the table."""
    return rule == _VISIUM_RULE or rule.startswith(_PITCH_RULE)


def rescaled(centres: np.ndarray, xy_px: np.ndarray) -> float | None:
    """How many times as far apart rows lie as their recorded centres; ``None`` where it is once, or cannot be told.

    Parameters
    ----------
    centres, xy_px
        Recorded and present centres of the same rows in full-resolution pixels, shape (n, 2); NaN where there is none.
    """
    both = np.isfinite(centres).all(axis=1) & np.isfinite(xy_px).all(axis=1)
    if not both.any():
        return None
    # the extent of the rows about their mean stays where they are moved, turned or mirrored
    before, now = (float(np.sqrt(at[both].var(axis=0).sum())) for at in (centres, xy_px))
    return now / before if min(before, now) > 0 and differ(before, now) else None


# ------------------------------------------------------------------------------------------------- what objects state


def of_library(
    entry: Mapping[str, Any], obs: pd.DataFrame | None = None, xy_px: np.ndarray | None = None
) -> tuple[Scale, ...]:
    """Scales that a Visium library states: by ``microns_per_pixel`` (Visium HD), and by the hexagonal array of its spots.

    Parameters
    ----------
    entry
        ``.uns['spatial'][library]``.
    obs, xy_px
        Its rows, with ``array_col`` and ``array_row``, and their centres in full-resolution pixels, shape (n, 2).
    """
    stated = scale_factor(entry, "microns_per_pixel")
    diameter_px = scale_factor(entry, "spot_diameter_fullres")
    rules = []
    if stated is not None:
        rules.append(Scale(positive("microns_per_pixel", stated), "microns_per_pixel in the scale factors"))
    if obs is not None and xy_px is not None and diameter_px is not None:
        pitch = _array_pitch_px(obs, xy_px)
        # measured between places, a pitch is not exact enough to contradict what is stated
        if pitch is None and not rules and not any(column in obs for column in ARRAY_COLUMNS):
            pitch = _pitch_of_places(xy_px, float(diameter_px))
        if pitch is not None:
            rules += _of_pitch(pitch, scale_factor(entry, "fiducial_diameter_fullres"))
    return tuple(rules)


def _array_pitch_px(obs: pd.DataFrame, xy_px: np.ndarray) -> float | None:
    # the largest array of Visium has 14,336 spots; more are the bins of another platform, whose indices take long to look at
    if len(obs) > _MOST_SPOTS:
        return None
    say_unread_indices(obs)
    pitch = hexagonal_pitch_px(obs, xy_px)
    if pitch is not None:
        say_misplaced(obs, xy_px)
    return pitch


def _of_pitch(pitch_px: float, fiducial_px: float | None) -> list[Scale]:
    rules = [Scale(VISIUM_PITCH_UM / pitch_px, _VISIUM_RULE)]
    if fiducial_px is not None:
        rules.append(Scale(FIDUCIAL_UM / positive("fiducial_diameter_fullres", fiducial_px), "its fiducial diameter"))
    return rules


def _pitch_of_places(xy_px: np.ndarray, diameter_px: float) -> float | None:
    """Pitch of spots without array indices, where they lie on a hexagonal lattice and have the size of those of Visium."""
    lattice = lattice_of(xy_px)
    if lattice is None or lattice.kind != "hexagonal":
        return None
    return lattice.pitch_px if _SMALLEST_SPOT < diameter_px / lattice.pitch_px < _LARGEST_SPOT else None


def of_visium_array(obs: pd.DataFrame, xy_px: np.ndarray, *, diameter_px: float) -> tuple[Scale, ...]:
    """Scale of spots in a SpatialData that lie on the array of Visium and have the size of its spots.

    Parameters
    ----------
    obs
        Rows of the table, with ``array_col`` and ``array_row``.
    xy_px
        Their centres in full-resolution pixels, shape (n, 2).
    diameter_px
        Diameter of the spots; NaN where they are not circles. Space Ranger states 55 to 70 µm for a pitch of 100 µm.
    """
    pitch = _array_pitch_px(obs, xy_px) if diameter_px > 0 else None
    if pitch is None or not _SMALLEST_SPOT < diameter_px / pitch < _LARGEST_SPOT:
        return ()
    return (Scale(VISIUM_PITCH_UM / pitch, _VISIUM_RULE),)


def of_transformation(matrices: Mapping[str, np.ndarray], name: str) -> tuple[Scale, ...]:
    """Scales of an element that is registered to coordinate systems of microns, one each.

    Parameters
    ----------
    matrices
        Affine map to each coordinate system.
    name
        Name of the element, for a warning.
    """
    inside = {system: matrix for system, matrix in matrices.items() if MICRONS.search(system)}
    for system, matrix in inside.items():
        check_affine(name, system, matrix)
    if inside:
        _warn_if_sheared(name, next(iter(inside.values())))
    return tuple(
        Scale(unit_scale(matrix), f"coordinate system {system!r}", stretch_of(matrix))
        for system, matrix in inside.items()
    )


def _warn_if_sheared(name: str, matrix: np.ndarray) -> None:
    x, y = matrix[:2, :2].T
    if abs(x @ y) > _SHEARED * np.linalg.norm(x) * np.linalg.norm(y):
        warn(
            f"{name!r} is sheared on its way to microns: its pixels are parallelograms there. Tiles stay rectangular in its pixels. Resample the "
            "image first: spatialdata.rasterize."
        )


def stretch_of(matrix: np.ndarray) -> float:
    """Width of a pixel divided by its height after an affine map; 1 where they differ by less than 1 %."""
    width, height = np.linalg.norm(matrix[:2, :2], axis=0)
    stretch = float(width / height)
    return stretch if max(stretch, 1 / stretch) > _STRETCHED else 1.0


def unit_scale(matrix: np.ndarray) -> float:
    """Edge length of a unit square after an affine map (root of its area)."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))
