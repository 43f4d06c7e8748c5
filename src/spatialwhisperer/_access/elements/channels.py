"""Channels of an image: which of them are red, green, blue and alpha, and what shows where an image is transparent."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

_COLOURS = {"r": 0, "red": 0, "g": 1, "green": 1, "b": 2, "blue": 2, "a": 3, "alpha": 3}
_COLOUR = r"(red|green|blue|alpha|(?<![^\W_])[rgba](?![^\W_]))"
"""The word of a colour, or its letter where that stands alone."""
_NUMBERED = re.compile(r"(.*?)(\d+)")


def colour_order(names: Sequence[object], n_channels: int) -> tuple[int, ...] | None:
    """Positions of red, green, blue and, where there is one, alpha.

    Parameters
    ----------
    names
        Names of the channels; empty where they have none.
    n_channels
        Number of channels.

    Returns
    -------
    The positions: by the names where these are colours, else in the order of the channels where these are only numbered. Channels
    without a name beside colours are the colours that are left, in their order; none of them is alpha. ``None`` for an image that is
    not RGB or RGBA, such as one whose channels are named after stains.
    """
    if n_channels not in (3, 4):
        return None
    lower = _lower(names)
    if len(set(lower)) < 2 or _only_numbered(lower):
        return tuple(range(n_channels))
    colours = _colours(lower)
    missing = iter(sorted({0, 1, 2} - set(colours)))
    filled = [colour if name else next(missing, None) for name, colour in zip(lower, colours, strict=True)]
    if set(filled) != set(range(n_channels)):
        return None
    return tuple(filled.index(colour) for colour in range(n_channels))


def are_colours(names: Sequence[object]) -> bool:
    """Whether channels have names, each of a colour or alpha."""
    return len(names) > 0 and None not in _colours(_lower(names))


def _lower(names: Sequence[object]) -> list[str]:
    return [str(name).strip().lower() for name in names]


def _colours(names: Sequence[str]) -> list[int | None]:
    """The colour that each name states, beside a text with which all of them begin or end; ``None`` where one states none."""
    different = {name for name in names if name}
    before = after = ""
    if len(different) > 1:
        before = os.path.commonprefix(list(different))
        after = os.path.commonprefix([name[::-1] for name in different])[::-1]
    stated = re.compile(re.escape(before) + _COLOUR + re.escape(after))
    return [_COLOURS[found.group(1)] if (found := stated.fullmatch(name)) else None for name in names]


def _only_numbered(names: Sequence[str]) -> bool:
    """Whether names are numbers, or one word with numbers that count up from 0 or 1, as ``c0``, ``c1`` and ``c2``."""
    found = [_NUMBERED.fullmatch(name) for name in names]
    words = {one.group(1) for one in found if one is not None}
    if None in found or len(words) > 1:
        return False
    numbers = [int(one.group(2)) for one in found if one is not None]
    return words == {""} or numbers in (list(range(len(names))), list(range(1, len(names) + 1)))


def on_white(block: np.ndarray, *, premultiplied: bool = False) -> np.ndarray:
    """RGBA laid over white, in the type it had; shape (…, 4)."""
    top = 1.0 if np.issubdtype(block.dtype, np.floating) else float(np.iinfo(block.dtype).max)
    alpha = block[..., 3:4].astype(np.float32) / top
    colour = block[..., :3].astype(np.float32)
    laid = (colour if premultiplied else colour * alpha) + top * (1 - alpha)
    return laid.clip(0, top).astype(block.dtype) if top == 1.0 else np.rint(laid.clip(0, top)).astype(block.dtype)


def laid_on_white(planes: np.ndarray) -> np.ndarray:
    """Red, green, blue and alpha of shape (4, y, x) as red, green and blue over white. An opaque image keeps its values."""
    if planes.dtype.kind not in "uf":
        return planes[:3]
    top = 1 if planes.dtype.kind == "f" else np.iinfo(planes.dtype).max
    if (planes[3] >= top).all():
        return planes[:3]
    return np.ascontiguousarray(np.moveaxis(on_white(np.moveaxis(planes, 0, -1)), -1, 0))
