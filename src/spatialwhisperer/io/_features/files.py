"""Files of features: one row for each tile, with its coordinates."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spatialwhisperer._messages import listing


@dataclass(frozen=True)
class FeatureFile:
    """Content of a file of features.

    Attributes
    ----------
    path
        The file.
    features
        Float32, shape (n, d).
    coordinates
        x and y of each tile as they are stored, shape (n, 2).
    attributes
        What is stated about them.
    names
        Name of each tile, or ``None``.
    """

    path: Path
    features: np.ndarray
    coordinates: np.ndarray
    attributes: dict[str, Any]
    names: np.ndarray | None

    def number(self, name: str) -> float | None:
        """A positive number that is stated."""
        try:
            value = float(self.attributes[name])
        except (KeyError, TypeError, ValueError):
            return None
        return value if np.isfinite(value) and value > 0 else None

    def text(self, name: str) -> str | None:
        """A text that is stated."""
        value = self.attributes.get(name)
        text = value.decode() if isinstance(value, bytes) else value
        return str(text) if text else None

    def stride(self) -> float | None:
        """Median distance from a tile to the nearest one, along x or y, whichever is larger; ``None`` for a single tile."""
        from scipy.spatial import cKDTree

        places = np.unique(self.coordinates, axis=0)
        return float(np.median(cKDTree(places).query(places, k=2, p=np.inf)[0][:, 1])) if len(places) > 1 else None


def read_features(path: Any, features: str, names: str | None = None) -> FeatureFile:
    """Read an h5 file with features, coordinates and, where they are asked for, names."""
    import h5py

    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be the path of an h5 file, not {type(path).__name__}.")
    place = Path(path).expanduser()
    if not place.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    try:
        with h5py.File(place) as h5:
            missing = [key for key in (features, "coords", names) if key is not None and key not in h5]
            if missing:
                raise ValueError(f"it holds no dataset {listing(missing)} (found: {listing(h5)})")
            values, coordinates = np.asarray(h5[features], np.float32), np.asarray(h5["coords"], np.float64)
            attributes = {**dict(h5.attrs), **dict(h5["coords"].attrs)}
            own = None if names is None else np.asarray(h5[names]).reshape(-1)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{place} could not be read as features of tiles: {error}.") from error
    if values.ndim == 3 and values.shape[0] == 1:
        values = values[0]
    if own is not None:
        own = np.array([n.decode() if isinstance(n, bytes) else str(n) for n in own], dtype=object)
        if len(set(own)) < len(own):
            raise ValueError(f"Names in {names!r} of {place} repeat: a row would have two tiles. Write the file again.")
    file = FeatureFile(place, values, coordinates.reshape(-1, coordinates.shape[-1]), attributes, own)
    check_rows(file)
    return file


def check_rows(file: FeatureFile) -> None:
    """Refuse features and coordinates that do not belong together."""
    n = len(file.features)
    counts = {"features": n, "coordinates": len(file.coordinates)}
    if file.names is not None:
        counts["names"] = len(file.names)
    if file.features.ndim != 2 or file.coordinates.shape[1:] != (2,) or len(set(counts.values())) > 1 or not n:
        shapes = f"features {file.features.shape}, coordinates {file.coordinates.shape}"
        raise ValueError(f"{file.path} does not hold one row of features for each tile: {shapes}. Compute it again.")
    if not np.isfinite(file.coordinates).all():
        raise ValueError(f"{file.path} holds coordinates that are NaN or infinite. Compute it again.")
    _check_places(file)


def _check_places(file: FeatureFile) -> None:
    """Refuse two tiles at one place: one of them belongs to another place, and nothing tells which."""
    places, first, own = np.unique(file.coordinates, axis=0, return_index=True, return_inverse=True)
    first_row = first[own.reshape(-1)]
    repeated = np.flatnonzero(first_row != np.arange(len(first_row)))
    if not len(repeated):
        return
    row = int(repeated[0])
    x, y = file.coordinates[row]
    raise ValueError(
        f"{file.path} holds {len(first_row)} tiles at {len(places)} places: rows {int(first_row[row])} and {row} both lie at "
        f"({x:.10g}, {y:.10g}). Compute it again, or keep one row for each place."
    )
