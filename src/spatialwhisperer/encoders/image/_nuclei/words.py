"""Words of nuclei: the kinds that training sections hold, and how much each nucleus resembles each of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from spatialwhisperer.encoders.image._nuclei.table import MEASURES

FILE = Path(__file__).with_name("words.safetensors")
"""The words that come with the package."""

_CLIP = 4.0
_LEAST_SD = 0.2
_MAD = 1.4826
_ARRAYS = ("centre", "scale", "centroids", "medians")


@dataclass(frozen=True, eq=False)
class NucleusWords:
    """Kinds of nuclei of training sections.

    Attributes
    ----------
    centre, scale
        Median of each measurement over the nuclei of the training sections, and its robust standard deviation, float32 (17,).
    centroids
        Standardised measurements of each word, float32 (k, 17).
    medians
        Median of each feature of a tile over the training sections, float32 (d,); it stands for what too few nuclei do not tell.
    source
        The sections, and their licence.
    digest
        SHA-256 of the values.
    """

    centre: np.ndarray
    scale: np.ndarray
    centroids: np.ndarray
    medians: np.ndarray
    source: str
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        sha = hashlib.sha256()
        for name in _ARRAYS:
            values = np.ascontiguousarray(getattr(self, name), np.float32)
            if not np.isfinite(values).all():
                raise ValueError(f"The words of nuclei hold values that are not finite, in {name!r}.")
            object.__setattr__(self, name, values)
            sha.update(repr((name, values.shape)).encode() + values.tobytes())
        n = len(MEASURES)
        if self.centre.shape != (n,) or self.scale.shape != (n,) or self.centroids.shape[1:] != (n,):
            raise ValueError(
                f"Words of nuclei have {n} measurements; found shapes {self.centre.shape}, {self.scale.shape} and "
                f"{self.centroids.shape}."
            )
        object.__setattr__(self, "digest", sha.hexdigest())

    def resemblance(self, measures: np.ndarray) -> np.ndarray:
        """How much each nucleus resembles each word: what its distance falls short of the mean distance, sum 1, float32 (n, k)."""
        z = standardised(measures, self.centre, self.scale)
        squares = (z * z).sum(1)[:, None] + (self.centroids * self.centroids).sum(1) - 2 * z @ self.centroids.T
        distance = np.sqrt(np.maximum(squares, 0))
        short = np.maximum(distance.mean(axis=1, keepdims=True) - distance, 0)
        return short / np.maximum(short.sum(axis=1, keepdims=True), 1e-6)

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        from safetensors.numpy import save

        path.write_bytes(save({name: getattr(self, name) for name in _ARRAYS}, {"source": self.source}))

    @classmethod
    def load(cls, path: Path) -> NucleusWords:
        """Read a file that `save` wrote.

        Raises
        ------
        FileNotFoundError
            If it is not there.
        ValueError
            If it is not such a file.
        """
        from safetensors import SafetensorError, safe_open

        if not path.is_file():
            raise FileNotFoundError(f"There are no words of nuclei at {path}.")
        try:
            with safe_open(path, framework="np") as file:
                arrays = {name: file.get_tensor(name) for name in _ARRAYS}
                source = (file.metadata() or {}).get("source", "")
        except SafetensorError as error:
            raise ValueError(f"{path} does not hold words of nuclei ({error}).") from error
        return cls(**arrays, source=source)


@cache
def packaged_words() -> NucleusWords:
    """The words that come with the package."""
    return NucleusWords.load(FILE)


def robust_scale(measures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median and robust standard deviation (from the median absolute deviation) of each column."""
    centre = np.median(measures, axis=0)
    scale = _MAD * np.median(np.abs(measures - centre), axis=0)
    # most nuclei have no white in their ring, so that the median deviation is 0 there
    scale = np.maximum(scale, _LEAST_SD * measures.std(axis=0))
    return centre.astype(np.float32), np.maximum(scale, 1e-6).astype(np.float32)


def standardised(measures: np.ndarray, centre: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Robust z-scores, at most 4."""
    return np.clip((measures - centre) / scale, -_CLIP, _CLIP)
