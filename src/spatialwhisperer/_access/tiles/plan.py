"""Where tiles are: sections with image and scale, rows outside the image, and checks before anything is read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer import _keys
from spatialwhisperer._access.elements.outlines import Outlines
from spatialwhisperer._access.records import LowRes, OffSlide
from spatialwhisperer._access.tables import is_spatialdata
from spatialwhisperer._access.tiles.reader import TileReader
from spatialwhisperer._access.tiles.scale_check import check_scale
from spatialwhisperer._access.tiles.sight import SAME_PX
from spatialwhisperer._access.tiles.swapped import check_axes
from spatialwhisperer._checks.values import one_of
from spatialwhisperer._messages import inform, listing, warn

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
            check_axes(section, None if slide.is_spatialdata else slide.table.obsm["spatial"])
            # squares that another tool laid have no genes, and lie as it pleased
            if slide.table.n_vars:
                check_scale(section)
    for section in sections:
        off[section.rows] = _off_image(slide, section, how)
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


def _off_image(slide: Slide, section: Section, off_slide: OffSlide) -> np.ndarray:
    image = section.image
    if image is None:  # `scaled` has checked that there is one
        return np.ones(len(section.rows), bool)
    width, height = image.size_px
    x, y = section.xy_px.T
    off = (x < 0) | (y < 0) | (x > width) | (y > height)
    if not off.any() or off_slide == "nan":
        return off
    where = f"{int(off.sum())} of {len(off)} tile centres of section {section.name!r}"
    if _across_edge(slide, section, off):
        inform(
            f"{where} lie off image {image.name!r}, and their shapes reach onto it, as where a part was cut out of a slide: these rows stay empty."
        )
        return off
    first = np.flatnonzero(off)[0]
    raise ValueError(
        f"{where} are off image {image.name!r} ({width:.0f} x {height:.0f} pixels), such as row {int(section.rows[first])} at x = "
        f"{x[first]:.0f}, y = {y[first]:.0f}. Usual causes: another image is meant (image_key=…), another coordinate_system=…, positions "
        "that are not in full-resolution pixels, or an image that was cropped. sw.pp.tiles(data, tile_um=…, off_slide='nan') leaves such "
        "rows empty, also in later calls."
    )


def _across_edge(slide: Slide, section: Section, off: np.ndarray) -> bool:
    """Whether all rows whose centre lies off the image, fewer than half, have shapes of their own that reach onto it.

    Queries of spatialdata keep every shape that the box touches, and cut the image at the box.
    """
    import shapely

    if section.image is None or 2 * off.sum() >= len(off):
        return False
    if not is_spatialdata(slide.data) or section.name not in slide.data.shapes:
        return False
    outlines = Outlines(slide, section).of(np.flatnonzero(off))
    return bool(shapely.intersects(outlines, shapely.box(0, 0, *section.image.size_px)).all())


def check_resolution(sections: Sequence[Section], sizes_um: Sequence[float], tile_px: int, on_low_res: LowRes) -> None:
    """Warn or raise, once for all sections and tile sizes, where tiles must be enlarged to ``tile_px`` pixels."""
    if on_low_res == "allow":
        return
    coarse = [text for section in sections if (text := _enlarged(section, sizes_um, tile_px))]
    if not coarse:
        return
    text = (
        f"Tiles would be enlarged to {tile_px} pixels, because the image is too coarse ({listing(coarse, 3)}). Add the full-resolution "
        "image. Or, where no model prescribes the tiles, pass a smaller tile_px or a larger tile_um to sw.pp.embed_images or sw.pp.tiles. "
        f"sw.pp.tiles(data, tile_um={sizes_um[0]:g}, on_low_res='allow') takes them as they are."
    )
    if on_low_res == "error":
        raise ValueError(text)
    warn(text)


def _enlarged(section: Section, sizes_um: Sequence[float], tile_px: int) -> str:
    """Which tiles of a section have fewer pixels than are asked for, as text; empty where none has."""
    if section.image is None or section.mpp is None:
        return ""
    finest = section.image.levels[0]
    width_um, height_um = section.pixel_um(section.mpp)
    level_mpp = max(width_um * finest.scale_x, height_um * finest.scale_y)
    few = [um for um in sizes_um if um / level_mpp < _ENOUGH * tile_px]
    if not few:
        return ""
    asked = " and ".join(
        f"{um:g} um for {um / tile_px:.3g} (at most tile_px={max(1, int(um / level_mpp))})" for um in few
    )
    return f"section {section.name!r}: image {section.image.name!r} has {level_mpp:.3g} um per pixel, and tiles ask for less: {asked}"
