from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn.linear_model import Ridge

from spatialwhisperer.encoders.base import Encoder
from spatialwhisperer.statistics.grouped_ridge import PENALTIES
from spatialwhisperer.training.ridge_link import linked_pairs, pair_units, ridge_link, solve_ridge

if TYPE_CHECKING:
    from collections.abc import Callable

    from spatialwhisperer.models.joint_space import JointSpace
    from spatialwhisperer.training.batches import Items

    Space = Callable[..., JointSpace]


def test_the_solution_is_that_of_sklearn() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 8))
    x -= x.mean(axis=0)
    y = x @ rng.normal(size=(8, 5)) + 4 * rng.normal(size=(300, 5)) + 3
    weight, alpha = solve_ridge(x, y, np.arange(300) % 5)
    assert weight == pytest.approx(Ridge(alpha=alpha).fit(x, y).coef_)


def test_noise_gets_a_large_penalty_and_a_clear_map_the_smallest() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 8))
    units, eigenvalue = np.arange(300) % 5, np.square(x - x.mean(axis=0)).sum() / 8
    assert solve_ridge(x, x @ rng.normal(size=(8, 5)), units)[1] == pytest.approx(PENALTIES[0] * eigenvalue)
    assert solve_ridge(x, rng.normal(size=(300, 5)), units)[1] >= 100 * PENALTIES[0] * eigenvalue


def test_copies_of_a_tile_in_its_patient_do_not_lead_to_the_smallest_penalty() -> None:
    rng = np.random.default_rng(0)
    x, y = (np.repeat(rng.normal(size=(60, d)), 4, axis=0) for d in (80, 5))
    assert solve_ridge(x, y, np.arange(240) // 60)[1] >= 100 * PENALTIES[0] * 240


def test_pairs_are_left_out_by_patient_else_by_section_else_by_block(items: Items) -> None:
    patients = pair_units(items, "gene")
    assert np.array_equal(patients, items.group[:32] == "b")
    one = replace(items, group=np.full(48, "a"))
    assert np.array_equal(pair_units(one, "gene"), np.arange(32) // 4)  # runs of rows
    xy = np.stack([np.arange(48) % 2, np.arange(48)], axis=1).astype(float)
    sections = replace(one, places=(np.arange(48) % 3, xy))
    assert np.array_equal(pair_units(sections, "gene"), np.arange(32) % 3)
    moved = sections.subset(np.arange(48)[::-1])
    assert np.array_equal(pair_units(moved, "gene"), np.arange(32) % 3)
    blocks = replace(one, places=(np.zeros(48), xy[np.random.default_rng(0).permutation(48)]))
    assert sorted(np.bincount(pair_units(blocks, "gene"))) == [4] * 8


def test_a_pair_is_linked_once_however_many_captions_it_has(items: Items) -> None:
    twice = items.subset(np.array([0, 0, 3, 40]))
    assert linked_pairs(twice, "gene").tolist() == [[0, 3], [0, 3]]


def test_the_image_head_is_the_regression_on_the_embedding_of_the_bridge(items: Items, space: Space) -> None:
    model = space()
    before = {name: value.clone() for name, value in model.heads["gene"].state_dict().items()}
    fitted = ridge_link(model, items, bridge="gene")
    x, gene = items.inputs["image"], items.inputs["gene"][:32]
    y = model("gene", torch.from_numpy(gene)).detach().double().numpy()
    weight, alpha = solve_ridge(x.astype(float), y, pair_units(items, "gene"))
    head: Any = model.heads["image"]
    assert torch.allclose(head.weight, torch.from_numpy(weight).float(), atol=1e-5)
    assert not head.bias.any()
    assert model.config.modalities["image"].head.kind == "linear"
    assert fitted.penalties == {"ridge_alpha": alpha}
    error = np.square(x @ weight.T - (y - y.mean(axis=0))).mean()
    assert fitted.history["loss"].tolist() == pytest.approx([error])
    for name, value in model.heads["gene"].state_dict().items():
        assert torch.equal(value, before[name])


def test_the_error_on_held_out_items_is_that_of_the_same_map(items: Items, space: Space) -> None:
    own, other = (items.subset(np.flatnonzero(items.group == g)) for g in "ab")
    model = space()
    fitted = ridge_link(model, own, bridge="gene", validation=other)
    z = {m: model.project(m, items.inputs[m][:32], unit=m == "gene") for m in ("image", "gene")}
    expected = np.square(z["image"][::2] + z["gene"][1::2].mean(axis=0) - z["gene"][::2]).mean()
    assert fitted.history["val_loss"].tolist() == pytest.approx([expected], rel=1e-4)
    assert "val_loss" not in ridge_link(space(), own, bridge="gene").history
    captions = other.subset(np.flatnonzero(other.index["image"] < 0))
    assert "val_loss" not in ridge_link(space(), own, bridge="gene", validation=captions).history


def test_a_trained_bridge_is_embedded_by_its_encoder(items: Items, space: Space) -> None:
    class Halved(Encoder):
        def encode(self, inputs: Any, **options: Any) -> np.ndarray:
            raise NotImplementedError

        def module(self) -> torch.nn.Module:
            layer = torch.nn.Linear(5, 5, bias=False)
            torch.nn.init.eye_(layer.weight)
            return layer

        def collate(self, inputs: Any) -> torch.Tensor:
            return torch.from_numpy(inputs.toarray()) / 2

    plain, trained = space(), space(trained={"gene": Halved()})
    doubled = replace(items, inputs={**items.inputs, "gene": csr_matrix(2 * items.inputs["gene"])})
    ridge_link(plain, items, bridge="gene")
    ridge_link(trained, doubled, bridge="gene")
    heads: Any = plain.heads["image"], trained.heads["image"]
    assert torch.allclose(heads[0].weight, heads[1].weight, atol=1e-5)
