from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from spatialwhisperer.models.whisperer import Whisperer
from spatialwhisperer.networks.heads import fixed_linear_head
from spatialwhisperer.protocols.refinement import worlds
from spatialwhisperer.protocols.refinement.simulated import score
from spatialwhisperer.training.closed_form import fit_closed_form
from spatialwhisperer.training.refinement import refine as module
from spatialwhisperer.training.refinement.pairs import read_pairs
from spatialwhisperer.training.refinement.refine import method_for, refine
from spatialwhisperer.training.refinement.rule import Choice
from spatialwhisperer.training.refinement.steps import LINEAR, RESIDUAL

if TYPE_CHECKING:
    from pathlib import Path

    from spatialwhisperer.models.joint_space import JointSpace
    from spatialwhisperer.training.batches import Items
    from spatialwhisperer.training.fitted import Fitted


def solved(items: Items, neighbour_weight: float = 0.0) -> JointSpace:
    model = Whisperer(worlds.empty_space().config)
    fit_closed_form(model, items, bridge="gene", neighbour_weight=neighbour_weight)
    return model


def refined(model: JointSpace, items: Items, neighbour_weight: float = 0.0) -> Fitted:
    return refine(model, items, bridge="gene", neighbour_weight=neighbour_weight, random_state=0)


def world(n_pairs: int, n_patients: int, *, linear: bool = False) -> tuple[Items, worlds.Rows]:
    return worlds.training_items(worlds.make_world(0, linear=linear), n_pairs, n_patients, 0)


def placed(items: Items, sections: int) -> Items:
    """The items with positions on a line, the pairs in several sections."""
    n = len(items.inputs["gene"])
    section = np.arange(n) * sections // n
    return replace(items, places=(section.astype(str), np.column_stack([np.arange(n), np.zeros(n)]).astype(float)))


def image_head(model: JointSpace) -> Any:
    return model.heads["image"]


def always(best: int) -> Any:
    """A rule that keeps a candidate."""
    return lambda agreement: Choice(best, True, 1.0, 0.0, np.ones(len(agreement)))


@pytest.fixture(scope="module")
def few() -> Items:
    return world(240, 3)[0]


# ------------------------------------------------------------------------------------------------- kept, and not kept


@pytest.mark.slow
def test_a_non_linear_world_is_refined_and_new_patients_gain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "RESIDUAL", replace(RESIDUAL, candidates=(0, 50, 100), folds=2))
    items, test = world(5000, 6)
    model = solved(items)
    before = score(model, test)
    fitted = refined(model, items)
    decision = fitted.refinement
    assert decision is not None
    assert decision.kept
    assert decision.head == model.config.modality("image").head.kind == "linear_residual"
    assert decision.steps == decision.best_steps > 0
    assert set(decision.gains) == {f"P{i}" for i in range(6)}
    at = decision.candidates.index(decision.steps)
    assert decision.agreement[at] - decision.agreement[0] == pytest.approx(np.mean(list(decision.gains.values())))
    assert fitted.history["step"].tolist() == [0, 50, 100]
    assert fitted.history["agreement"].tolist() == list(decision.agreement)
    # measured .032
    assert score(model, test) > before + 0.01
    assert isinstance(model, Whisperer)
    model.save(tmp_path / "model")
    opened = Whisperer.load(tmp_path / "model")
    assert opened.config == model.config
    assert np.array_equal(opened.project("image", test.image), model.project("image", test.image))


def test_a_linear_world_keeps_the_closed_form_to_the_bit(few: Items) -> None:
    model = solved(few)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    decision = refined(model, few).refinement
    assert decision is not None
    assert (decision.kept, decision.steps, decision.head) == (False, 0, "linear")
    assert decision.candidates == LINEAR.candidates
    assert len(decision.agreement) == 9
    assert set(decision.gains) == {"P0", "P1", "P2"}
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


def test_the_first_agreement_is_that_of_the_closed_form_of_the_other_patients(few: Items) -> None:
    model = solved(few)
    decision = refined(model, few).refinement
    assert decision is not None
    found = []
    for name in ("P0", "P1", "P2"):
        own = np.flatnonzero((few.group == name) & (few.index["image"] >= 0))
        without = few.subset(np.flatnonzero(few.group != name))
        other = solved(without)
        text = model.project("text", few.inputs["text"])
        image = other.project("image", few.inputs["image"][few.index["image"][own]]) @ text.T
        gene = model.project("gene", few.inputs["gene"][few.index["gene"][own]]) @ text.T
        found.append(module.units_agreement(image, gene, np.repeat("s", len(own)), np.repeat("u", len(own)), ["u"])[0])
    assert decision.agreement[0] == pytest.approx(np.mean(found), abs=2e-4)


def test_the_final_steps_start_at_the_closed_form_of_all_pairs(few: Items, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    steps = module.refine_head

    def watched(pairs: Any, weight: np.ndarray, *args: Any, **kwargs: Any) -> Any:
        calls.append((sorted(set(pairs.group)), kwargs["steps"], weight))
        return steps(pairs, weight, *args, **kwargs)

    monkeypatch.setattr(module, "refine_head", watched)
    monkeypatch.setattr(module, "choose", always(2))
    model = solved(few)
    closed = image_head(model).weight[:-1].detach().clone()
    decision = refined(model, few).refinement
    # each patient is left out once
    assert sorted(groups for groups, *_ in calls[:-1]) == [["P0", "P1"], ["P0", "P2"], ["P1", "P2"]]
    assert calls[-1][:2] == (["P0", "P1", "P2"], LINEAR.candidates[2])
    assert torch.equal(torch.from_numpy(calls[-1][2]).float(), closed)
    assert decision is not None
    assert decision.steps == LINEAR.candidates[2]
    moved = image_head(model).weight[:-1].detach() - closed
    assert 0 < float(moved.abs().max()) <= LINEAR.candidates[2] * 3.1e-4
    # the constant coordinate stays
    assert not image_head(model).weight[-1].any()
    assert float(image_head(model).bias[-1].detach()) == pytest.approx(np.sqrt(worlds.GENES))
    assert not image_head(model).bias[:-1].any()


def test_the_seed_decides_every_bit(few: Items, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "choose", always(8))
    models = [solved(few), solved(few)]
    one, two = (refined(model, few).refinement for model in models)
    assert one == two
    assert torch.equal(image_head(models[0]).weight, image_head(models[1]).weight)


# ------------------------------------------------------------------------------------------------- what is left out


def test_many_pairs_of_few_patients_get_a_linear_head() -> None:
    for n_pairs, n_patients, method in ((4999, 6, LINEAR), (5000, 5, LINEAR), (5000, 6, RESIDUAL)):
        items = world(n_pairs, n_patients)[0]
        pairs = read_pairs(worlds.empty_space(), items, bridge="gene")
        assert pairs is not None
        assert method_for(pairs) is method


def test_of_one_patient_sections_are_left_out(few: Items) -> None:
    items = placed(replace(few, group=np.repeat("only", len(few))), 100)
    n_sections = len(set(items.places[0][:240])) if items.places else 0
    decision = refined(solved(items), items).refinement
    assert decision is not None
    assert len(decision.gains) in (n_sections, n_sections - 1)
    assert n_sections > 2
    assert "sections" in decision.reason


def test_one_section_is_not_refined(few: Items) -> None:
    items = replace(few, group=np.repeat("only", len(few)))
    fitted = refined(solved(items), items)
    assert fitted.refinement is not None
    assert (fitted.refinement.kept, fitted.refinement.candidates) == (False, ())
    assert "too few sections of the only patient to leave out (1, at least 3)" in fitted.refinement.reason
    assert len(fitted.history) == 0


def test_two_patients_decide_nothing() -> None:
    items = world(200, 2)[0]
    model = solved(items)
    before = image_head(model).weight.clone()
    decision = refined(model, items).refinement
    assert decision is not None
    assert "too few patients to leave out (2, at least 3)" in decision.reason
    assert torch.equal(image_head(model).weight, before)


def test_sections_too_small_to_rank_decide_nothing() -> None:
    items = world(15, 3)[0]
    decision = refined(solved(items), items).refinement
    assert decision is not None
    assert "too few left-out units" in decision.reason


# ------------------------------------------------------------------------------------------------- neighbours


def test_neighbours_stay_in_front_of_the_refined_head(few: Items, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "choose", always(8))
    items = placed(few, 5)
    model = solved(items, 0.5)
    where: dict[str, Any] = {
        "sections": np.repeat("s", 40),
        "positions": np.column_stack([np.arange(40.0), np.zeros(40)]),
    }
    x = few.inputs["image"][:40]
    before = model.project("image", x, **where)
    config = model.config.modality("image")
    refined(model, items, 0.5)
    after = model.config.modality("image")
    assert (after.context, after.head.in_dim) == (config.context, 2 * worlds.IMAGES)
    moved = np.abs(model.project("image", x, **where) - before).max()
    assert 0 < moved < 0.2


def test_the_head_learns_from_what_it_will_see(few: Items) -> None:
    items = placed(few, 5)
    model = solved(items, 0.5)
    pairs = read_pairs(model, items, bridge="gene")
    assert pairs is not None
    assert items.places is not None
    section, xy = items.places
    expected = model.contextual("image", few.inputs["image"], sections=section[:240], positions=xy[:240])
    assert pairs.seen == pytest.approx(expected)
    assert pairs.seen[:, : worlds.IMAGES] == pytest.approx(pairs.single)


def test_without_positions_a_head_with_neighbours_stays(few: Items) -> None:
    decision = refined(solved(few, 0.5), few, 0.5).refinement
    assert decision is not None
    assert "no positions" in decision.reason


def test_another_head_gets_no_constant() -> None:
    from spatialwhisperer.networks.heads import make_head, with_constant

    head = fixed_linear_head(np.eye(3))
    assert with_constant(head, 2.0)(torch.ones(1, 3)).tolist() == [[1.0, 1.0, 1.0, 2.0]]
    residual: Any = make_head("linear_residual", 3, 3, dropout=0.5).eval()
    torch.nn.init.normal_(residual.outer.weight)
    x = torch.randn(5, 3)
    wider: Any = with_constant(residual, 2.0).eval()
    assert torch.allclose(wider(x)[:, :3], residual(x), atol=1e-4)
    assert (wider(x)[:, 3] == 2.0).all()
    assert wider.dropout.p == 0.5
    with pytest.raises(TypeError, match="found Sequential"):
        with_constant(torch.nn.Sequential(), 1.0)
