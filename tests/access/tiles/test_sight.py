"""Whether features still show what they were computed from."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest

from spatialwhisperer._access.images import Level, RasterImage
from spatialwhisperer._access.sections.section import Section
from spatialwhisperer._access.tiles.intensity import check_intensity
from spatialwhisperer._access.tiles.sight import Sight

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = pd.Index([f"r{i}" for i in range(40)])


@pytest.fixture
def section() -> Section:
    """Forty rows on an image of noise."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (3, 300, 400), np.uint8)
    xy = rng.uniform([100, 100], [360, 260], (40, 2))
    return on(Section("s", np.arange(40), xy, None, None), pixels)


def on(section: Section, pixels: Any, scale: float = 1.0) -> Section:
    """The section on an image of its own."""
    size = pixels.shape[2] * scale, pixels.shape[1] * scale
    return replace(section, image=RasterImage("he", (Level(pixels, scale, scale),), size))


def cut(section: Section, x: int, y: int) -> Section:
    """The part of a section and its image right of and below a place."""
    assert section.image is not None
    return on(replace(section, xy_px=section.xy_px - [x, y]), section.image.levels[0].pixels[:, y:, x:])


def test_the_same_rows_on_the_same_pixels_are_the_same(section: Section) -> None:
    seen = Sight.of([section], NAMES)
    assert seen.changed([section], NAMES) == ""
    half = np.arange(0, 40, 2)
    part = replace(section, rows=np.arange(20), xy_px=section.xy_px[half])
    assert seen.changed([part], NAMES[half]) == ""


def test_rows_and_pixels_that_moved_together_are_the_same(section: Section) -> None:
    """As in a part that was cut out of a slide."""
    seen = Sight.of([section], NAMES)
    assert seen.changed([cut(section, 60, 35)], NAMES) == ""
    # of rows that lie beyond the cut nothing is known
    assert seen.changed([cut(section, 200, 180)], NAMES) == ""
    near = cut(section, 60, 35)
    assert seen.changed([replace(near, xy_px=near.xy_px + 0.05)], NAMES) == ""


@pytest.mark.parametrize(
    "change",
    [
        lambda one: replace(one, xy_px=one.xy_px + [7, 0]),
        lambda one: replace(one, xy_px=one.xy_px[::-1].copy()),
        lambda one: replace(cut(one, 60, 35), xy_px=one.xy_px - [60, 30]),
        lambda one: replace(cut(one, 60, 35), xy_px=one.xy_px - [60.5, 35]),
    ],
)
def test_rows_that_moved_on_the_image_are_not(section: Section, change: Callable[[Section], Section]) -> None:
    seen = Sight.of([section], NAMES)
    assert "lay elsewhere on the image" in seen.changed([change(section)], NAMES)


@pytest.mark.parametrize("n", [1, 5, 9])
def test_pixels_of_one_colour_do_not_tell_that_rows_and_pixels_moved_together(section: Section, n: int) -> None:
    assert section.image is not None
    pixels = section.image.levels[0].pixels.copy()
    pixels[:, :, :200] = 255
    blank = on(replace(section, xy_px=np.sort(section.xy_px, axis=0)), pixels)
    sections = [replace(blank, name=f"s{i}") for i in range(n)]
    seen = Sight.of(sections, NAMES)
    assert seen.changed(sections, NAMES) == ""
    last = replace(sections[-1], xy_px=sections[-1].xy_px + [-40, 0])
    assert "lay elsewhere on the image" in seen.changed([*sections[:-1], last], NAMES)
    white = on(sections[-1], np.full_like(pixels, 255))
    seen = Sight.of([white], NAMES)
    assert "lay elsewhere" in seen.changed([replace(white, xy_px=white.xy_px + 20)], NAMES)


def test_places_that_were_rounded_are_the_same(section: Section) -> None:
    seen = Sight.of([section], NAMES)
    assert seen.changed([replace(section, xy_px=np.rint(section.xy_px))], NAMES) == ""


def test_other_pixels_are_noticed(section: Section) -> None:
    assert section.image is not None
    seen = Sight.of([section], NAMES)
    other = on(section, 255 - section.image.levels[0].pixels)
    assert "computed from other pixels than those of row 'r" in seen.changed([other], NAMES)
    assert seen.changed([section], NAMES + "x") == "was computed of rows with other names"


def test_a_lazy_image_is_computed_once_for_all_places(section: Section) -> None:
    assert section.image is not None
    pixels = section.image.levels[0].pixels
    computed: list[int] = []

    def whole(block: np.ndarray) -> np.ndarray:
        computed.append(1)
        return block

    lazy = da.from_array(pixels, chunks=pixels.shape).map_blocks(whole, meta=pixels)
    slow = on(section, lazy)
    seen = Sight.of([slow], NAMES)
    assert len(computed) == 1
    assert seen == Sight.of([section], NAMES)
    assert seen.changed([slow], NAMES) == ""
    assert len(computed) == 2
    large = on(section, da.from_array(np.tile(pixels, (1, 6, 6)), chunks=-1).map_blocks(whole, meta=pixels))
    check_intensity(large)
    assert len(computed) == 3
