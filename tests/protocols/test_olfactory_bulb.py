from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spatialwhisperer.protocols.__main__ import main
from spatialwhisperer.protocols.olfactory_bulb.layers import few_rows, macro_auroc, probe_rows
from spatialwhisperer.protocols.olfactory_bulb.materials import COLOUR, TEXTURE
from spatialwhisperer.protocols.olfactory_bulb.report import draw, report, summary

if TYPE_CHECKING:
    from pathlib import Path


def section(name: str, animal: str, seed: int) -> ad.AnnData:
    """Thirty rows whose texture tells the layer, and whose colour does not."""
    rng = np.random.default_rng(seed)
    layer = np.repeat(["core", "middle", "surface"], 10)
    index = [f"{name}_{i}" for i in range(30)]
    obs = pd.DataFrame({"section": name, "patient": animal, "layer": pd.Categorical(layer)}, index=index)
    table = ad.AnnData(np.zeros((30, 0), np.float32), obs=obs)
    table.obsm[TEXTURE] = np.eye(3)[np.repeat([0, 1, 2], 10)] + rng.normal(0, 0.05, (30, 3))
    table.obsm[COLOUR] = rng.normal(0, 1, (30, 3))
    return table


@pytest.fixture
def tables() -> list[ad.AnnData]:
    return [section("1", "A", 0), section("2", "A", 1), section("3", "B", 2), section("4", "C", 3)]


def test_macro_auroc_is_the_mean_over_layers_that_the_section_has(tables):
    table = tables[0]
    scores = pd.DataFrame(table.obsm[TEXTURE], index=table.obs_names, columns=["core", "middle", "surface"])
    scores["absent"] = 0.0
    assert macro_auroc(table, scores) == 1.0
    table.obs.loc[table.obs_names[:3], "layer"] = np.nan
    assert macro_auroc(table, scores[["core"]] * -1) == 0.0


@pytest.mark.parametrize("split", ["section", "patient"])
def test_the_probe_finds_layers_where_the_features_show_them(tables, split):
    found = probe_rows(tables, split).groupby("predictor")["value"].mean()
    assert found["stain_texture"] > 0.99
    assert 0.3 < found["mean colour"] < 0.7


def test_examples_come_from_another_animal(tables, monkeypatch):
    from spatialwhisperer.protocols.olfactory_bulb import layers

    seen, classified = [], layers.classified

    def watched(table, train, key, **options):
        seen.append((set(table.obs["patient"]), set(train[0].obs["patient"]), options["options"].n_shots))
        return classified(table, train, key, **options)

    monkeypatch.setattr(layers, "classified", watched)
    rows = few_rows(tables, n_seeds=1, smoke=False)
    assert all(not tested & trained for tested, trained, _ in seen)
    assert {shots for *_, shots in seen} == {5, 20}
    assert set(rows["section"]) == {"1", "2", "3", "4"}
    whole = len(seen)
    quick = few_rows(tables, n_seeds=1, smoke=True)
    # by examples in the first section alone
    assert 4 * (len(seen) - whole) == whole
    assert set(quick["section"]) == {"3", "4"}


def test_intervals_draw_animals_where_animals_are_left_out(tmp_path):
    keys = {"predictor": "stain_texture", "metric": "macro AUROC"}
    rows = pd.DataFrame(
        [
            {"section": f"{i}", "animal": "AAAAAB"[i], "task": f"probe, {unit} left out", "value": 0.5 + i / 10, **keys}
            for unit in ("section", "animal")
            for i in range(6)
        ]
    )
    table = summary(rows).set_index("task")
    by_section = table.loc["probe, section left out"]
    assert by_section["low"] < by_section["mean"] < by_section["high"]
    assert table["low"].isna()["probe, animal left out"]
    assert "0.750 (" in report(summary(rows))
    draw(rows, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000


@pytest.mark.slow
def test_the_command_writes_table_and_picture_and_repeats_nothing(data_folder: Path, tmp_path: Path, capsys):
    if not (data_folder / "mob_regions").is_dir():
        pytest.skip("needs mob_regions/ and mob/")
    arguments = ["olfactory-bulb", "--data", str(data_folder), "--out", str(tmp_path), "--smoke"]
    main(arguments)
    first = (tmp_path / "olfactory_bulb.csv").read_text()
    capsys.readouterr()
    main(arguments)
    assert "probe-section" not in capsys.readouterr().err
    assert (tmp_path / "olfactory_bulb.csv").read_text() == first
    rows = pd.read_csv(tmp_path / "olfactory_bulb.csv")
    assert set(rows["metric"]) == {"macro AUROC", "ARI", "NMI", "r HEG50", "r HVG50", "MSE HEG50", "MSE HVG50"}
    assert (tmp_path / "olfactory_bulb.md").read_text().startswith("| task")
    assert (tmp_path / "olfactory_bulb.png").is_file()
