from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spatialwhisperer.protocols.__main__ import main
from spatialwhisperer.protocols.benchmarks.card import noise_ceiling, section_facts
from spatialwhisperer.protocols.benchmarks.folder.hest import read_hest
from spatialwhisperer.protocols.benchmarks.folder.sections import BenchmarkSection, FolderOptions

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def folder(three_patients, write, metadata, tmp_path_factory) -> Path:
    """Three patients, the first of which is there again under another name and another patient, thinned and shuffled."""
    where = tmp_path_factory.mktemp("twins")
    for name, (table, patches) in three_patients.items():
        write(where, name, table, patches)
    table, patches = three_patients["SIMP1"]
    rng = np.random.default_rng(0)
    order = rng.permutation(table.n_obs)[:70]
    counts = rng.binomial(table.X.toarray()[order].astype(int), 0.97)
    twin = ad.AnnData(counts.astype(np.float32), var=pd.DataFrame(index=table.var_names))
    twin.obs_names = [f"T{i}" for i in range(70)]
    twin.obsm["spatial"] = table.obsm["spatial"][order]
    write(where, "TWIN", twin, patches[order])
    patients = {"SIMP1": "A", "SIMP2": "B", "SIMP3": None, "TWIN": "D"}
    metadata(where, patients, organ="Breast", pixel_size_um_estimated=2.0, inter_spot_dist=100.0)
    return where


@pytest.mark.slow
def test_the_card_says_what_the_folder_holds(folder, tmp_path, corner_colour):
    main(["card", "--data", str(folder), "--out", str(tmp_path), "--encoder", corner_colour])
    card = json.loads((tmp_path / "card.json").read_text())
    assert (card["layout"], card["n_sections"], card["n_patients"], card["n_rows"]) == ("HEST", 4, 4, 340)
    assert card["patients"] == {"A": ["SIMP1"], "B": ["SIMP2"], "not stated": ["SIMP3"], "D": ["TWIN"]}
    assert card["patient_not_stated"] == ["SIMP3"]
    assert [(p["one"], p["other"]) for p in card["duplicates"]["pairs"]] == [("SIMP1", "TWIN")]
    folds = {f["name"]: f["test"] for f in card["splits"]["folds"]}
    assert folds == {"A + D": ["SIMP1", "TWIN"], "B": ["SIMP2"], "not stated": ["SIMP3"]}
    floors = card["floors"]["pearson"]
    assert {"darkness", "total UMI (oracle)", "training mean", "ridge, chosen penalty"} <= set(floors)
    assert floors["training mean"] == 0
    assert "darkness" in (text := (tmp_path / "card.md").read_text())
    assert "- SIMP1 and TWIN (difference index 0.0" in text
    assert "they count as one: SIMP3" in text


@pytest.mark.slow
def test_the_card_of_one_patient_says_why_nothing_can_be_left_out(hest, tmp_path, corner_colour):
    arguments = ["card", "--data", str(hest), "--out", str(tmp_path), "--encoder", corner_colour]
    main([*arguments, "--where", "organ=Lung", "--rows", "50"])
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["splits"]["folds"] == []
    assert "Nothing can be left out" in card["splits"]["refused"]
    assert "Nothing can be left out" in (tmp_path / "card.md").read_text()
    assert card["rows_per_section"] == 50


def test_facts_of_a_section_are_counted(hest):
    one: Any = read_hest(hest, FolderOptions(only=("SIMP2",)))[0]
    facts = section_facts(one)
    counts = one.table.X.toarray()
    assert facts["rows"] == 90
    assert facts["genes_counted"] == (counts.sum(axis=0) > 0).sum()
    assert facts["median_total_count"] == np.median(counts.sum(axis=1))
    assert facts["measured_pitch_um"] == pytest.approx(100.0, rel=0.02)
    assert facts["tile"] == {"um": 112.0, "px": 56}


@pytest.mark.slow
def test_the_ceiling_grows_with_depth():
    rng = np.random.default_rng(0)
    rate = np.exp(rng.normal(0, 1, (300, 60)))

    def section(depth: float) -> BenchmarkSection:
        table = ad.AnnData(rng.poisson(depth * rate).astype(np.float32))
        return BenchmarkSection(f"{depth:g}", "A", table, None)

    found = noise_ceiling([section(0.5), section(5.0), section(50.0)])
    each = [one["ceiling"] for one in found["sections"].values()]
    assert each == sorted(each)
    assert each[0] < 0.75
    assert each[2] > 0.97
    assert found["mean_ceiling"] == pytest.approx(np.mean(each))
    reliability = found["sections"]["50"]["reliability"]
    assert reliability == pytest.approx(each[2] ** 2, abs=0.01)
