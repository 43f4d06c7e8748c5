"""Pairs per second of a step of contrastive losses, forwards and backwards: ours, open_clip's, and the whole matrices at once.

usage: python benchmarks/losses.py [--batches 2048 4096] [--dim 512] [--repeats 3]
       python benchmarks/losses.py --batches 8192 --repeats 3

The peers of InfoNCE are open_clip's ClipLoss and one matrix of logits with two cross entropies, as CellWhisperer has it ("whole
matrix"). The peer of the soft targets of BLEEP and HECLIP is their formula with whole matrices. "three products" multiplies three
matrices of the size of the logits and does nothing else: no exact loss takes less. Each value is compared with the whole matrices in
float64, where the batch is small enough.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from _measure import OURS, arguments, compare, processor
from open_clip.loss import ClipLoss
from torch.nn import functional

from spatialwhisperer.networks.losses import contrastive

if TYPE_CHECKING:
    from collections.abc import Callable

    Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

BLEEP: dict[str, Any] = {"targets": "soft", "alpha": 0.5, "beta": 0.5}
HECLIP: dict[str, Any] = {"targets": "soft", "alpha": 1.0, "lam": 1.0}


def whole(image: torch.Tensor, gene: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    logits, own = scale * gene @ image.T, torch.arange(len(image))
    return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2


def whole_soft(alpha: float, beta: float, lam: float) -> Loss:
    def loss(image: torch.Tensor, gene: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        logits = scale * gene @ image.T
        targets = functional.softmax(scale * (alpha * image @ image.T + beta * gene @ gene.T), dim=1)
        by_gene = (-targets * functional.log_softmax(logits, dim=1)).sum(dim=1)
        by_image = (-targets.T * functional.log_softmax(logits.T, dim=1)).sum(dim=1)
        return (lam * by_image + (1 - lam) * by_gene).mean()

    return loss


def products(image: torch.Tensor, gene: torch.Tensor) -> Callable[[], None]:
    """One product forwards and two backwards, in panels."""
    rows = max(1, 2**21 // len(image))

    def run() -> None:
        with torch.no_grad():
            out = torch.zeros_like(image)
            for start in range(0, len(image), rows):
                panel = gene[start : start + rows] @ image.T
                panel @ image
                out.addmm_(panel.T, gene[start : start + rows])

    return run


def step(loss: Loss, image: torch.Tensor, gene: torch.Tensor) -> Callable[[], float]:
    def run() -> float:
        parts = [x.detach().requires_grad_() for x in (image, gene, torch.tensor(14.3, dtype=image.dtype))]
        value = loss(*parts)
        value.backward()
        return float(value.detach())

    return run


def main() -> None:
    args = arguments(__doc__, batches=[2048, 4096], dim=512, repeats=3)
    print(processor())
    for n in args.batches:
        torch.manual_seed(0)
        image, gene = (functional.normalize(torch.randn(n, args.dim), dim=1) for _ in range(2))
        kinds: dict[str, dict[str, Loss]] = {
            "InfoNCE": {OURS: contrastive, "open_clip": ClipLoss(), "whole matrix": whole},
            "BLEEP": {OURS: lambda *x: contrastive(*x, **BLEEP), "whole matrix": whole_soft(0.5, 0.5, 0.5)},
            "HECLIP": {OURS: lambda *x: contrastive(*x, **HECLIP), "whole matrix": whole_soft(1.0, 0.0, 1.0)},
        }
        for name, losses in kinds.items():
            methods: dict[str, Callable[[], Any]] = {peer: step(loss, image, gene) for peer, loss in losses.items()}
            if name == "InfoNCE":
                methods["three products"] = products(image, gene)
            path = f"loss {name}, {n} pairs x {args.dim}"
            found = compare(path, methods, items=n, unit="pairs", repeats=args.repeats, rows_file=args.rows_file)
            if n <= 4096:
                exact = step(losses["whole matrix"], image.double(), gene.double())()
                print(f"  apart from float64: {abs(found[OURS] - exact) / exact:.1e}")


if __name__ == "__main__":
    main()
