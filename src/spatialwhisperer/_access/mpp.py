"""Microns per pixel: given, or read from a transformation or a scale factor, or from the spot pitch. Never guessed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._access.images import XY
from spatialwhisperer._access.tables import is_spatialdata
from spatialwhisperer._checks import positive
from spatialwhisperer._messages import warn

if TYPE_CHECKING:
    from collections.abc import Mapping

_REACH = 1.6
_WINDOW = 0.2
_ROUNDS = 10
MICRONS = re.compile(r"(^|[_\-\s:./])(um|µm|μm|microns?|micromet(er|re)s?)($|[_\-\s:./])", re.IGNORECASE)


def resolve_mpp(
    section: str,
    image: str,
    *,
    mpp: float | Mapping[str, float] | None,
    spot_pitch_um: float | None,
    xy_px: np.ndarray,
    recorded: float | None,
) -> float | None:
    """Full-resolution microns per pixel of one section, or ``None`` where nothing states it."""
    value = mpp
    if mpp is not None and not np.isscalar(mpp):
        value = mpp.get(section, mpp.get(image))  # type: ignore[union-attr]
    if value is not None:
        return positive("mpp", float(value))  # type: ignore[arg-type]
    if spot_pitch_um is not None:
        return positive("spot_pitch_um", spot_pitch_um) / spot_pitch_px(section, xy_px)
    return recorded


def missing_mpp(section: str) -> str:
    """Text of the error for a section whose scale is unknown."""
    return (
        f"The microns per pixel of section {section!r} are not known. State them once: sw.pp.tiles(data, tile_um=…, mpp=…) "
        "takes the microns per full-resolution pixel, or a mapping from section to it; sw.pp.tiles(data, tile_um=…, "
        "spot_pitch_um=100) the centre-to-centre distance of the spots (100 for Visium, 200 for the first Spatial "
        "Transcriptomics arrays). Or register the image to a coordinate system named 'microns'."
    )


def spot_pitch_px(section: str, xy_px: np.ndarray) -> float:
    """Centre-to-centre distance of the spots of a lattice, in full-resolution pixels.

    The distance to the nearest neighbour alone is too short where spots are a little off the lattice, because the
    nearest of four to six is taken. So it only starts the search for the median over all pairs within 20 % of itself.
    """
    from scipy.spatial import cKDTree

    if len(xy_px) < 3:
        raise ValueError(
            f"Section {section!r} has {len(xy_px)} spots: too few to measure their pitch. Pass mpp=… instead of spot_pitch_um."
        )
    tree = cKDTree(xy_px)
    pitch = float(np.median(tree.query(xy_px, k=2)[0][:, 1]))
    pairs = tree.query_pairs(_REACH * pitch, output_type="ndarray")
    distance = np.linalg.norm(xy_px[pairs[:, 0]] - xy_px[pairs[:, 1]], axis=1)
    for _ in range(_ROUNDS):
        near = distance[np.abs(distance - pitch) < _WINDOW * pitch]
        if not len(near):
            break
        pitch = float(np.median(near))
    return pitch


def image_mpp(data: Any, image: str, *, mpp: float | Mapping[str, float] | None = None) -> float | None:
    """Full-resolution microns per pixel of an image without spots, or ``None`` where nothing states it."""
    recorded = (
        from_element(data.images[image], image) if is_spatialdata(data) else from_library(data.uns["spatial"][image])
    )
    return resolve_mpp(image, image, mpp=mpp, spot_pitch_um=None, xy_px=np.empty((0, 2)), recorded=recorded)


def from_element(element: Any, name: str) -> float | None:
    """Microns per unit of an element, where it is registered to a coordinate system of microns."""
    from spatialdata.transformations import get_transformation

    for system, transformation in get_transformation(element, get_all=True).items():
        if MICRONS.search(str(system)):
            matrix = transformation.to_affine_matrix(XY, XY)
            _warn_if_stretched(name, matrix)
            return unit_scale(matrix)
    return None


def _warn_if_stretched(name: str, matrix: np.ndarray) -> None:
    longest, shortest = np.linalg.svd(matrix[:2, :2], compute_uv=False)
    if longest > 1.01 * shortest:
        warn(
            f"{name!r} is stretched or sheared on its way to microns: {shortest:.4g} um per pixel in one direction, "
            f"{longest:.4g} in the other. Tiles stay square in its pixels, with the mean of {unit_scale(matrix):.4g}.",
            stacklevel=2,
        )


def unit_scale(matrix: np.ndarray) -> float:
    """Edge length of a unit square after an affine map."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))


def from_library(entry: Mapping[str, Any]) -> float | None:
    """Microns per full-resolution pixel stated by a Visium library (Visium HD writes ``microns_per_pixel``)."""
    value = entry.get("scalefactors", {}).get("microns_per_pixel")
    return None if value is None else positive("microns_per_pixel", float(value))
