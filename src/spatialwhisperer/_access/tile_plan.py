"""What the functions that read tiles share: sections with their image and scale, and the checks before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from spatialwhisperer import _keys
from spatialwhisperer._access import Section, get_table, sections
from spatialwhisperer._access.tile_reader import TileReader
from spatialwhisperer._checks import one_of
from spatialwhisperer._messages import warn
from spatialwhisperer._provenance import recorded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

OffSlide = Literal["raise", "nan"]
LowRes = Literal["warn", "error", "allow"]

_ENOUGH = 0.9


@dataclass(frozen=True)
class TilePlan:
    """Where the tiles of a table are.

    Attributes
    ----------
    table
        The table.
    sections
        Its sections, each with an image and a scale.
    stored
        What `spatialwhisperer.pp.tiles` recorded, or an empty mapping.
    off
        Rows whose centre is off the image, shape (n_obs,).
    arguments
        What the caller chose: image per section, coordinate system, library column.
    """

    table: AnnData
    sections: list[Section]
    stored: Mapping[str, Any]
    off: np.ndarray
    arguments: Mapping[str, Any]

    def provenance(self) -> dict[str, Any]:
        """Scale and image of each section, in a form that `_utils.record` stores and `plan_tiles` reads back."""
        return {
            "mpp": {section.name: section.mpp for section in self.sections},
            "image": {section.name: section.image.name for section in self.sections if section.image},
            **self.arguments,
        }

    def centres(self) -> np.ndarray:
        """Centres in full-resolution pixels, shape (n_obs, 2), NaN where they are off the image."""
        xy = np.full((self.table.n_obs, 2), np.nan)
        for section in self.sections:
            xy[section.rows] = section.xy_px
        xy[self.off] = np.nan
        return xy

    def read(self, tile_um: float, tile_px: int, *, whole: bool = False) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield rows of the table and their uint8 tiles (k, 3, tile_px, tile_px); ``whole`` leaves out cut tiles."""
        for section in self.sections:
            reader = TileReader(section, tile_um=tile_um, tile_px=tile_px)
            keep = ~self.off[section.rows]
            if whole:
                keep &= reader.inside == 1
            for positions, tiles in reader.read(np.flatnonzero(keep)):
                yield section.rows[positions], tiles


def plan_tiles(
    data: Any,
    *,
    table_key: str | None,
    image_key: str | Mapping[str, str] | None,
    coordinate_system: str | None,
    library_key: str | None,
    mpp: float | Mapping[str, float] | None,
    spot_pitch_um: float | None,
    off_slide: OffSlide | None,
    use_stored: bool,
) -> TilePlan:
    """Find the sections of a table and the rows off the slide; what the caller leaves open is taken from `tiles`."""
    table = get_table(data, table_key)
    if table.n_obs == 0:
        raise ValueError("The table has no rows, so there is nothing to cut tiles for.")
    stored = (recorded(table, _keys.TILES) or {}) if use_stored else {}
    if mpp is None and spot_pitch_um is None and _same_image(image_key, stored.get("image")):
        mpp = stored.get("mpp")
    image_key = stored.get("image") if image_key is None else image_key
    arguments = {
        "coordinate_system": stored.get("coordinate_system") if coordinate_system is None else coordinate_system,
        "library_key": stored.get("library_key") if library_key is None else library_key,
    }
    found = sections(data, table_key=table_key, image_key=image_key, mpp=mpp, spot_pitch_um=spot_pitch_um, **arguments)
    off_slide = one_of("off_slide", off_slide or stored.get("off_slide", "raise"), OffSlide)
    off = np.zeros(table.n_obs, bool)
    for section in found:
        off[section.rows] = _off_image(section, off_slide)
    if off.all():
        raise ValueError("No tile centre lies on an image. Check image_key and coordinate_system.")
    return TilePlan(table, found, stored, off, arguments)


def _same_image(image_key: str | Mapping[str, str] | None, stored: Mapping[str, str] | None) -> bool:
    if image_key is None or stored is None:
        return True
    if isinstance(image_key, Mapping):
        return all(stored.get(section) == image for section, image in image_key.items())
    return set(stored.values()) == {image_key}


def _off_image(section: Section, off_slide: OffSlide) -> np.ndarray:
    image = section.image
    if image is None:  # `sections` has checked that there is one
        return np.ones(len(section.rows), bool)
    width, height = image.size_px
    x, y = section.xy_px.T
    off = (x < 0) | (y < 0) | (x > width) | (y > height)
    if off.any() and off_slide == "raise":
        first = np.flatnonzero(off)[0]
        raise ValueError(
            f"{int(off.sum())} of {len(off)} tile centres of section {section.name!r} are off image {image.name!r} "
            f"({width:.0f} x {height:.0f} pixels), such as row {int(section.rows[first])} at x = {x[first]:.0f}, "
            f"y = {y[first]:.0f}. Usual causes: another image is meant (image_key=…), another coordinate_system=…, or "
            "positions that are not in full-resolution pixels. Pass off_slide='nan' to leave such rows empty."
        )
    return off


def check_resolution(
    found: list[Section], tile_um: float, tile_px: int, on_low_res: LowRes, stacklevel: int = 4
) -> None:
    """Warn or raise where tiles would have to be enlarged to have ``tile_px`` pixels."""
    for section in found:
        if section.image is None or section.mpp is None or on_low_res == "allow":
            continue
        level_mpp = section.mpp * section.image.levels[0].scale_x
        native = tile_um / level_mpp
        if native >= _ENOUGH * tile_px:
            continue
        text = (
            f"Section {section.name!r}: {tile_px} pixels over {tile_um:g} um ask for {tile_um / tile_px:.3g} um per pixel, "
            f"image {section.image.name!r} has {level_mpp:.3g}: a tile of {max(1, round(native))} pixels would be enlarged to "
            f"{tile_px}. Add the full-resolution image. Or, where no model prescribes the tiles, pass "
            f"tile_px={max(1, int(native))} or a larger tile_um to sw.pp.embed_images or sw.pp.tiles. "
            f"sw.pp.tiles(data, tile_um={tile_um:g}, on_low_res='allow') takes them as they are."
        )
        if on_low_res == "error":
            raise ValueError(text)
        warn(text, stacklevel=stacklevel)
