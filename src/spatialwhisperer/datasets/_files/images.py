"""The image of a section: its size, and its pyramid as lazy arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spatialwhisperer.datasets._files import jpeg

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import dask.array as da

_JPEG = (".jpg", ".jpeg")


def size(path: Path) -> tuple[int, int]:
    """Width and height in pixels, from the header alone."""
    if path.suffix.lower() in _JPEG:
        return jpeg.size(path)
    _, height, width = levels(path)[0].shape
    return width, height


def levels(path: Path) -> Sequence[da.Array]:
    """Levels of its pyramid, uint8 (3, h, w), finest first. Tiles of a TIFF are decoded when they are asked for, a JPEG as a whole."""
    if path.suffix.lower() in _JPEG:
        from spatialwhisperer.datasets._sections.elements import CHUNK_PX, n_levels

        return jpeg.pyramid(path, chunk_px=CHUNK_PX, n=n_levels((3, *jpeg.size(path))))
    from spatialwhisperer.io.slide import levels_of

    return levels_of(path)
