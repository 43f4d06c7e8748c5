from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spatialwhisperer.datasets.folders.duplicates import Duplicate
from spatialwhisperer.protocols.benchmarks.folder.folds import Fold, check_fold, make_folds, read_splits, units_of
from spatialwhisperer.protocols.benchmarks.folder.sections import BenchmarkSection


def sections(**patients: str) -> list[BenchmarkSection]:
    """Sections by name; the number of rows is the number of the section."""
    return [
        BenchmarkSection(name, patient, ad.AnnData(np.zeros((int(name[1:]), 1), np.float32)), None)
        for name, patient in patients.items()
    ]


FOUR = sections(s1="A", s2="A", s3="B", s4="C")


def test_each_patient_is_left_out_with_all_sections():
    folds = make_folds(FOUR)
    assert [(f.name, f.test) for f in folds] == [("A", ("s1", "s2")), ("B", ("s3",)), ("C", ("s4",))]
    assert folds[0].train == ("s3", "s4")


def test_fewer_folds_hold_several_patients_and_are_about_equally_large():
    folds = make_folds(FOUR, n_folds=2)
    assert sorted(f.test for f in folds) == [("s1", "s2", "s3"), ("s4",)]
    for bad in (1, 4):
        with pytest.raises(ValueError, match=f"number of patients, 3; found {bad}"):
            make_folds(FOUR, n_folds=bad)


def test_more_than_ten_patients_make_ten_folds():
    many = sections(**{f"s{i}": f"P{i}" for i in range(1, 14)})
    folds = make_folds(many)
    assert len(folds) == 10
    assert sorted(n for f in folds for n in f.test) == sorted(s.name for s in many)


def test_duplicates_stay_on_one_side_whoever_their_patient_is():
    twins = [Duplicate("s2", "s4", 0.01)]
    folds = make_folds(FOUR, duplicates=twins)
    assert [(f.name, f.test) for f in folds] == [("A + C", ("s1", "s2", "s4")), ("B", ("s3",))]
    assert units_of(FOUR, "patient", twins).sections["s2"] == units_of(FOUR, "patient", twins).sections["s4"]
    by_section = make_folds(FOUR, split="section", duplicates=twins)
    assert [f.test for f in by_section] == [("s1",), ("s2", "s4"), ("s3",)]


def test_chains_of_duplicates_are_one_unit():
    twins = [Duplicate("s1", "s3", 0.0), Duplicate("s3", "s4", 0.0)]
    with pytest.raises(
        ValueError, match="No patient can be left out: found 4 sections .* near-identical: s1 = s3, s3 = s4"
    ):
        make_folds(FOUR, duplicates=twins)


def test_one_patient_is_refused_and_sections_may_be_left_out_by_name():
    one = sections(s1="A", s2="A")
    with pytest.raises(ValueError, match=r"found 2 sections \(s1, s2\) of 1 patients \(A\).*--split section"):
        make_folds(one)
    assert [f.test for f in make_folds(one, split="section")] == [("s1",), ("s2",)]
    for split in ("patient", "section"):
        with pytest.raises(ValueError, match="Nothing can be left out"):
            make_folds(one[:1], split=split)
        # two names of one section
        with pytest.raises(ValueError, match="Nothing can be left out"):
            make_folds(one, split=split, duplicates=[Duplicate("s1", "s2", 0.0)])


def test_a_fold_that_leaks_is_refused():
    def check(train: str, test: str, **options) -> None:
        fold = Fold("0", tuple(train.split()), tuple(test.split()))
        check_fold(fold, FOUR, **{"split": "patient", "duplicates": (), **options})

    check("s1 s2 s3", "s4")
    with pytest.raises(ValueError, match="leaks: s3 both train"):
        check("s1 s3", "s3 s4")
    with pytest.raises(ValueError, match="leaks: sections of the patients A"):
        check("s1 s3", "s2")
    check("s1 s3", "s2", split="section")
    twins = [Duplicate("s3", "s4", 0.02)]
    for split in ("patient", "section"):
        with pytest.raises(ValueError, match="leaks: s3 and s4 are near-identical"):
            check("s1 s2 s3", "s4", split=split, duplicates=twins)
    # a duplicate that takes no part
    check("s1 s2", "s4", duplicates=twins)
    with pytest.raises(ValueError, match="names s9"):
        check("s1 s9", "s3")
    with pytest.raises(ValueError, match="no section to train on"):
        check("", "s3")


def test_folds_of_somebody_else_are_read_and_checked(tmp_path):
    def write(**folds: list[str]) -> None:
        for name, ids in folds.items():
            pd.DataFrame({"sample_id": ids, "patches_path": "x"}).to_csv(tmp_path / f"{name}.csv", index=False)

    options: Any = {"split": "patient", "duplicates": ()}
    with pytest.raises(FileNotFoundError, match="no test_<k>.csv"):
        read_splits(tmp_path, FOUR, **options)
    write(train_0=["s3", "s4"], test_0=["s1", "s2"], train_1=["s1", "s2"], test_1=["s4"])
    found = read_splits(tmp_path, FOUR, **options)
    assert found == [Fold("0", ("s3", "s4"), ("s1", "s2")), Fold("1", ("s1", "s2"), ("s4",))]
    write(test_1=["s2"])
    with pytest.raises(ValueError, match="Fold '1' leaks"):
        read_splits(tmp_path, FOUR, **options)
    (tmp_path / "train_1.csv").unlink()
    with pytest.raises(FileNotFoundError, match="the other side of a fold"):
        read_splits(tmp_path, FOUR, **options)
