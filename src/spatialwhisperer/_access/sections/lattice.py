"""The lattice on which spots lie. On a known array the distance between them is known in microns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from spatialwhisperer._access.contract import holds_numbers
from spatialwhisperer._messages import inform, listing, warn

if TYPE_CHECKING:
    import pandas as pd


VISIUM_PITCH_UM = 100.0
ARRAY_COLUMNS = ("array_col", "array_row")
ST_PITCHES_UM = (200.0, 200.0 / 2**0.5)
_ST_LONG, _ST_SHORT = 35, 33
_FEWEST_SPOTS = 50
_REACH = 1.9
_FIRST, _SQUARE, _HEXAGONAL = (0.85, 1.15), (1.29, 1.54), (1.61, 1.86)
_BETWEEN = ((1.18, 1.26), (1.56, 1.6))
_FEW = 0.15
_LEAST_NEIGHBOURS = 2.5
_TOLERANCE = 1.15
_SMALLEST_UM = 30.0

_ALIKE = 1.05
_NEAR = 1.6
_WINDOW = 0.2
_ROUNDS = 10
_LEAST_MEASURED, _CLOSER = 1.5, 0.1
_FEWEST_INDEXED = 10
_MISPLACED = 0.1
_MOST_MISPLACED = 0.02
_MOST_FITS = 8


def squared(xy_px: np.ndarray, stretch: float) -> np.ndarray:
    """Positions in pixels, shape (n, 2), in square pixels of the same area."""
    return xy_px * [stretch**0.5, stretch**-0.5]


def array_indices(obs: pd.DataFrame) -> np.ndarray | None:
    """Column and row of each spot on the array, float64, shape (n, 2); ``None`` where nothing states both in numbers.

    Numbers that are stored as text are read as :func:`pandas.to_numeric` reads them.
    """
    if not all(column in obs for column in ARRAY_COLUMNS):
        return None
    read = [_as_numbers(obs[column]) for column in ARRAY_COLUMNS]
    return None if any(values is None for values in read) else np.column_stack(read)  # type: ignore[arg-type]


def _as_numbers(column: pd.Series) -> np.ndarray | None:
    import pandas as pd

    if not holds_numbers(column):
        try:
            # a categorical column is that of its values
            column = pd.to_numeric(column.astype(object))
        except (TypeError, ValueError):
            return None
    return column.to_numpy(dtype=np.float64, na_value=np.nan) if holds_numbers(column) else None


def say_unread_indices(obs: pd.DataFrame) -> None:
    """Say that the array indices are left out, where they are there and hold no numbers."""
    if all(column in obs for column in ARRAY_COLUMNS) and array_indices(obs) is None:
        column = next(name for name in ARRAY_COLUMNS if _as_numbers(obs[name]) is None)
        inform(
            f".obs[{column!r}] holds values that are no numbers: nothing is read from the places on the array. Store it as integers, or drop it."
        )


def hexagonal_pitch_px(obs: pd.DataFrame, xy_px: np.ndarray) -> float | None:
    """Centre-to-centre distance in pixels of spots on a hexagonal array; ``None`` where the indices describe another one.

    Within a row of a hexagonal array, column indices go up by two, and rows alternate between even and odd columns. An affine map from
    indices to pixels is fitted to all spots but the few that lie on the place of another one, and the pitch is the length of two
    columns under it. Rounded pixel coordinates average out, and a subset of the spots gives the same pitch.

    Parameters
    ----------
    obs
        Rows of the table, with ``array_col`` and ``array_row``.
    xy_px
        Their centres in full-resolution pixels, shape (n, 2).
    """
    fit = _fitted(obs, xy_px)
    if fit is None or len(np.unique(fit.array.sum(axis=1) % 2)) > 1:
        return None
    pitch = float(2 * np.linalg.norm(fit.column))
    others = np.linalg.norm([fit.column + fit.row, fit.column - fit.row], axis=1)
    if not pitch or (abs(others / pitch - 1) > _ALIKE - 1).any() or fit.misplaced > _MISPLACED * pitch:
        return None
    return pitch


def square_pitch_px(section: str, obs: pd.DataFrame, xy_px: np.ndarray) -> float | None:
    """Centre-to-centre distance in pixels of spots on a square array; ``None`` where the indices describe another one.

    Within a row of a square array, column indices go up by one. Printed spots miss their places. The pitch is therefore that of the
    square grid that fits the places of all spots best: far pairs of spots decide, and a narrow part of a section gives nearly the same
    pitch as all of it.

    Parameters
    ----------
    section
        Name of the section, for the message.
    obs, xy_px
        See `hexagonal_pitch_px`.

    Raises
    ------
    ValueError
        If only every second index or fewer are there. Whether that is the array, or a part of its spots, cannot be told.
    """
    fit = _fitted(obs, xy_px)
    if fit is None:
        return None
    edges = np.linalg.norm([fit.column, fit.row], axis=1)
    diagonals = np.linalg.norm([fit.column + fit.row, fit.column - fit.row], axis=1) / 2**0.5
    pitch = float(edges.mean())
    uneven = (abs(np.concatenate([edges, diagonals]) / pitch - 1) > _ALIKE - 1).any() if pitch else True
    if uneven or fit.misplaced > _MISPLACED * pitch or (fit.array % 1).any():
        return None
    steps = (fit.array - fit.array[0]).astype(np.int64)
    columns, rows, along = (int(np.gcd.reduce(one)) for one in (steps[:, 0], steps[:, 1], steps.sum(axis=1)))
    if max(columns, rows, along) > 1:
        raise ValueError(
            f"The {len(steps)} spots of section {section!r} are only on every second column, row or diagonal of the array that "
            ".obs[['array_col', 'array_row']] describe, or on fewer. Whether spot_pitch_um is the distance between these spots or between "
            "places of the array cannot be told. Pass mpp=… instead."
        )
    return _edge_of_squares(fit)


def _edge_of_squares(fit: _Fit) -> float:
    """Edge of the squares of the grid, turned and mirrored in any way, that has its places nearest to the spots."""
    array, xy = fit.array - fit.array.mean(axis=0), fit.xy - fit.xy.mean(axis=0)
    mirrored = np.linalg.det(np.stack([fit.column, fit.row])) < 0
    # in complex numbers, such a grid is one factor times the indices
    places, indices = xy @ [1, 1j], array @ [1, -1j if mirrored else 1j]
    return float(abs(np.vdot(indices, places)) / np.vdot(indices, indices).real)


class _Fit(NamedTuple):
    """An affine map from array indices to pixels, of the spots that lie near their places.

    Attributes
    ----------
    array, xy
        Their indices and their centres in pixels, shape (n, 2).
    column, row
        Steps of a column and of a row in pixels.
    misplaced
        By how far they miss their places, as a median.
    elsewhere
        Rows of the table of the spots that were left out.
    """

    array: np.ndarray
    xy: np.ndarray
    column: np.ndarray
    row: np.ndarray
    misplaced: float
    elsewhere: np.ndarray


def _fitted(obs: pd.DataFrame, xy_px: np.ndarray) -> _Fit | None:
    """The map of the spots with indices and places; ``None`` where they are too few, or in one line."""
    indices = array_indices(obs)
    if indices is None:
        return None
    known = np.flatnonzero(np.isfinite(indices).all(axis=1) & np.isfinite(xy_px).all(axis=1))
    array, xy = indices[known], xy_px[known]
    design = np.column_stack([np.ones(len(array)), array])
    if len(array) < _FEWEST_INDEXED or np.linalg.matrix_rank(design) < 3:
        return None
    near = _near_their_places(design, xy)
    fitted = np.linalg.lstsq(design[near], xy[near])[0]
    misplaced = float(np.median(np.linalg.norm(design[near] @ fitted - xy[near], axis=1)))
    return _Fit(array[near], xy[near], fitted[1], fitted[2], misplaced, known[~near])


def _near_their_places(design: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """All spots but the few that lie as far from their place as the next place of the array, Boolean; all where they are not few.

    A spot that is far off moves the places of all others. Where more seem misplaced than may be, as many as may be are left out,
    those that are furthest off, and the others are looked at again from the places without them.
    """
    most, near = int(_MOST_MISPLACED * len(xy)), np.ones(len(xy), bool)
    for _ in range(_MOST_FITS):
        fitted = np.linalg.lstsq(design[near], xy[near])[0]
        off = np.linalg.norm(design @ fitted - xy, axis=1)
        found = off <= abs(np.linalg.det(fitted[1:])) ** 0.5
        if (~found).sum() > most:
            found = np.ones(len(xy), bool)
            found[np.argsort(-off, kind="stable")[:most]] = False
        elif (found == near).all():
            return near
        near = found
    return np.ones(len(xy), bool)


def say_misplaced(obs: pd.DataFrame, xy_px: np.ndarray) -> None:
    """Warn of the few spots of an array that lie elsewhere than their indices say."""
    fit = _fitted(obs, xy_px)
    if fit is None or not len(fit.elsewhere):
        return
    n = len(fit.elsewhere)
    warn(
        f"{n} of {len(fit.array) + n} spots {'lies' if n == 1 else 'lie'} elsewhere than .obs[['array_col', 'array_row']] say: "
        f"{listing(map(repr, map(str, obs.index[fit.elsewhere])), 3)}. The scale is that of the other spots. Correct the positions of these "
        "rows, or drop them."
    )


def spot_pitch_px(section: str, xy_px: np.ndarray, obs: pd.DataFrame | None = None) -> float:
    """Centre-to-centre distance of the spots of a lattice, in full-resolution pixels: by their array indices, else measured.

    The median distance to the nearest neighbour is too small where spots deviate from the lattice, because the nearest of four to six
    neighbours is taken. It is therefore only the start value of the median over all pairs within 20 % of that median.

    Parameters
    ----------
    section
        Name of the section, for messages.
    xy_px
        Centres of the spots, shape (n, 2).
    obs
        Their rows of the table.

    Raises
    ------
    ValueError
        If there are too few spots, or too few neighbours among them.
    """
    if obs is not None:
        pitch = hexagonal_pitch_px(obs, xy_px) or square_pitch_px(section, obs, xy_px)
        if pitch is not None:
            say_misplaced(obs, xy_px)
            return pitch
    return _measured_pitch_px(section, xy_px)


def _measured_pitch_px(section: str, xy_px: np.ndarray) -> float:
    from scipy.spatial import cKDTree

    places = np.unique(xy_px[np.isfinite(xy_px).all(axis=1)], axis=0)
    if len(places) < 3:
        raise ValueError(
            f"Section {section!r} has {len(places)} spots with a place of their own: too few to measure their pitch. Pass mpp=… "
            "instead of spot_pitch_um."
        )
    tree = cKDTree(places)
    pitch = float(np.median(tree.query(places, k=2)[0][:, 1]))
    pairs = tree.query_pairs(_NEAR * pitch, output_type="ndarray")
    distance = np.linalg.norm(places[pairs[:, 0]] - places[pairs[:, 1]], axis=1)
    for _ in range(_ROUNDS):
        near = distance[np.abs(distance - pitch) < _WINDOW * pitch]
        if not len(near):
            break
        pitch = float(np.median(near))
    neighbours = 2 * float((np.abs(distance - pitch) < _WINDOW * pitch).sum())
    closer = 2 * float((distance <= (1 - _WINDOW) * pitch).sum())
    if neighbours < _LEAST_MEASURED * len(places) or closer > _CLOSER * neighbours:
        raise ValueError(
            f"The {len(places)} spots of section {section!r} lie too far apart to measure their pitch: on average, a spot has "
            f"{neighbours / len(places):.2g} neighbours at the most frequent distance, {pitch:.4g} pixels, and "
            f"{closer / len(places):.2g} closer ones. Pass mpp=… instead of spot_pitch_um, or all spots of the section."
        )
    return pitch


@dataclass(frozen=True)
class Lattice:
    """Spots on a lattice.

    Attributes
    ----------
    kind
        Its form.
    pitch_px
        Distance between neighbours.
    extent
        Spots along the longer and the shorter edge of the smallest upright rectangle around them, in units of the pitch.
    """

    kind: Literal["square", "hexagonal"]
    pitch_px: float
    extent: tuple[float, float]

    @property
    def known_um(self) -> tuple[float, ...]:
        """Distances between neighbours on arrays of this form and size; empty where there is no such array.

        A hexagonal lattice is that of Visium. A square one that fits into 33 x 35 spots is that of the first Spatial Transcriptomics
        arrays, of 1,000 spots or of 2,000, which are two of the former with one between the other. Larger ones are also the bins of
        other platforms, of any size.
        """
        if self.kind == "hexagonal":
            return (VISIUM_PITCH_UM,)
        fits = self.extent[0] <= _ST_LONG and self.extent[1] <= _ST_SHORT
        return ST_PITCHES_UM if fits else ()


def lattice_of(xy_px: np.ndarray) -> Lattice | None:
    """The lattice on which spots lie, by the distances between near ones; ``None`` where they lie on none, such as cells.

    Parameters
    ----------
    xy_px
        Centres of the spots in square pixels, shape (n, 2).
    """
    from scipy.spatial import cKDTree

    places = np.unique(xy_px[np.isfinite(xy_px).all(axis=1)], axis=0)
    if len(places) < _FEWEST_SPOTS:
        return None
    tree = cKDTree(places)
    pitch = float(np.median(tree.query(places, k=2)[0][:, 1]))
    near = tree.query_ball_point(places, _REACH * pitch, return_length=True)
    if not pitch or near.mean() > 4 * _REACH**2:
        return None
    pairs = tree.query_pairs(_REACH * pitch, output_type="ndarray")
    distance = np.linalg.norm(places[pairs[:, 0]] - places[pairs[:, 1]], axis=1)
    pitch = float(np.median(distance[distance < _FIRST[1] * pitch]))
    first, square, hexagonal, *between = (
        int(((distance > low * pitch) & (distance < high * pitch)).sum())
        for low, high in (_FIRST, _SQUARE, _HEXAGONAL, *_BETWEEN)
    )
    if 2 * first < _LEAST_NEIGHBOURS * len(places) or sum(between) > _FEW * first:
        return None
    size = np.sort(np.ptp(places, axis=0) / pitch + 1)
    extent = (float(size[1]), float(size[0]))
    if hexagonal < _FEW * square:
        return Lattice("square", pitch, extent)
    return Lattice("hexagonal", pitch, extent) if square < _FEW * hexagonal else None


def scale_differs(xy_px: np.ndarray, mpp: float) -> tuple[float, Lattice] | None:
    """How far apart spots are in microns by a scale, and their lattice, where other distances are known; else ``None``.

    Squares closer than 30 µm are the bins of a platform, not spots.
    """
    lattice = lattice_of(xy_px)
    if lattice is None or not lattice.known_um:
        return None
    apart = lattice.pitch_px * mpp
    if lattice.kind == "square" and apart < _SMALLEST_UM:
        return None
    fits = any(max(apart, known) <= _TOLERANCE * min(apart, known) for known in lattice.known_um)
    return None if fits else (apart, lattice)
