from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from spatialwhisperer.protocols.__main__ import main
from spatialwhisperer.protocols.refinement import comparison, real, simulated, worlds
from spatialwhisperer.protocols.refinement.real import CLOSED, REFINED, TWO_PATIENTS

if TYPE_CHECKING:
    from pathlib import Path


def error_of_linear_map(world: worlds.World) -> float:
    """Fraction of the variance of the programmes that a linear map of the factors does not explain."""
    factors = np.random.default_rng(0).normal(size=(4000, worlds.FACTORS))
    y = world.programmes(factors)
    left = y - factors @ np.linalg.lstsq(factors, y, rcond=None)[0]
    return float(left.var() / y.var())


def test_only_a_non_linear_world_is_not_linear() -> None:
    assert error_of_linear_map(worlds.make_world(0, linear=True)) < 1e-12
    assert 0.1 < error_of_linear_map(worlds.make_world(0, linear=False)) < 0.5


def test_items_of_a_world() -> None:
    world = worlds.make_world(1, linear=False)
    items, test = worlds.training_items(world, 300, 6, 1)
    assert items.count("image", "gene") == 300
    assert items.count("image", "text") == 0
    pairs = items.index["image"] >= 0
    assert set(items.group[pairs]) == {f"P{i}" for i in range(6)}
    assert not set(items.group[pairs]) & (set(items.group[~pairs]) | set(test.patient))
    assert test.holds.mean() == pytest.approx(0.25, abs=0.01)
    for p in np.unique(test.patient):
        assert test.image[test.patient == p].mean(axis=0) == pytest.approx(0, abs=1e-5)
    again = worlds.training_items(world, 300, 6, 1)[0]
    assert np.array_equal(items.inputs["image"], again.inputs["image"])


def test_a_finished_world_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def one(*args: Any) -> dict[str, object]:
        calls.append(args)
        return {"world": args[0], "pairs": args[1], "seed": args[2]}

    monkeypatch.setattr(simulated, "one_world", one)
    for _ in range(2):
        table = simulated.run_worlds([300], ["linear", "non-linear"], [0, 1], tmp_path)
    assert calls == [("linear", 300, 0), ("linear", 300, 1), ("non-linear", 300, 0), ("non-linear", 300, 1)]
    assert table["seed"].tolist() == [0, 1, 0, 1]


@pytest.mark.slow
def test_the_smoke_run_writes_a_table_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["refine", "--data", str(tmp_path), "--out", str(tmp_path), "--parts", "worlds", "--smoke"])
    table = pd.read_csv(tmp_path / "refinement_worlds.csv")
    assert table["world"].tolist() == ["non-linear", "linear"]
    assert (table["inner_chosen"] >= table["inner_first"]).all()
    assert (tmp_path / "refinement.png").stat().st_size > 5000
    assert "| non-linear | 300 | linear |" in capsys.readouterr().out
    assert "| linear | 300 | linear |" in (tmp_path / "refinement.md").read_text()


def test_the_table_of_sections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pd.DataFrame(
        {
            "split": ["C → A1", "A1 → C3"],
            "test": ["A1", "C3"],
            "closed_form": [0.7, 0.6],
            "refined": [0.71, 0.6],
            "kept": [True, False],
            "steps": [15, 0],
            "inner_first": [0.6, np.nan],
            "inner_chosen": [0.61, np.nan],
        }
    )
    monkeypatch.setattr(comparison, "run_sections", lambda *_, **__: rows)
    comparison.run(tmp_path, tmp_path, parts=("sections",))
    lines = (tmp_path / "refinement.md").read_text().splitlines()
    assert "| C → A1 | A1 | 0.700 | 0.710 | +0.0100 | 15 | +0.0100 |" in lines
    assert "| A1 → C3 | C3 | 0.600 | 0.600 | +0.0000 | 0 | – |" in lines
    assert "| all | mean | 0.650 | 0.655 | +0.0050 |  |  |" in lines


def test_both_models_are_trained_alike_but_for_the_refinement() -> None:
    assert CLOSED.preset.sequential is not None
    assert REFINED.preset.sequential is not None
    assert (CLOSED.preset.sequential.refine, REFINED.preset.sequential.refine) == ("never", "auto")
    assert REFINED.preset.replace(refine="never") == CLOSED.preset
    assert REFINED.captions == CLOSED.captions
    for split in TWO_PATIENTS:
        assert split.test not in split.train
        assert {name[0] for name in split.train} == {"A", "C"}
    assert real._inner((), (), 0) == {"inner_first": None, "inner_chosen": None}
    assert real._inner((0, 5), (0.5, 0.6), 5) == {"inner_first": 0.5, "inner_chosen": 0.6}
