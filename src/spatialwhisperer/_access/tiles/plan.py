"""Where tiles are: sections with image and scale, rows outside the image, and checks before anything is read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer import _keys
from spatialwhisperer._access.records import LowRes, OffSlide
from spatialwhisperer._access.tiles.reader import TileReader
from spatialwhisperer._access.tiles.scale_check import check_scale
from spatialwhisperer._access.tiles.sight import SAME_PX
from spatialwhisperer._access.tiles.swapped import check_axes
from spatialwhisperer._checks.values import one_of
from spatialwhisperer._messages import warn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from spatialwhisperer._access.sections.section import Section
    from spatialwhisperer._access.slide import Slide

_ENOUGH = 0.9


@dataclass(frozen=True)
class TilePlan:
    """Where the tiles of a slide are.

    Attributes
    ----------
    slide
        The slide.
    sections
        Its sections, each with an image and a scale.
    off
        Rows whose centre lies outside the image, Boolean, shape (n,).
    """

    slide: Slide
    sections: Sequence[Section]
    off: np.ndarray

    def centres(self) -> np.ndarray:
        """Centres in full-resolution pixels, shape (n, 2); NaN where they lie outside the image."""
        xy = np.full((self.slide.n_rows, 2), np.nan)
        for section in self.sections:
            xy[section.rows] = section.xy_px
        xy[self.off] = np.nan
        return xy

    def read(
        self, tile_um: float | None, tile_px: int, *, whole: bool = False, sections: Sequence[Section] | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Read the tiles of all rows whose centre lies on the image.

        Parameters
        ----------
        tile_um, tile_px
            Edge of a tile in microns and in pixels; ``None`` takes pixels of the image as they are, around the pixel of the centre.
        whole
            Leave out tiles that cross the edge of the image.
        sections
            Some of the sections; ``None`` reads all.

        Yields
        ------
        Rows of the table, shape (k,), and their tiles, uint8, shape (k, 3, tile_px, tile_px).
        """
        for section in self.sections if sections is None else sections:
            shown, edge = (section, tile_um) if tile_um is not None else _native(section, tile_px)
            reader = TileReader(shown, tile_um=edge, tile_px=tile_px)
            keep = ~self.off[section.rows]
            if whole:
                keep &= reader.inside == 1
            for positions, tiles in reader.read(np.flatnonzero(keep)):
                yield section.rows[positions], tiles


def plan_tiles(slide: Slide, off_slide: OffSlide | None = None) -> TilePlan:
    """Find the sections of a slide, and the rows whose centre lies outside their image.

    Parameters
    ----------
    slide
        The slide.
    off_slide
        What to do with rows whose centre lies outside the image; ``None`` does what :func:`spatialwhisperer.pp.tiles` recorded, else
        raises.

    Raises
    ------
    KeyError
        If a section has no image.
    ValueError
        If there are no rows, a scale is not known, a coordinate is NaN, x and y were exchanged, or centres lie outside the image.
    """
    if slide.n_rows == 0:
        raise ValueError("The table has no rows, so there is nothing to cut tiles for.")
    sections = slide.scaled()
    stated: OffSlide = "raise" if slide.tiles is None else slide.tiles.off_slide
    how = one_of("off_slide", off_slide or stated, OffSlide)
    off = np.zeros(slide.n_rows, bool)
    # once: what `tiles` recorded was checked by it, where rows lie as they did
    if not slide.drawing and (slide.tiles is None or _moved(slide, sections)):
        for section in sections:
            check_axes(section, in_table=not slide.is_spatialdata)
            # squares that another tool laid have no genes, and lie as it pleased
            if slide.table.n_vars:
                check_scale(section)
    for section in sections:
        off[section.rows] = _off_image(section, how)
    if off.all():
        raise ValueError("No tile centre lies on an image. Check image_key and coordinate_system.")
    return TilePlan(slide, sections, off)


def _moved(slide: Slide, sections: Sequence[Section]) -> bool:
    """Whether a row lies elsewhere than when :func:`spatialwhisperer.pp.tiles` looked."""
    centres = np.asarray(slide.table.obsm.get(_keys.TILES, ()))
    if centres.shape != (slide.n_rows, 2):
        return True
    # rows outside the image have no centre
    return any(bool((np.abs(centres[s.rows] - s.xy_px) > SAME_PX).any()) for s in sections)


def _native(section: Section, tile_px: int) -> tuple[Section, float]:
    """A section whose centres are corners of pixels, and the edge in microns of so many of its pixels."""
    mpp = section.mpp
    if mpp is None or section.pixel_um(mpp) != (mpp, mpp):
        raise ValueError(
            f"Pixels of section {section.name!r} are not squares, so that they cannot be taken as they are."
        )
    return replace(section, xy_px=np.floor(section.xy_px)), tile_px * mpp


def _off_image(section: Section, off_slide: OffSlide) -> np.ndarray:
    image = section.image
    if image is None:  # `scaled` has checked that there is one
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


def check_resolution(sections: Sequence[Section], tile_um: float, tile_px: int, on_low_res: LowRes) -> None:
    """Warn or raise where tiles must be enlarged to ``tile_px`` pixels, because the image is too coarse."""
    for section in sections:
        if section.image is None or section.mpp is None or on_low_res == "allow":
            continue
        finest = section.image.levels[0]
        width_um, height_um = section.pixel_um(section.mpp)
        level_mpp = max(width_um * finest.scale_x, height_um * finest.scale_y)
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
        warn(text)
