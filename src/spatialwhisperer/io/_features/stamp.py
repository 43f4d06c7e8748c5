"""What a file of STAMP states about its coordinates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spatialwhisperer._messages import inform, listing

if TYPE_CHECKING:
    from spatialwhisperer.io._features.files import FeatureFile

_STAMP_HISTORIC = (224, 256.0)


def stamp_layout(file: FeatureFile, unit: str | None, tile: float | None) -> tuple[str, float, float]:
    """Unit of the coordinates, what they are multiplied with, and the edge of a tile in that unit."""
    measure = _stamp_unit(file, unit)
    edge = file.number("tile_size_um") if measure == "um" else None
    edge = edge or (file.number("tile_size") if file.text("unit") is not None else None)
    stride = file.stride()
    if measure is None:
        pixels, microns = _STAMP_HISTORIC
        if round(file.number("tile_size") or stride or 0) != pixels:
            raise ValueError(
                f"{file.path.name} does not state the unit of its coordinates (found: {listing(file.attributes)}). Pass unit='px', for "
                "pixels of the full resolution, or unit='um'."
            )
        inform(f"{file.path.name} has the layout of STAMP 1: its coordinates were scaled by 256 µm per 224 pixels.")
        return "um", microns / pixels, microns
    found = tile or edge or stride
    if found is None:
        raise ValueError(
            f"{file.path.name} holds a single tile and does not state its size. Pass tile=…, its edge in that unit."
        )
    if tile is None and edge is None:
        inform(
            f"Tiles of {file.path.name} are taken to touch: their edge is the distance between neighbours, {found:g} {measure}."
        )
    return measure, 1.0, found


def _stamp_unit(file: FeatureFile, unit: str | None) -> str | None:
    """Unit of the coordinates by the caller or the file; ``None`` where neither says it."""
    stated = file.text("unit") or (None if file.number("tile_size_um") is None else "um")
    if stated not in (None, "um", "px"):
        raise ValueError(
            f"{file.path.name} states its coordinates in {stated!r}, which is neither 'um' nor 'px'. Convert them to microns, and the "
            "attribute 'unit' to 'um'."
        )
    if stated is not None and unit is not None and stated != unit:
        raise ValueError(
            f"{file.path.name} states its coordinates in {stated!r}, and unit={unit!r} was passed. Leave it out, or correct the file."
        )
    return unit or stated
