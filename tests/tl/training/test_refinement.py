from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import spatialwhisperer as sw
from spatialwhisperer.training.refinement import refine as module
from spatialwhisperer.training.refinement.rule import Choice

if TYPE_CHECKING:
    from pathlib import Path

TILES = sw.tl.ImageFeatures(tile_um=80, tile_px=32)
WHISPERER = sw.models.get_preset("whisperer")


@pytest.fixture(scope="module")
def data() -> list[Any]:
    sections, reference = sw.datasets.simulate_sections(3, 80, n_genes=80, n_reference_cells=200, random_state=0)
    return [*sections.values(), reference]


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule keeps the last candidate."""
    monkeypatch.setattr(module, "choose", lambda x: Choice(x.shape[1] - 1, True, 0.01, 0.002, x[:, -1] - x[:, 0]))


def train(data: list[Any], preset: Any = "whisperer", **options: Any) -> Any:
    return sw.tl.train(data, preset=preset, image=TILES, gene="pca", **{"expression": False, **options})


@pytest.mark.slow
def test_training_goes_through_the_refinement_and_says_what_was_decided(
    data: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    model = train(data)
    decision = model.config.training.refinement
    assert set(decision.gains) == set(model.config.training.groups) & {"P1", "P2", "P3"}
    assert decision.reason in repr(model)
    lines = [line for line in capsys.readouterr().err.splitlines() if "refinement of the image head" in line]
    assert len(lines) == 1
    assert decision.reason in lines[0]


def test_never_leaves_the_closed_form(data: list[Any]) -> None:
    model = train(data, WHISPERER.replace(refine="never"))
    assert model.config.training.refinement is None
    assert list(model.history["phase"]) == ["gene-text", "image-gene"]


@pytest.mark.usefixtures("kept")
def test_a_refined_model_is_stored_and_opened(data: list[Any], tmp_path: Path) -> None:
    closed, model = train(data, WHISPERER.replace(refine="never")), train(data, folder=tmp_path)
    assert model.config.training.refinement.kept
    opened: Any = sw.models.Whisperer.load(tmp_path / "model")
    assert opened.config == model.config
    before, now = closed.heads["image"].weight, opened.heads["image"].weight
    assert torch.equal(now, model.heads["image"].weight)
    assert 0 < float((now - before).detach().abs().max()) < 0.02
    for name in ("gene", "text"):
        assert torch.equal(opened.heads[name].weight, closed.heads[name].weight)


@pytest.mark.slow
@pytest.mark.usefixtures("kept")
def test_a_run_that_is_interrupted_is_refined_again_to_the_same_bits(
    data: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(data)
    steps = module.refine_head
    calls: list[int] = []

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return steps(*args, **kwargs)

    monkeypatch.setattr(module, "refine_head", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(data, folder=tmp_path)
    monkeypatch.setattr(module, "refine_head", steps)
    model = train(data, folder=tmp_path, resume=True)
    assert torch.equal(model.heads["image"].weight, whole.heads["image"].weight)
    assert model.config.training == whole.config.training
    with pytest.raises(ValueError, match='refine: "auto" before, "never" now'):
        train(data, WHISPERER.replace(refine="never"), folder=tmp_path, resume=True)


@pytest.mark.slow
@pytest.mark.usefixtures("kept")
def test_held_out_expression_is_measured_with_a_refinement_of_its_own(
    data: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    groups: list[set[str]] = []
    read = module.read_pairs

    def watched(*args: Any, **kwargs: Any) -> Any:
        pairs: Any = read(*args, **kwargs)
        groups.append(set(pairs.group))
        return pairs

    monkeypatch.setattr(module, "read_pairs", watched)
    model = train(data, expression=True)
    assert sorted(map(sorted, groups)) == [["P1", "P2"], ["P1", "P2", "P3"], ["P1", "P3"], ["P2", "P3"]]
    assert np.isfinite(model.expression.held_out("both")).any()
    # one line about the model, none about those that measure
    assert capsys.readouterr().err.count("refinement of the image head") == 1


def test_refine_is_a_word_of_the_recipe() -> None:
    assert WHISPERER.sequential is not None
    assert WHISPERER.sequential.refine == "auto"
    with pytest.raises(ValueError, match="refine must be 'auto' or 'never', not 'always'"):
        WHISPERER.replace(refine="always")
    other = sw.models.get_preset("spatialwhisperer").sequential
    assert other is not None
    assert other.refine == "never"
