from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from spatialwhisperer.networks import context
from spatialwhisperer.networks.context import CONTEXTS, apply_context, gather_neighbours
from spatialwhisperer.retrieval.neighbours import Neighbourhood, section_neighbours

DIM = 12


def make_context(kind: str, dim: int, **options: Any) -> Any:
    """A module, without a type: the tests read the parts of each kind."""
    return context.make_context(kind, dim, **options)


def shaken(kind: str, **options: Any) -> Any:
    """A module whose every parameter is random, as after training."""
    generator = torch.Generator().manual_seed(0)
    module = make_context(kind, DIM, **options)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return module.eval()


def rows(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, DIM, generator=torch.Generator().manual_seed(seed))


def lattice(side: int, spacing: float = 7.0) -> np.ndarray:
    return spacing * np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2).astype(float)


# ------------------------------------------------------------------------------------------------- modules


def test_contexts_by_name() -> None:
    assert {kind: make_context(kind, DIM).out_dim for kind in CONTEXTS} == {
        "batch_peer": DIM,
        "section_knn": DIM,
        "section_mean": 2 * DIM,
    }
    with pytest.raises(ValueError, match="batch_peer, section_knn, section_mean"):
        make_context("graph", DIM)
    with pytest.raises(ValueError, match="bandwidth"):
        make_context("section_mean", DIM, bandwidth=0)


def test_batch_peer_is_the_published_encoder() -> None:
    """Written out plainly from its formula."""
    module = shaken("batch_peer", heads=2, head_dim=5, depth=2, table_size=9)
    module.seen_x[:], module.seen_y[:] = True, True
    x, at = rows(6), torch.randint(0, 9, (6, 2), generator=torch.Generator().manual_seed(1))
    h = x + module.table_x.weight[at[:, 0]] + module.table_y.weight[at[:, 1]]
    for block in module.blocks:
        z = block.norm(h)
        q, (k, v) = z @ block.query.weight.T, (z @ block.key_value.weight.T).split(10, dim=1)
        mixed = [torch.softmax(q[:, s] @ k[:, s].T * 5**-0.5, dim=1) @ v[:, s] for s in (slice(0, 5), slice(5, 10))]
        h = h + torch.cat(mixed, dim=1) @ block.out[0].weight.T + block.out[0].bias
        norm, first, _, _, second, _ = block.perceptron
        h = h + second(torch.nn.functional.gelu(first(norm(h))))
    torch.testing.assert_close(module(x, at), h)


def test_batch_peer_depends_on_the_other_rows_of_the_batch() -> None:
    module, x, at = shaken("batch_peer"), rows(8), torch.zeros(8, 2, dtype=torch.long)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(module(x[order], at[order]), module(x, at)[order], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(module(x[:4], at[:4]), module(x, at)[:4], atol=1e-3)


def test_positions_that_were_never_trained_on_add_nothing() -> None:
    module = make_context("batch_peer", DIM, depth=0, table_size=5)
    x = rows(4)
    inside, outside = torch.tensor([[1, 2]] * 4), torch.tensor([[-1, 5], [70000, 4], [4, -3], [0, 0]])
    assert torch.equal(module.eval()(x, inside), x)
    trained = module.train()(x, torch.tensor([[1, 2]] * 4))
    torch.testing.assert_close(trained, x + module.table_x.weight[1] + module.table_y.weight[2])
    assert module.seen_x.tolist() == [False, True, False, False, False]
    module.eval()
    assert torch.equal(module(x, inside), trained)
    assert torch.equal(module(x, outside), x)
    assert not module.seen_x[0]
    again = make_context("batch_peer", DIM, depth=0, table_size=5).eval()
    again.load_state_dict(module.state_dict())
    assert torch.equal(again(x, inside), trained)
    with pytest.raises(TypeError, match="whole numbers"):
        module(x, inside.float())


def section(side: int = 6, k: int = 8, seed: int = 0) -> tuple[torch.Tensor, Neighbourhood]:
    return rows(side**2, seed), section_neighbours(lattice(side), np.zeros(side**2), k)


@pytest.mark.parametrize("kind", ["section_knn", "section_mean"])
def test_neighbour_contexts_depend_on_the_row_and_its_neighbours_only(kind: str) -> None:
    x, near = section()
    module = shaken(kind)
    got = apply_context(module, x, neighbourhood=near)
    assert got.shape == (36, module.out_dim)
    for batch_size in (1, 5, 36):
        torch.testing.assert_close(apply_context(module, x, neighbourhood=near, batch_size=batch_size), got)
    # far away rows do not matter, near ones do
    changed = x.clone()
    changed[35] = rows(1, 7)[0]
    after = apply_context(module, changed, neighbourhood=near)
    touched = (near.index == 35).any(axis=1)
    torch.testing.assert_close(after[~touched], got[~touched])
    assert ((after - got).abs().amax(dim=1) > 1e-4).numpy()[touched].all()
    # another section, and the order of rows
    order = np.random.default_rng(0).permutation(72)
    xy = np.concatenate([lattice(6), lattice(6) * 2])[order]
    both = section_neighbours(xy, np.repeat([0, 1], 36)[order], 8)
    mixed = apply_context(module, torch.cat([x, rows(36, 9)])[order], neighbourhood=both)
    back = np.argsort(order)[:36]
    torch.testing.assert_close(mixed[back], got)


@pytest.mark.parametrize("kind", ["section_knn", "section_mean"])
def test_order_of_neighbours_and_padding_do_not_matter(kind: str) -> None:
    x, near = section()
    module, index, offsets = shaken(kind), torch.as_tensor(near.index), torch.as_tensor(near.offsets)
    tokens, mask = gather_neighbours(x, index)
    mask[:, 6:] = False
    got = module(tokens, offsets, mask)
    shuffle = torch.tensor([0, 5, 2, 8, 1, 7, 3, 6, 4])
    torch.testing.assert_close(module(tokens[:, shuffle], offsets[:, shuffle], mask[:, shuffle]), got)
    torch.testing.assert_close(module(tokens[:, :6], offsets[:, :6], mask[:, :6]), got)
    tokens[:, 6:], offsets[:, 6:] = torch.nan, 1e9
    padded = module(tokens.requires_grad_(), offsets, mask)
    torch.testing.assert_close(padded, got)
    padded.sum().backward()
    assert tokens.grad is not None
    assert torch.isfinite(tokens.grad).all()
    # a row alone
    alone = torch.zeros_like(mask)
    assert torch.isfinite(module(tokens, offsets, alone)).all()


@pytest.mark.parametrize("kind", ["section_knn", "section_mean"])
def test_a_row_without_features_is_not_a_neighbour(kind: str) -> None:
    x, near = section()
    x[14] = torch.nan
    got = apply_context(shaken(kind), x, neighbourhood=near)
    assert torch.isnan(got).any(dim=1).nonzero().ravel().tolist() == [14]


@pytest.mark.parametrize("depth", [1, 2])
def test_where_a_neighbour_lies_matters(depth: int) -> None:
    x, near = section()
    module = shaken("section_knn", depth=depth)
    index, offsets = torch.as_tensor(near.index), torch.as_tensor(near.offsets)
    tokens, mask = gather_neighbours(x, index)
    moved = offsets.clone()
    moved[:, 3] = moved[:, 3] * 2 + 0.5
    assert ((module(tokens, moved, mask) - module(tokens, offsets, mask)).abs().amax(dim=1) > 1e-4).all()


def test_section_knn_starts_as_the_identity_and_then_learns() -> None:
    x, near = section()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = make_context("section_knn", DIM, depth=2)
    assert torch.equal(apply_context(module, x, neighbourhood=near), x)
    # the row's own features say nothing of the target, the mean of its neighbours all
    index, offsets = torch.as_tensor(near.index), torch.as_tensor(near.offsets)
    tokens, mask = gather_neighbours(x, index)
    target = tokens[:, 1:].where(mask[:, 1:, None], 0).sum(1) / mask[:, 1:].sum(1, keepdim=True)
    optimiser, losses = torch.optim.Adam(module.parameters(), 5e-3), []
    for _ in range(100):
        loss = (module(tokens, offsets, mask) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize("kind", ["batch_peer", "section_knn"])
def test_gradients_reach_every_parameter(kind: str) -> None:
    module = shaken(kind, depth=2).train()
    x, near = section()
    x.requires_grad_()
    if kind == "batch_peer":
        out = module(x, torch.randint(0, 256, (36, 2), generator=torch.Generator().manual_seed(0)))
    else:
        tokens, mask = gather_neighbours(x, torch.as_tensor(near.index))
        out = module(tokens, torch.as_tensor(near.offsets), mask)
    (out * rows(36, 3)).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().min() > 0
    for name, parameter in module.named_parameters():
        assert parameter.grad.abs().max() > 1e-6, name


def test_section_mean_is_the_weighted_mean() -> None:
    x = rows(3)
    near = section_neighbours(np.array([[0.0, 0], [1, 0], [0, 2]]), np.zeros(3), 2)
    got = apply_context(make_context("section_mean", DIM, bandwidth=2.0), x, neighbourhood=near)
    weight = np.exp(-np.array([1, 4]) / 8)
    want = (weight[0] * x[1] + weight[1] * x[2]) / weight.sum()
    torch.testing.assert_close(got[0], torch.cat([x[0], want.float()]))
    # far neighbours do not underflow, and a row alone is its own mean
    far = section_neighbours(np.array([[0.0, 0], [1, 0], [1e4, 0], [0, 1]]), np.array([0, 0, 0, 1]), 2)
    got = apply_context(make_context("section_mean", DIM), rows(4), neighbourhood=far)
    torch.testing.assert_close(got[2, DIM:], rows(4)[1])
    torch.testing.assert_close(got[3, DIM:], rows(4)[3])


# ------------------------------------------------------------------------------------------------- inference


def test_batch_peer_runs_over_consecutive_chunks() -> None:
    module, x = shaken("batch_peer"), rows(70)
    at = torch.randint(0, 256, (70, 2), generator=torch.Generator().manual_seed(0))
    got = apply_context(module.train(), x, positions=at, chunk=32)
    assert module.training
    assert not module.seen_x.any()
    assert not got.requires_grad
    module.eval()
    want = torch.cat([module(x[s], at[s]) for s in (slice(0, 32), slice(32, 64), slice(64, 70))])
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(apply_context(module, x, positions=at, chunk=32, batch_size=3), got)
    torch.testing.assert_close(apply_context(module, x, positions=at), module(x, at))


def test_apply_context_at_the_edges() -> None:
    x, near = section()
    assert apply_context(
        make_context("section_mean", DIM), rows(0), neighbourhood=section_neighbours(np.empty((0, 2)), [], 8)
    ).shape == (0, 2 * DIM)
    assert apply_context(
        make_context("batch_peer", DIM), rows(0), positions=torch.empty(0, 2, dtype=torch.long)
    ).shape == (0, DIM)
    with pytest.raises(ValueError, match="BatchPeer needs positions=… of the 36 rows; none was given"):
        apply_context(make_context("batch_peer", DIM), x, neighbourhood=near)
    with pytest.raises(ValueError, match="SectionKNN needs neighbourhood=… of the 35 rows; it has 36"):
        apply_context(make_context("section_knn", DIM), x[:35], neighbourhood=near)
    with pytest.raises(ValueError, match="chunk must be"):
        apply_context(make_context("batch_peer", DIM), x, positions=torch.zeros(36, 2, dtype=torch.long), chunk=0)
    with pytest.raises(ValueError, match="batch_size must be"):
        apply_context(make_context("section_knn", DIM), x, neighbourhood=near, batch_size=0)
