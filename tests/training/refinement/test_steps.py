from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from spatialwhisperer.training.refinement.pairs import Pairs
from spatialwhisperer.training.refinement.steps import (
    LINEAR,
    RESIDUAL,
    Method,
    refine_head,
    section_batches,
    section_loss,
    unit_rows,
    warm_head,
)


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(60, 6))
    target = image @ rng.normal(size=(6, 4)) + rng.normal(size=(60, 4))
    section = np.repeat(["a", "b", "c"], [20, 30, 10])
    return Pairs(image, image.astype(np.float32), target, section, section, None)


@pytest.fixture(scope="module")
def weight() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(4, 6)) / 3


def run(pairs: Pairs, weight: np.ndarray, method: Method, steps: int, seed: int = 0) -> tuple[Any, dict[int, float]]:
    losses: dict[int, float] = {}
    head = refine_head(
        pairs,
        weight,
        method,
        constant=2.0,
        steps=steps,
        random_state=seed,
        watch=lambda step, _, loss: losses.update({step: loss}),
    )
    return head, losses


def numpy_loss(image: np.ndarray, gene: np.ndarray, temperature: float) -> float:
    """Symmetric InfoNCE of CLIP, written down anew."""
    logits = image @ gene.T / temperature
    own = np.diag(logits)
    by_image = (logsumexp(logits, axis=1) - own).mean()
    by_gene = (logsumexp(logits, axis=0) - own).mean()
    return float((by_image + by_gene) / 2)


def with_constant(x: np.ndarray, constant: float) -> np.ndarray:
    x = np.column_stack([x, np.full(len(x), constant)])
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))


def test_the_loss_is_that_of_numpy_within_sections(pairs: Pairs, weight: np.ndarray) -> None:
    image, gene = with_constant(pairs.single @ weight.T, 2.0), with_constant(pairs.target, 2.0)
    parts = [slice(0, 20), slice(20, 50), slice(50, 60)]
    expected = sum((p.stop - p.start) / 60 * numpy_loss(image[p], gene[p], 0.2) for p in parts)
    got = section_loss(torch.from_numpy(image), torch.from_numpy(gene), parts, 0.2)
    assert float(got) == pytest.approx(expected, rel=1e-12)
    assert unit_rows(torch.from_numpy(pairs.target), 2.0).numpy() == pytest.approx(gene)
    # and the loss of the first step is that at the warm start
    losses = run(pairs, weight, replace(LINEAR, candidates=(0, 1)), 1)[1]
    assert np.isnan(losses[0])
    assert losses[1] == pytest.approx(expected, rel=1e-5)


def test_rows_of_another_section_are_no_negatives(pairs: Pairs, weight: np.ndarray) -> None:
    """The loss of a section does not depend on the others."""
    image, gene = (torch.from_numpy(with_constant(x, 2.0)) for x in (pairs.single @ weight.T, pairs.target))
    parts = [slice(0, 20), slice(20, 60)]
    alone = section_loss(image[:20], gene[:20], parts[:1], 0.2)
    other = gene.clone()
    other[20:] = gene[20:].flip(0)
    for changed in (gene, other):
        rest = section_loss(image[20:], changed[20:], [slice(0, 40)], 0.2)
        both = section_loss(image, changed, parts, 0.2)
        assert float(both) == pytest.approx(float(alone * 20 + rest * 40) / 60)


def test_a_batch_holds_rows_of_a_section_side_by_side() -> None:
    sections = np.repeat(["a", "b", "c", "d"], [300, 40, 1, 100])
    taken: list[np.ndarray] = []
    batches = section_batches(sections, 0, chunk=64, rows=150)
    while sum(map(len, taken)) < 440:
        rows, parts = next(batches)
        taken.append(rows)
        assert [p.start for p in parts] == [0, *[p.stop for p in parts[:-1]]]
        assert parts[-1].stop == len(rows)
        for p in parts:
            assert len(set(sections[rows[p]])) == 1
            assert 2 <= p.stop - p.start <= 64
    # an epoch passes once through every row that has a negative
    assert sorted(np.concatenate(taken).tolist()) == [i for i in range(441) if i != 340]
    assert not np.array_equal(taken[0], next(section_batches(sections, 1, chunk=64, rows=150))[0])


@pytest.mark.parametrize("method", [LINEAR, RESIDUAL], ids=lambda m: m.head)
def test_step_0_is_exactly_the_closed_form(pairs: Pairs, weight: np.ndarray, method: Method) -> None:
    x = torch.from_numpy(pairs.seen)
    expected = torch.nn.functional.linear(x, torch.from_numpy(weight).float())
    for head in (warm_head(weight, method), run(pairs, weight, method, 0)[0]):
        assert torch.equal(head(x), expected)


@pytest.mark.parametrize("method", [LINEAR, RESIDUAL], ids=lambda m: m.head)
def test_the_seed_decides_every_bit(pairs: Pairs, weight: np.ndarray, method: Method) -> None:
    state = torch.random.get_rng_state()
    first, again, other = (run(pairs, weight, method, 7, seed)[0].state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    if method is RESIDUAL:
        assert any(not torch.equal(first[name], other[name]) for name in first)


def test_one_step_of_adam_by_hand(pairs: Pairs, weight: np.ndarray) -> None:
    """Adam's first step moves every weight by the learning rate, against the sign of its gradient, which has no pull yet."""
    warm = torch.from_numpy(weight).float().requires_grad_()
    gene = torch.from_numpy(with_constant(pairs.target, 2.0)).float()
    image = unit_rows(torch.from_numpy(pairs.seen) @ warm.T, 2.0)
    section_loss(image, gene, [slice(0, 20), slice(20, 50), slice(50, 60)], 0.2).backward()
    assert warm.grad is not None
    expected = weight - 3e-4 * np.sign(warm.grad.numpy())
    got = run(pairs, weight, LINEAR, 1)[0]
    assert got.weight.detach().numpy() == pytest.approx(expected, abs=1e-6)
    assert not got.bias.any()


def test_the_pull_holds_the_map_near_the_closed_form(pairs: Pairs, weight: np.ndarray) -> None:
    def moved(pull: float) -> float:
        method = replace(LINEAR, pull=pull, learning_rate=0.01, warm_learning_rate=0.01)
        return float(np.linalg.norm(run(pairs, weight, method, 40)[0].weight.detach().numpy() - weight))

    assert moved(100.0) < 0.5 * moved(1.0) < 0.5 * moved(0.0)


def test_the_loss_falls_and_the_perceptron_leaves_zero(pairs: Pairs, weight: np.ndarray) -> None:
    head, losses = run(pairs, weight, RESIDUAL, 50)
    first = run(pairs, weight, replace(RESIDUAL, candidates=(0, 1)), 1)[1][1]
    assert losses[50] < first
    assert head.outer.weight.any()
    assert not head.linear.bias.any()
