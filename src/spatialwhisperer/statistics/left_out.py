"""Rows that are left out together when something is chosen by prediction of rows that were not seen."""

from __future__ import annotations

import numpy as np

FEWEST_PATIENTS = 3
"""Fewest patients that are left out in turn."""

BLOCK_ROWS = 12
"""Rows of a block of neighbouring spots, which are held out together where a classifier is tested."""

BLOCKS = 8
"""Blocks of a section that are left out in turn where there is one section only."""


def left_out_units(groups: np.ndarray, sections: np.ndarray | None, positions: np.ndarray | None) -> np.ndarray:
    """Code of the unit of each row, shape (n,).

    Units are the patients (groups) where there are three or more. With two, each fold would see one patient only: what is chosen would
    suit half of the data, and no variation between patients. Then units are the sections, and where there is one section they are eight
    blocks of it with equal numbers of rows. Single spots are never units: their tiles overlap, so that a spot that is left out has near
    copies among the others. Blocks are spatial where every row has a position, otherwise they are runs of the rows in their order.

    Parameters
    ----------
    groups
        Patient of each row, shape (n,).
    sections
        Section of each row, shape (n,), or ``None``.
    positions
        Position of each row, shape (n, 2), or ``None``.
    """
    for names, fewest in ((groups, FEWEST_PATIENTS), (sections, 2), (groups, 2)):
        if names is not None:
            codes = np.unique(np.asarray(names).astype(str), return_inverse=True)[1]
            if codes.max(initial=0) + 1 >= fewest:
                return codes
    n = len(groups)
    codes = np.zeros(n, np.int64)
    if positions is not None and np.isfinite(positions).all():
        codes = _blocks(np.asarray(positions, dtype=np.float64))
    return codes if codes.max(initial=0) else np.arange(n) * min(BLOCKS, n) // max(n, 1)


def _blocks(xy: np.ndarray) -> np.ndarray:
    """Halve all blocks across their longer axis, until there are enough; rows at one position stay together."""
    blocks = [np.arange(len(xy))]
    while len(blocks) < BLOCKS:
        halves = [half for block in blocks for half in _halves(xy, block)]
        if len(halves) == len(blocks):
            break
        blocks = halves
    codes = np.zeros(len(xy), np.int64)
    for code, block in enumerate(blocks):
        codes[block] = code
    return codes


def _halves(xy: np.ndarray, block: np.ndarray) -> list[np.ndarray]:
    extent = np.ptp(xy[block], axis=0) if len(block) else np.zeros(2)
    if not extent.any():
        return [block]
    along = xy[block, int(np.argmax(extent))]
    order = np.argsort(along, kind="stable")
    # the cut between two different coordinates that is nearest to the middle
    cuts = 1 + np.flatnonzero(np.diff(along[order]))
    cut = cuts[np.argmin(np.abs(cuts - len(block) / 2))]
    return [block[order[:cut]], block[order[cut:]]]


def neighbour_blocks(positions: np.ndarray | None, sections: np.ndarray, rows: int = BLOCK_ROWS) -> np.ndarray:
    """Cut each section into blocks of about ``rows`` neighbouring rows.

    Parameters
    ----------
    positions
        Position of each row, shape (n, 2), in any unit. Where it is ``None`` or not finite, every row is a block of its own.
    sections
        Section of each row, shape (n,).
    rows
        Number of rows in a block.

    Returns
    -------
    Integer code of the block of each row, shape (n,).
    """
    n = len(sections)
    if positions is None or not np.isfinite(positions).all():
        return np.arange(n)
    out = np.empty(n, int)
    used = 0
    for name in np.unique(sections.astype(str)):
        inside = np.flatnonzero(sections.astype(str) == name)
        parts = max(1, round(np.sqrt(len(inside) / rows)))
        column = _cut(positions[inside, 0], parts)
        for c in range(parts):
            strip = inside[column == c]
            out[strip] = used + _cut(positions[strip, 1], parts)
            used += parts
    return out


def _cut(values: np.ndarray, parts: int) -> np.ndarray:
    """Code of the part of each value, when the sorted values are cut into parts of equal size."""
    rank = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    return rank * parts // max(len(values), 1)
