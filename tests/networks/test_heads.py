from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from spatialwhisperer.networks.heads import HEADS, fixed_linear_head, fixed_signed_head, make_decoder, make_head


@pytest.mark.parametrize(("in_dim", "millions"), [(512, 6.304), (768, 7.352), (1536, 10.498)])
def test_published_parameter_counts(in_dim: int, millions: float) -> None:
    """Heads of the released model at 2048 dimensions: genes, text, image."""
    with torch.device("meta"):
        head: Any = make_head("bn_shortcut", in_dim, 2048)
    assert sum(p.numel() for p in head.parameters()) / 1e6 == pytest.approx(millions, abs=5e-4)


def test_shortcut_starts_near_the_identity() -> None:
    torch.manual_seed(0)
    head: Any = make_head("bn_shortcut", 12, 8)
    weight = head.shortcut.weight
    diagonal = weight.diagonal()
    assert torch.equal(diagonal, torch.ones(8))
    off = weight.detach().clone()
    off.fill_diagonal_(0)
    assert 0 < off.abs().max() <= 0.01


def test_formula_of_the_block() -> None:
    torch.manual_seed(0)
    head: Any = make_head("bn_shortcut", 6, 4).eval()
    x = torch.randn(5, 6)
    w1, bn, _, _, out = head.nonlinear
    hidden = (x @ w1.weight.T - bn.running_mean) / (bn.running_var + 1e-5).sqrt() * bn.weight + bn.bias
    y = hidden.relu() @ out.weight.T + out.bias + x @ head.shortcut.weight.T + head.shortcut.bias
    y = (y - y.mean(1, keepdim=True)) / (y.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    assert w1.bias is None
    assert torch.allclose(head(x), y, atol=1e-5)


@pytest.mark.parametrize("kind", sorted(HEADS))
def test_shapes(kind: str) -> None:
    width = 7 if kind == "none" else 3
    assert make_head(kind, 7, width)(torch.randn(5, 7)).shape == (5, width)


def test_formula_of_the_residual_head() -> None:
    torch.manual_seed(0)
    head: Any = make_head("rmlp", 6, 4, dropout=0.1).eval()
    x = torch.randn(5, 6)
    p = x @ head.projection.weight.T + head.projection.bias
    out = head.residual[1]
    y = p + (0.5 * p * (1 + torch.erf(p / 2**0.5))) @ out.weight.T + out.bias
    y = (y - y.mean(1, keepdim=True)) / (y.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    assert torch.allclose(head(x), y, atol=1e-5)


def test_dropout_of_the_residual_head_spares_the_projection() -> None:
    head: Any = make_head("rmlp", 6, 4, dropout=1.0).train()
    x = torch.randn(5, 6)
    assert torch.equal(head(x), head.norm(head.projection(x)))


def test_no_head_leaves_features_alone() -> None:
    x = torch.randn(5, 7)
    head: Any = make_head("none", 7, 7)
    assert head(x) is x
    assert not list(head.parameters())
    with pytest.raises(ValueError, match="features have 7 and the joint space 3; set the projection to 7"):
        make_head("none", 7, 3)
    with pytest.raises(ValueError, match="no dropout"):
        make_head("none", 7, 7, dropout=0.1)


def test_dropout_and_unknown_heads() -> None:
    head: Any = make_head("linear_norm", 4, 2, dropout=0.5)
    assert head.dropout.p == 0.5
    with pytest.raises(ValueError, match="use 'linear_norm'"):
        make_head("linear", 4, 2, dropout=0.5)
    with pytest.raises(ValueError, match="Unknown head 'mlp'; choose one of bn_shortcut"):
        make_head("mlp", 4, 2)


def test_a_fixed_head_is_the_product_with_its_weights() -> None:
    rng = np.random.default_rng(0)
    weight, x = rng.normal(size=(3, 5)).astype(np.float32), torch.from_numpy(rng.normal(size=(4, 5)).astype(np.float32))
    expected = x @ torch.from_numpy(weight).T
    assert torch.allclose(fixed_linear_head(weight)(x), expected, atol=1e-6)
    state = torch.get_rng_state()
    longer = fixed_linear_head(weight, 2.5)(x)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.allclose(longer[:, :3], expected, atol=1e-6)
    assert longer[:, 3].tolist() == [2.5] * 4


def test_a_decoder_maps_the_joint_space_to_genes() -> None:
    assert make_decoder(5, 7, hidden=11)(torch.zeros(3, 5)).shape == (3, 7)


def test_a_signed_head_turns_the_direction_of_inputs_on_one_side_round() -> None:
    rng = np.random.default_rng(1)
    weight, sign, x = rng.normal(size=(3, 4)), rng.normal(size=4), rng.normal(size=(5, 4))
    head = fixed_signed_head(weight, sign, 0.3, n_zeros=1)
    odds = 3 * np.exp(x @ sign + 0.3)
    probability = odds / (1 + odds)
    expected = (2 * probability - 1)[:, None] * (x @ weight.T)
    found = head(torch.tensor(x, dtype=torch.float32)).detach().numpy()
    assert np.allclose(found[:, :3], expected, atol=1e-5)
    assert not found[:, 3].any()
    # what is stored is the regression as it was fitted
    assert head.state_dict()["sign.bias"].item() == pytest.approx(0.3)
    with pytest.raises(ValueError, match="no dropout"):
        make_head("signed_linear", 4, 2, dropout=0.5)


@pytest.mark.parametrize(("logit", "turned"), [(-1.2, True), (-1.0, False), (0.0, False), (-math.log(3) - 1e-5, True)])
def test_a_text_is_turned_round_where_it_negates_with_more_than_three_to_one(logit: float, turned: bool) -> None:
    """Near the limit the mapped text is short, and its direction as exact as that of others."""
    rng = np.random.default_rng(2)
    weight, x = rng.normal(size=(3, 4)), rng.normal(size=4)
    head: Any = fixed_signed_head(weight, x / (x @ x) * logit, 0.0)
    z = head(torch.tensor(x, dtype=torch.float32)[None]).detach().numpy()[0]
    straight = weight @ x
    assert z @ straight / np.linalg.norm(z) / np.linalg.norm(straight) == pytest.approx(-1 if turned else 1, abs=1e-5)
