"""Splits of sections by patient, or by section where the caller says so; duplicates are never on both sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from spatialwhisperer._messages import inform, listing
from spatialwhisperer._storage.untrusted import opening
from spatialwhisperer.datasets.folders.duplicates import joined_units

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from spatialwhisperer.datasets.folders.duplicates import Duplicate
    from spatialwhisperer.protocols.benchmarks.folder.sections import BenchmarkSection

Split = Literal["patient", "section"]

MOST_FOLDS = 10
"""More patients than this are left out several at a time."""


@dataclass(frozen=True)
class Fold:
    """Sections that train and sections that are measured.

    Attributes
    ----------
    name
        What is left out.
    train, test
        Names of sections.
    """

    name: str
    train: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True)
class Units:
    """What is left out as a whole.

    Attributes
    ----------
    left_out
        Unit of each section in a split: its patient, or itself.
    sections
        The section itself, joined with its duplicates.
    """

    left_out: dict[str, str]
    sections: dict[str, str]


def units_of(sections: Sequence[BenchmarkSection], split: Split, duplicates: Sequence[Duplicate]) -> Units:
    """Units of a split, each joined with those of its duplicates.

    Patients of one name count as one, in whatever data set they are.
    """
    alone = joined_units({s.name: s.name for s in sections}, duplicates)
    if split == "section":
        return Units(alone, alone)
    return Units(joined_units({s.name: s.patient for s in sections}, duplicates), alone)


def make_folds(
    sections: Sequence[BenchmarkSection],
    *,
    split: Split = "patient",
    n_folds: int | None = None,
    duplicates: Sequence[Duplicate] = (),
) -> list[Fold]:
    """Leave out each unit in turn, or several at a time.

    Parameters
    ----------
    sections
        The sections.
    split
        "patient" leaves out patients. "section" leaves out sections, whose patient may train.
    n_folds
        Number of folds; ``None`` takes one for each unit, at most `MOST_FOLDS`.
    duplicates
        Sections that are not left out without each other.

    Raises
    ------
    ValueError
        If there is one unit only, or fewer than there are to be folds.
    """
    unit = units_of(sections, split, duplicates).left_out
    rows = {u: sum(s.table.n_obs for s in sections if unit[s.name] == u) for u in dict.fromkeys(unit.values())}
    if len(rows) < 2:
        raise ValueError(_one_unit(sections, split, duplicates))
    k = min(len(rows), MOST_FOLDS) if n_folds is None else n_folds
    if not 2 <= k <= len(rows):
        raise ValueError(f"--folds must lie between 2 and the number of {split}s, {len(rows)}; found {k}.")
    parts: list[list[str]] = [[] for _ in range(k)]
    for u in sorted(rows, key=lambda u: (-rows[u], u)):
        min(parts, key=lambda part: sum(rows[v] for v in part)).append(u)
    folds = []
    for part in sorted(sorted(p) for p in parts):
        test = tuple(s.name for s in sections if unit[s.name] in part)
        folds.append(Fold(", ".join(part), tuple(s.name for s in sections if s.name not in test), test))
    for fold in folds:
        check_fold(fold, sections, split=split, duplicates=duplicates)
    return folds


def _one_unit(sections: Sequence[BenchmarkSection], split: Split, duplicates: Sequence[Duplicate]) -> str:
    patients = sorted({s.patient for s in sections})
    found = f"found {len(sections)} sections ({listing(s.name for s in sections)}) of {len(patients)} patients ({listing(patients)})"
    found += f", of which near-identical: {listing(f'{d.one} = {d.other}' for d in duplicates)}" if duplicates else ""
    alone = units_of(sections, "section", duplicates).left_out
    if split == "section" or len(set(alone.values())) < 2:
        return f"Nothing can be left out: {found}. Add sections."
    return (
        f"No patient can be left out: {found}. Add sections of another patient. --split section leaves out sections of a patient that "
        "also trains: those figures say nothing about a new patient, and are labelled so."
    )


def check_fold(
    fold: Fold, sections: Sequence[BenchmarkSection], *, split: Split, duplicates: Sequence[Duplicate]
) -> None:
    """Refuse a fold with a section, a duplicate or, unless sections are split, a patient on both sides.

    Raises
    ------
    ValueError
        If something is on both sides, or a side is empty.
    """
    patient = {s.name: s.patient for s in sections}
    if unknown := [name for name in (*fold.train, *fold.test) if name not in patient]:
        raise ValueError(f"Fold {fold.name!r} names {listing(unknown)}, which are not in the folder.")
    if not fold.train or not fold.test:
        raise ValueError(f"Fold {fold.name!r} has no section to {'test' if fold.train else 'train on'}.")
    if both := sorted({*fold.train} & {*fold.test}):
        raise ValueError(f"Fold {fold.name!r} leaks: {listing(both)} both train and are tested.")
    shared = sorted({patient[n] for n in fold.train} & {patient[n] for n in fold.test})
    if shared and split == "patient":
        raise ValueError(
            f"Fold {fold.name!r} leaks: sections of the patients {listing(shared)} both train and are tested. Put all sections of a patient "
            "on one side, or pass --split section to measure sections of known patients, which is labelled so."
        )
    for pair in duplicates:
        sides = {name in fold.test for name in (pair.one, pair.other) if name in (*fold.train, *fold.test)}
        if len(sides) > 1:
            raise ValueError(
                f"Fold {fold.name!r} leaks: {pair.one} and {pair.other} are near-identical (difference index {pair.index:.2g}), and one "
                "trains while the other is tested. Put them on one side, or leave one out."
            )


def read_splits(
    folder: Path, sections: Sequence[BenchmarkSection], *, split: Split, duplicates: Sequence[Duplicate]
) -> list[Fold]:
    """Read folds that somebody made: ``train_<k>.csv`` and ``test_<k>.csv`` with the column ``sample_id``, as the HEST benchmark has them.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a fold leaks.
    """
    tests = sorted(folder.glob("test_*.csv"))
    if not tests:
        raise FileNotFoundError(f"{folder} holds no test_<k>.csv.")
    folds = []
    for test in tests:
        train = test.with_name(test.name.replace("test_", "train_", 1))
        fold = Fold(test.stem.removeprefix("test_"), _samples(train), _samples(test))
        check_fold(fold, sections, split=split, duplicates=duplicates)
        folds.append(fold)
    return folds


def _samples(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}, the other side of a fold.")
    with opening(f"The table {path}"):
        table = pd.read_csv(path, dtype=str)
    if "sample_id" not in table:
        raise ValueError(f"{path} has no column sample_id (found: {listing(table.columns)}).")
    return tuple(table["sample_id"])


def say(folds: Sequence[Fold], duplicates: Sequence[Duplicate]) -> None:
    """Say what is left out, and which sections were found to be near-identical."""
    for pair in duplicates:
        inform(
            f"{pair.one} and {pair.other} are near-identical (difference index {pair.index:.2g}); they stay on one side."
        )
    inform(f"{len(folds)} folds: {listing(f.name for f in folds)}.")


def codes(names: Sequence[str], unit: Mapping[str, str]) -> np.ndarray:
    """Code of the unit of each section that is named."""
    return np.unique([unit[name] for name in names], return_inverse=True)[1]
