"""Contrastive steps from a warm start, with negatives from the same section."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from spatialwhisperer._random import isolated_rng
from spatialwhisperer.networks.heads import LinearResidual, fixed_linear_head
from spatialwhisperer.networks.losses import contrastive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from spatialwhisperer.training.refinement.pairs import Pairs

    Watch = Callable[[int, nn.Module, float], None]


@dataclass(frozen=True)
class Method:
    """How an image head is refined.

    Attributes
    ----------
    head
        Name of the head that results: "linear" or "linear_residual".
    temperature
        Temperature of the loss, which is not learned.
    learning_rate, warm_learning_rate
        Learning rate of Adam for the perceptron, and for the linear map that comes from the closed form.
    pull
        Weight of ``‖ΔW‖² / ‖W₀‖²``, which holds the linear map near the closed form.
    candidates
        Numbers of steps to choose from; the first is 0.
    chunk
        Most rows of a section that are each other's negatives in one step; larger sections are split at random in every epoch.
    rows
        Least number of rows in a step, of as many sections as it takes.
    folds
        Most groups of units that are left out in turn to choose the number of steps.
    dropout
        Dropout of the perceptron.
    """

    head: str
    temperature: float
    learning_rate: float
    warm_learning_rate: float
    pull: float
    candidates: tuple[int, ...]
    chunk: int
    rows: int
    folds: int
    dropout: float = 0.0


LINEAR = Method("linear", 0.2, 3e-4, 3e-4, 1.0, tuple(range(0, 41, 5)), chunk=512, rows=1024, folds=10)
"""For few pairs or patients: the linear map itself moves."""

RESIDUAL = Method(
    "linear_residual", 0.07, 1e-3, 1e-4, 0.1, tuple(range(0, 801, 50)), chunk=128, rows=512, folds=4, dropout=0.2
)
"""For thousands of pairs of several patients: a perceptron beside the linear map, which starts at zero."""


def warm_head(weight: np.ndarray, method: Method) -> nn.Linear | LinearResidual:
    """A head that returns exactly what the linear map (p, D) of the closed form does, with nothing for the constant coordinate yet."""
    if method.head == "linear":
        return fixed_linear_head(weight)
    head = LinearResidual(weight.shape[1], weight.shape[0], method.dropout)
    head.warm_start(weight)
    return head


def section_loss(image: torch.Tensor, fixed: torch.Tensor, parts: Sequence[slice], temperature: float) -> torch.Tensor:
    """Symmetric InfoNCE within each part, averaged over rows.

    Parameters
    ----------
    image, fixed
        Paired embeddings of unit length, shape (n, u).
    parts
        Rows that are each other's negatives.
    temperature
        Temperature.
    """
    n = sum(part.stop - part.start for part in parts)
    losses = [contrastive(image[p], fixed[p], 1 / temperature) * ((p.stop - p.start) / n) for p in parts]
    return torch.stack(losses).sum()


def section_batches(
    sections: np.ndarray, seed: int, *, chunk: int, rows: int
) -> Iterator[tuple[np.ndarray, list[slice]]]:
    """Rows of each step, without end, and which of them are each other's negatives: rows of one section, at least two."""
    of_section = [np.flatnonzero(sections == name) for name in np.unique(sections)]
    of_section = [inside for inside in of_section if len(inside) > 1]
    epoch = 0
    while of_section:
        rng = np.random.default_rng([seed, epoch])
        chunks = [
            part for inside in of_section for part in np.array_split(rng.permutation(inside), -(-len(inside) // chunk))
        ]
        held: list[np.ndarray] = []
        for position, at in enumerate(rng.permutation(len(chunks))):
            held.append(chunks[at])
            if sum(map(len, held)) >= rows or position == len(chunks) - 1:
                ends = np.cumsum([len(part) for part in held]).tolist()
                yield np.concatenate(held), [slice(a, b) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
                held = []
        epoch += 1


def unit_rows(x: torch.Tensor, constant: float) -> torch.Tensor:
    """Rows with their constant coordinate, scaled to unit length, as the joint space compares them."""
    return functional.normalize(functional.pad(x, (0, 1), value=constant), dim=-1)


def refine_head(
    pairs: Pairs,
    weight: np.ndarray,
    method: Method,
    *,
    constant: float,
    steps: int,
    random_state: int,
    watch: Watch,
) -> nn.Module:
    """Take steps from the closed form.

    Parameters
    ----------
    pairs
        Pairs to learn from.
    weight
        Linear map of the closed form, shape (p, D).
    method
        How it is refined.
    constant
        Constant coordinate of the joint space.
    steps
        Number of steps.
    random_state
        Seed of the order of the rows, of the weights of the perceptron and of its dropout.
    watch
        Called with the number of steps, the head, and the loss of the last step (NaN before the first) at each number of
        ``method.candidates`` up to ``steps``.

    Returns
    -------
    The head, without the constant coordinate.
    """
    with isolated_rng(random_state):
        head = warm_head(weight, method)
        warm = head.linear.weight if isinstance(head, LinearResidual) else head.weight
        start = warm.detach().clone()
        size = start.square().sum().clamp_min(torch.finfo(start.dtype).tiny)
        optimizer = torch.optim.Adam(_parameters(head, warm, method))
        seen, fixed = torch.from_numpy(pairs.seen), unit_rows(torch.from_numpy(pairs.target).float(), constant)
        watch(0, head.eval(), float("nan"))
        batches = section_batches(pairs.section, random_state, chunk=method.chunk, rows=method.rows)
        for step, (rows, parts) in zip(range(1, steps + 1), batches, strict=False):
            at = torch.from_numpy(rows)
            head.train()
            loss = section_loss(unit_rows(head(seen[at]), constant), fixed[at], parts, method.temperature)
            optimizer.zero_grad(set_to_none=True)
            (loss + method.pull * (warm - start).square().sum() / size).backward()
            optimizer.step()
            if step in method.candidates:
                watch(step, head.eval(), float(loss.detach()))
    return head.eval()


def _parameters(head: nn.Module, warm: torch.Tensor, method: Method) -> list[dict[str, object]]:
    """Groups of parameters with their learning rates; the closed form has no bias, and gets none."""
    groups: list[dict[str, object]] = [{"params": [warm], "lr": method.warm_learning_rate}]
    if isinstance(head, LinearResidual):
        perceptron = [*head.inner.parameters(), *head.outer.parameters()]
        groups.append({"params": perceptron, "lr": method.learning_rate})
    return groups
