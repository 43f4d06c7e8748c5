"""Projection heads: from the features of one encoder into the joint space."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from spatialwhisperer._random import untouched_rng
from spatialwhisperer.networks.negations import ORDINARY_ODDS


class BatchNormShortcut(nn.Module):
    """Sum of a two-layer perceptron with batch norm and a linear shortcut, then layer norm.

    ``LayerNorm(W2 ReLU(BN(W1 x)) + b2 + Ws x + bs)``. The shortcut starts near the identity (SpatialWhisperer, ICML 2026; the block is
    that of CLIP-Lite).
    """

    def __init__(self, in_dim: int, out_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.nonlinear = nn.Sequential(
            nn.Linear(in_dim, out_dim, bias=False),
            nn.BatchNorm1d(out_dim),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(out_dim, out_dim),
        )
        self.shortcut = nn.Linear(in_dim, out_dim)
        self.norm = nn.LayerNorm(out_dim)
        nn.init.uniform_(self.shortcut.weight, -0.01, 0.01)
        with torch.no_grad():
            self.shortcut.weight.fill_diagonal_(1.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Project (n, in_dim) to (n, out_dim)."""
        return self.norm(self.nonlinear(x) + self.shortcut(x))


class LinearNorm(nn.Module):
    """Dropout, one linear layer, layer norm; suited to few pairs."""

    def __init__(self, in_dim: int, out_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(in_dim, out_dim)
        self.norm = nn.LayerNorm(out_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Project (n, in_dim) to (n, out_dim)."""
        return self.norm(self.linear(self.dropout(x)))


class Linear(nn.Linear):
    """One linear layer, such as the solution of a ridge regression."""

    def __init__(self, in_dim: int, out_dim: int, dropout: float = 0.0) -> None:
        if dropout:
            raise ValueError("The head 'linear' has no dropout; use 'linear_norm'.")
        super().__init__(in_dim, out_dim)


class SignedLinear(nn.Module):
    """A linear map without a bias whose result is turned round for texts that negate: ``tanh((a·x + b + log o) / 2) W x``.

    The factor is twice the probability of a logistic regression, minus one: 1 for a text that says that something is there, and -1 for
    one that says that it is not. ``o`` is `ORDINARY_ODDS`, which is no parameter: stored are ``a`` and ``b`` as they were fitted.
    """

    def __init__(self, in_dim: int, out_dim: int, dropout: float = 0.0) -> None:
        if dropout:
            raise ValueError("The head 'signed_linear' has no dropout; use 'linear_norm'.")
        super().__init__()
        self.linear = nn.Linear(in_dim, out_dim, bias=False)
        self.sign = nn.Linear(in_dim, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Project (n, in_dim) to (n, out_dim)."""
        return self.factor(x) * self.linear(x)

    def factor(self, x: torch.Tensor, odds: float = ORDINARY_ODDS) -> torch.Tensor:
        """What the mapped rows are multiplied with, shape (n, 1); below zero where a text is read as a negation at these odds."""
        return torch.tanh((self.sign(x) + math.log(odds)) / 2)


class LinearResidual(nn.Module):
    """Linear map plus a perceptron that starts at zero: ``W x + b + W2 Dropout(GELU(W1 x + b1)) + b2`` with ``W2 = b2 = 0``.

    It refines a linear map, such as the solution of a ridge regression, and is equal to it before the first step.
    """

    hidden = 256

    def __init__(self, in_dim: int, out_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.linear = nn.Linear(in_dim, out_dim)
        self.inner = nn.Linear(in_dim, self.hidden)
        self.dropout = nn.Dropout(dropout)
        self.outer = nn.Linear(self.hidden, out_dim)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Project (n, in_dim) to (n, out_dim)."""
        return self.linear(x) + self.outer(self.dropout(nn.functional.gelu(self.inner(x))))

    def warm_start(self, weight: np.ndarray) -> None:
        """Set the linear map to given weights (out_dim, in_dim) without bias."""
        with torch.no_grad():
            self.linear.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight)))
            self.linear.bias.zero_()


class ResidualMLP(nn.Module):
    """Linear layer with a residual branch (GELU, linear layer, dropout), then layer norm.

    ``LayerNorm(p + Dropout(W2 GELU(p) + b2))`` with ``p = W1 x + b1`` (BLEEP, NeurIPS 2023; HECLIP and mclSTExp).
    """

    def __init__(self, in_dim: int, out_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.projection = nn.Linear(in_dim, out_dim)
        self.residual = nn.Sequential(nn.GELU(), nn.Linear(out_dim, out_dim), nn.Dropout(dropout))
        self.norm = nn.LayerNorm(out_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Project (n, in_dim) to (n, out_dim)."""
        p = self.projection(x)
        return self.norm(p + self.residual(p))


class NoHead(nn.Identity):
    """The features unchanged: the joint space is the feature space of the encoder (genes of HECLIP-hvg)."""

    def __init__(self, in_dim: int, out_dim: int, dropout: float = 0.0) -> None:
        if in_dim != out_dim:
            raise ValueError(
                f"The head 'none' changes no dimension, but features have {in_dim} and the joint space {out_dim}; "
                f"set the projection to {in_dim} dimensions or choose another head."
            )
        if dropout:
            raise ValueError("The head 'none' has no dropout; use 'linear_norm'.")
        super().__init__()


HEADS: dict[str, type[nn.Module]] = {
    "bn_shortcut": BatchNormShortcut,
    "linear": Linear,
    "linear_norm": LinearNorm,
    "linear_residual": LinearResidual,
    "none": NoHead,
    "rmlp": ResidualMLP,
    "signed_linear": SignedLinear,
}


def make_head(kind: str, in_dim: int, out_dim: int, **options: Any) -> nn.Module:
    """Build a head by name.

    Raises
    ------
    ValueError
        If the name is unknown, or the head does not allow the dimensions or the dropout.
    """
    if kind not in HEADS:
        raise ValueError(f"Unknown head {kind!r}; choose one of {', '.join(HEADS)}.")
    return HEADS[kind](in_dim, out_dim, **options)


def fixed_linear_head(weight: np.ndarray, constant: float | None = None) -> nn.Linear:
    """The head "linear" with given weights and no bias.

    Parameters
    ----------
    weight
        Shape (out_dim, in_dim).
    constant
        Value of one more coordinate, which is the same for all rows; ``None`` adds none.
    """
    out_dim, in_dim = weight.shape
    with untouched_rng():
        head = Linear(in_dim, out_dim + (constant is not None))
    with torch.no_grad():
        head.weight.zero_()
        head.weight[:out_dim].copy_(torch.from_numpy(np.ascontiguousarray(weight)))
        head.bias.zero_()
        if constant is not None:
            head.bias[-1] = constant
    return head


def fixed_signed_head(weight: np.ndarray, sign: np.ndarray, bias: float, *, n_zeros: int = 0) -> nn.Module:
    """The head "signed_linear" with given weights.

    Parameters
    ----------
    weight
        Of the linear map, shape (out_dim, in_dim).
    sign, bias
        Of the logistic regression, shape (in_dim,) and a number.
    n_zeros
        Number of more coordinates, which are zero for all rows.
    """
    out_dim, in_dim = weight.shape
    with untouched_rng():
        head = SignedLinear(in_dim, out_dim + n_zeros)
    with torch.no_grad():
        head.linear.weight.zero_()
        head.linear.weight[:out_dim].copy_(torch.from_numpy(np.ascontiguousarray(weight)))
        head.sign.weight[0].copy_(torch.from_numpy(np.ascontiguousarray(sign)))
        head.sign.bias.fill_(bias)
    return head


def with_constant(head: nn.Module, constant: float) -> nn.Module:
    """The same head "linear" or "linear_residual" with one more coordinate, which is the same for all rows.

    Raises
    ------
    TypeError
        If it is another head.
    """
    if isinstance(head, Linear):
        with untouched_rng():
            wider = Linear(head.in_features, head.out_features + 1)
        _widen(head, wider, constant)
        return wider
    if not isinstance(head, LinearResidual):
        raise TypeError(f"A constant coordinate follows a linear map; found {type(head).__name__}.")
    with untouched_rng():
        residual = LinearResidual(head.linear.in_features, head.linear.out_features + 1, head.dropout.p)
    residual.inner.load_state_dict(head.inner.state_dict())
    _widen(head.linear, residual.linear, constant)
    _widen(head.outer, residual.outer, 0.0)
    return residual


@torch.no_grad()
def _widen(narrow: nn.Linear, wide: nn.Linear, last: float) -> None:
    """Copy a layer into one with another output, which is constant."""
    wide.weight[:-1].copy_(narrow.weight)
    wide.bias[:-1].copy_(narrow.bias)
    wide.weight[-1] = 0.0
    wide.bias[-1] = last


def make_decoder(in_dim: int, out_dim: int, *, hidden: int = 256, dropout: float = 0.1) -> nn.Module:
    """A perceptron from the joint embedding (n, in_dim) to the expression of genes (n, out_dim).

    It is trained together with the joint space and predicts expression by regression.
    """
    return nn.Sequential(nn.Linear(in_dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, out_dim))
