"""Sizes of tiles: what is asked for comes before what was recorded, and that before what the encoder names."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from spatialwhisperer.models import EncoderSpec
from spatialwhisperer.pp.features.tile_sizes import (
    check_fine_enough,
    check_own_sizes,
    coarse_sections,
    has_own_sizes,
    tile_sizes,
)

STATED: Any = SimpleNamespace(tile_um=150.0, tile_px=96)
FIELD = EncoderSpec("field", "image", 3, input_px=224, mpp=0.5, tile_um=100.0)
TRAINED = EncoderSpec("trained", "image", 3, input_px=224, mpp=0.5)
NONE = EncoderSpec("none", "image", 3, input_px=224)
WINDOWS = EncoderSpec("windows", "image", 3, input_px=300, tile_um=300.0, windows_um=(100.0, 300.0))


@pytest.mark.parametrize(
    ("spec", "stated", "um", "px", "expected"),
    [
        (FIELD, STATED, 80.0, 64, ([80.0], 64)),
        (FIELD, STATED, (80.0, 40.0), None, ([80.0, 40.0], 96)),
        (FIELD, STATED, None, None, ([150.0], 96)),
        (FIELD, STATED, None, 64, ([150.0], 64)),
        (FIELD, None, None, None, ([100.0], 224)),
        (TRAINED, None, None, None, ([112.0], 224)),
        (NONE, None, 50.0, None, ([50.0], 224)),
        (WINDOWS, STATED, None, None, ([300.0], 300)),
    ],
)
def test_the_most_specific_statement_counts(spec: EncoderSpec, stated: Any, um: Any, px: Any, expected: Any) -> None:
    assert tile_sizes(spec, stated, um, px) == expected


def test_sizes_that_nobody_knows_or_that_come_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="'none' names no field of view"):
        tile_sizes(NONE, None, None, 64)
    with pytest.raises(ValueError, match=r"names a size twice: 80, 80|names a size twice"):
        tile_sizes(FIELD, None, (80, 80), 64)
    with pytest.raises(ValueError, match="names no size"):
        tile_sizes(FIELD, None, (), 64)


def test_an_encoder_of_windows_takes_its_own_sizes_alone() -> None:
    assert has_own_sizes(WINDOWS)
    assert not has_own_sizes(FIELD)
    check_own_sizes(WINDOWS, None, None)
    check_own_sizes(FIELD, 80.0, 64)
    with pytest.raises(ValueError, match=r"windows of 100, 300 µm.*found tile_um=80\."):
        check_own_sizes(WINDOWS, 80.0, None)
    with pytest.raises(ValueError, match=r"found tile_px=64\."):
        tile_sizes(WINDOWS, None, None, 64)


def section(name: str, mpp: float | None, x: float = 1.0, y: float = 1.0, finest: tuple[float, float] = (1, 1)) -> Any:
    """A section whose pixels are ``x`` and ``y`` times ``mpp`` long, and whose finest level has pixels of ``finest``."""
    level = SimpleNamespace(scale_x=finest[0], scale_y=finest[1])
    return SimpleNamespace(
        name=name, mpp=mpp, image=SimpleNamespace(levels=(level,)), pixel_um=lambda mpp: (mpp * x, mpp * y)
    )


def test_the_longer_side_of_the_finest_pixel_decides_whether_an_image_is_fine_enough() -> None:
    spec = EncoderSpec("fine", "image", 3, coarsest_mpp=1.0)
    without: Any = SimpleNamespace(name="without", mpp=0.5, image=None)
    sections = [
        section("at the limit", 1.0),
        section("coarse", 1.25),
        section("unknown", None),
        section("wide", 0.5, x=3.0),
        section("tall", 0.5, y=3.0),
        section("shrunk", 0.5, finest=(1, 4)),
        section("halved", 2.0, x=0.5, y=0.5),
        without,
    ]
    assert coarse_sections(sections, spec) == {"coarse": 1.25, "wide": 1.5, "tall": 1.5, "shrunk": 2.0}
    assert coarse_sections(sections, FIELD) == {}
    check_fine_enough(sections[:1], spec)
    with pytest.raises(
        ValueError, match=r"section 'coarse' has 1\.25 µm per pixel, and encoder 'fine' needs 1 or finer"
    ):
        check_fine_enough(sections, spec)
