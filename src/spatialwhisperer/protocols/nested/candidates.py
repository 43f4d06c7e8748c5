"""The recipes to choose from, and how one of them is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd

STAIN_TEXTURE_UM = (100, 154, 300, 600)
"""Edges in microns of the tiles that `stain_texture` describes, one part of the features each."""

NUCLEI = "nuclei"
NEIGHBOUR_WEIGHTS = (0.0, 0.5)


def stain_texture_part(um: float) -> str:
    """Name of the features of tiles of one size."""
    return f"stain_texture_{um:g}"


def _sizes(*um: float) -> tuple[str, ...]:
    return tuple(stain_texture_part(size) for size in um)


FEATURES = {
    "stain_texture 100 + 154 µm": _sizes(100, 154),
    "stain_texture 100 + 154 + 300 µm": _sizes(100, 154, 300),
    "stain_texture 100 to 600 µm": _sizes(*STAIN_TEXTURE_UM),
    "nuclei": (NUCLEI,),
    "stain_texture 100 to 600 µm and nuclei": (*_sizes(*STAIN_TEXTURE_UM), NUCLEI),
}
"""Image features to choose from, each with its parts, which stand side by side."""


@dataclass(frozen=True)
class Candidate:
    """A recipe.

    Attributes
    ----------
    features
        Name of its image features in `FEATURES`, which is also their key in ``.obsm``.
    neighbours
        Weight of the mean of the nearest spots in an image embedding.
    """

    features: str
    neighbours: float

    @property
    def name(self) -> str:
        """Name in tables."""
        return f"{self.features}, neighbours {self.neighbours:g}"


EMBEDDED = Candidate("stain_texture 100 + 154 + 300 µm", 0.0)
"""The candidate that is the recipe of the embedded model; it was chosen with all of these sections in view."""


def candidates(features: Iterable[str]) -> list[Candidate]:
    """All candidates with these image features, the simplest first."""
    return [Candidate(name, weight) for name, weight in product(features, NEIGHBOUR_WEIGHTS)]


def usable(parts: Sequence[Iterable[str]], features: Iterable[str] = tuple(FEATURES)) -> list[str]:
    """Image features of which every section has all parts.

    Parameters
    ----------
    parts
        Parts that each section of a fold has.
    features
        Names to choose from.
    """
    everywhere = set.intersection(*map(set, parts))
    return [name for name in features if everywhere.issuperset(FEATURES[name])]


def means(scores: pd.DataFrame) -> pd.Series:
    """Mean score of each candidate over sections, then over patients.

    Parameters
    ----------
    scores
        Columns ``candidate``, ``patient``, ``section`` and ``auroc``.

    Returns
    -------
    Mean by name, in the order of the candidates.
    """
    by_patient = scores.groupby(["candidate", "patient"], sort=False)["auroc"].mean()
    return by_patient.groupby(level="candidate", sort=False).mean()


def choose(scores: pd.DataFrame) -> str:
    """Name of the candidate with the highest mean; of equal ones the first, which is the simplest.

    Raises
    ------
    ValueError
        If a candidate lacks a section that another one has.
    """
    wide = scores.pivot_table(index="section", columns="candidate", values="auroc", aggfunc="mean", dropna=False)
    if wide.isna().to_numpy().any():
        raise ValueError("Candidates are compared on the same sections only; some have no score in a section.")
    return str(means(scores).idxmax())
