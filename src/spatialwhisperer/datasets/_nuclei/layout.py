"""One labelled image, and how the images of a data set become tiles."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatialwhisperer._checks.values import positive
from spatialwhisperer._messages import listing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import dask.array as da
    import numpy as np


@dataclass(frozen=True)
class LabelledImage:
    """One image with its masks.

    Attributes
    ----------
    pixels
        RGB, uint8 (3, h, w).
    instances
        Nucleus of each pixel, 0 for none; integers (h, w).
    classes
        Class of each pixel as its position among the names, integers (h, w).
    describe
        Gives further columns of the table, from the column and row of each tile, shape (n, 2); ``None``: there are none.
    """

    pixels: np.ndarray | da.Array
    instances: np.ndarray
    classes: np.ndarray
    describe: Callable[[np.ndarray], dict[str, Any]] | None = None


@dataclass(frozen=True)
class Layout:
    """How the images of a data set become tiles.

    Attributes
    ----------
    dataset, source, licence
        What is recorded of their origin.
    classes
        Names by class code.
    mpp
        Microns per pixel.
    tile_px
        Edge of a tile in pixels.
    always_drop
        Whether nuclei in the last occupied row and column of the grid are left out even where the grid has only one row or column.
    """

    dataset: str
    source: str
    licence: str
    classes: tuple[str, ...]
    mpp: float
    tile_px: int
    always_drop: bool

    def __post_init__(self) -> None:
        positive("mpp", self.mpp)
        if isinstance(self.tile_px, bool) or not isinstance(self.tile_px, int) or self.tile_px < 1:
            raise ValueError(f"tile_px must be a positive whole number, not {self.tile_px!r}.")


def choose(images: str | Sequence[str] | None, available: Sequence[str], where: str) -> list[str]:
    """Names that were asked for, or all.

    Parameters
    ----------
    images
        One name or several; ``None`` takes all.
    available
        Names that exist.
    where
        How the error calls the place.

    Raises
    ------
    ValueError
        If a name is unknown or repeated, or there is none.
    """
    names = list(available) if images is None else [images] if isinstance(images, str) else list(images)
    unknown = [n for n in names if n not in set(available)]
    if unknown or not names:
        raise ValueError(f"{where} has no image {listing(unknown)}; it has {listing(available)}.")
    if len(set(names)) < len(names):
        raise ValueError(f"Each image can be asked for once; found {listing(names)}.")
    return names


def folder_of(data_dir: str | Path) -> Path:
    """The folder.

    Raises
    ------
    FileNotFoundError
        If it is not one.
    """
    folder = Path(data_dir).expanduser()
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{folder} is not a folder.")
    return folder
