"""Outer folds, on which a recipe is reported, and the inner ones, on which it is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer._access.slide import Slide
from spatialwhisperer.protocols.annotation.splits import WITH_IMAGE
from spatialwhisperer.statistics.left_out import left_out_units

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anndata import AnnData

_C = WITH_IMAGE[:4]


@dataclass(frozen=True)
class Outer:
    """Sections that train and choose, and sections of one patient that take part in neither.

    Attributes
    ----------
    split
        Name of the question that the fold belongs to.
    train, tests
        Names of sections.
    """

    split: str
    train: tuple[str, ...]
    tests: tuple[str, ...]

    @property
    def patient(self) -> str:
        """Patient of the sections that are reported; none of its texts is in training."""
        return self.tests[0][0]


NEW_PATIENTS = ("new patient A", "new patient C")

OUTER = (
    Outer(NEW_PATIENTS[0], _C, ("A1",)),
    Outer(NEW_PATIENTS[1], ("A1",), _C),
    *(Outer("new section of patient C", tuple(s for s in _C if s != test), (test,)) for test in _C),
)


@dataclass(frozen=True)
class Inner:
    """Rows of the training sections that train, and rows that a candidate is scored on.

    Attributes
    ----------
    train
        Tables of the rows that train.
    tests
        Section with rows that are left out: name, whole table, and which rows they are.
    patients
        Patients of the rows that are left out; none of their texts is in training.
    """

    train: list[AnnData]
    tests: list[tuple[str, AnnData, np.ndarray]]
    patients: frozenset[str]


def unit_kind(tables: Sequence[AnnData], units: Sequence[np.ndarray]) -> str:
    """What is left out: "8 blocks", "3 sections" or "4 patients"."""
    n = len(np.unique(np.concatenate(units)))
    if any(len(np.unique(u)) > 1 for u in units):
        return f"{n} blocks"
    return f"{n} sections" if n == len(tables) else f"{n} patients"


def units_of(tables: Sequence[AnnData]) -> list[np.ndarray]:
    """Unit of each row of each table: patients where there are three or more, else sections, else blocks of the section."""
    section = np.repeat(np.arange(len(tables)), [t.n_obs for t in tables])
    patient = np.concatenate([t.obs["patient"].astype(str).to_numpy() for t in tables])
    positions = np.concatenate([Slide.open(t).positions() for t in tables])
    codes = left_out_units(patient, section, positions)
    return np.split(codes, np.cumsum([t.n_obs for t in tables])[:-1])


def inner_folds(names: Sequence[str], tables: Sequence[AnnData], units: Sequence[np.ndarray]) -> Iterator[Inner]:
    """Leave out each unit in turn; every row is left out once.

    Parameters
    ----------
    names, tables
        The training sections of an outer fold.
    units
        As :func:`units_of` returns them.
    """
    for unit in np.unique(np.concatenate(units)):
        left = [u == unit for u in units]
        tests = [(n, t, rows) for n, t, rows in zip(names, tables, left, strict=True) if rows.any()]
        patients = frozenset(str(p) for _, t, rows in tests for p in t.obs["patient"][rows].unique())
        yield Inner([t[~rows].copy() for t, rows in zip(tables, left, strict=True) if not rows.all()], tests, patients)
