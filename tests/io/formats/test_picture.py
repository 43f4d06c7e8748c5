"""PNG of 16 bits: every value is kept, and what is transparent is laid over white."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest

import spatialwhisperer as sw
from tests.io.conftest import pixels_of

if TYPE_CHECKING:
    from pathlib import Path

GREY_ALPHA, RGB, RGBA = 4, 2, 6
VALUES = np.random.default_rng(0).integers(0, 2**16, (32, 40, 4), dtype=np.uint16)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def frame(number: int) -> bytes:
    return chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, 40, 32, 0, 0, 1, 10, 0, 0))


def write_png(
    path: Path, values: np.ndarray, kind: int, *, transparent: np.ndarray | None = None, frames: int = 1
) -> None:
    """A PNG of 16 bits; Pillow writes none in colour."""
    content = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in values))
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0))]
    if frames > 1:
        parts += [chunk(b"acTL", struct.pack(">II", frames, 0)), frame(0)]
    if transparent is not None:
        parts.append(chunk(b"tRNS", transparent.astype(">u2").tobytes()))
    parts.append(chunk(b"IDAT", content))
    for i in range(1, frames):
        parts += [frame(2 * i - 1), chunk(b"fdAT", struct.pack(">I", 2 * i) + content)]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b""))


def test_sixteen_bits_of_a_png_are_kept(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", VALUES[..., :3], RGB)
    found = pixels_of(sw.io.read_slide(tmp_path / "a.png"))
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, VALUES[..., :3])


def test_what_is_transparent_in_sixteen_bits_is_white(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", VALUES, RGBA)
    alpha = VALUES[..., 3:] / 65535
    expected = VALUES[..., :3] * alpha + 65535 * (1 - alpha)
    np.testing.assert_allclose(pixels_of(sw.io.read_slide(tmp_path / "a.png")), expected, atol=1)


def test_the_transparent_colour_of_sixteen_bits_is_white_and_its_neighbours_are_not(tmp_path: Path) -> None:
    values = VALUES[..., :3].copy()
    values[:2, :2] = 1000
    values[2, 2] = 1001
    write_png(tmp_path / "a.png", values, RGB, transparent=values[0, 0])
    expected = values.copy()
    expected[:2, :2] = 65535
    np.testing.assert_array_equal(pixels_of(sw.io.read_slide(tmp_path / "a.png")), expected)


def test_a_grey_png_of_sixteen_bits_is_refused_with_alpha_too(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", VALUES[..., :2], GREY_ALPHA)
    with pytest.raises(ValueError, match="is a grey image"):
        sw.io.read_slide(tmp_path / "a.png")


def test_bits_that_are_lost_are_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_png(tmp_path / "a.png", VALUES[..., :3], RGB, frames=2)
    found = pixels_of(sw.io.read_slide(tmp_path / "a.png", page=1))
    np.testing.assert_array_equal(found, VALUES[..., :3] >> 8)
    assert "its 16-bit values were cut to 8 bits" in capfd.readouterr().err
