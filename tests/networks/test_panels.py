"""The loss panel by panel beside its definition in float64."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.nn import functional

from spatialwhisperer.networks import losses
from spatialwhisperer.networks.losses import contrastive, whole_loss
from spatialwhisperer.networks.panels import How, panel_loss

Part = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

KINDS: dict[str, dict[str, Any]] = {
    "identity": {},
    "groups": {"ids": True},
    "bleep": {"alpha": 0.5, "beta": 0.5, "soft": True},
    "image": {"alpha": 1.0, "soft": True},
    "detached": {"alpha": 0.2, "beta": 0.7, "soft": True, "stop_grad": True},
    "renormalised": {"alpha": 0.5, "beta": 0.5, "soft": True, "renormalise": True},
}


def embeddings(n: int, d: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    image, gene = (torch.randn(n, d, dtype=torch.float64, generator=draw) for _ in range(2))
    # copies of a row, and rows of zeros
    image[n // 2], gene[-1], image[0] = image[1], gene[0], 0.0
    return functional.normalize(image, dim=1), functional.normalize(gene, dim=1)


def how(kind: str, lam: float, n: int, elements: int | None = None) -> How:
    options = dict(KINDS[kind])
    if options.pop("ids", False):
        options["ids"] = torch.arange(n) * 7 % max(2, n // 3)
    return How(lam, elements=elements, **options)


def with_gradients(loss: Any, image: torch.Tensor, gene: torch.Tensor, scale: float) -> list[torch.Tensor]:
    parts = [x.detach().clone().requires_grad_() for x in (image, gene, image.new_tensor(scale))]
    value = loss(*parts)
    return [value.detach(), *torch.autograd.grad(value, parts)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lam", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize(("n", "d"), [(2, 3), (7, 5), (33, 4)])
@pytest.mark.parametrize("scale", [1.0, 14.0, 400.0])
def test_value_and_gradients_are_those_of_the_definition(kind: str, lam: float, n: int, d: int, scale: float) -> None:
    image, gene = embeddings(n, d, n)
    if KINDS[kind].get("renormalise"):
        # a column whose targets are all zero has no sum to be divided by
        scale = min(scale, 50.0)
    expected = with_gradients(lambda a, b, s: whole_loss(a, b, s, how(kind, lam, n)), image, gene, scale)
    for elements in (1, 3 * n, None):
        found = with_gradients(
            lambda a, b, s, e=elements: panel_loss(a, b, s, how(kind, lam, n, e)), image, gene, scale
        )
        for value, right in zip(found, expected, strict=True):
            torch.testing.assert_close(value, right, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_float32_is_right_to_its_rounding(kind: str) -> None:
    image, gene = embeddings(130, 16, 0)
    expected = with_gradients(lambda a, b, s: whole_loss(a, b, s, how(kind, 0.5, 130)), image, gene, 10.0)
    found = with_gradients(
        lambda a, b, s: panel_loss(a, b, s, how(kind, 0.5, 130, 1000)), image.float(), gene.float(), 10.0
    )
    for value, right in zip(found, expected, strict=True):
        assert float((value - right).abs().max()) <= 1e-5 * max(1e-2, float(right.abs().max()))


def test_logits_of_any_range_are_exact_in_float32() -> None:
    """Columns far below the largest logit, whose exponentials a shared maximum would lose."""
    image, gene = embeddings(40, 4, 1)
    gene *= torch.logspace(-3, 0, 40, dtype=torch.float64)[:, None]
    image *= torch.logspace(0, -3, 40, dtype=torch.float64)[:, None]
    expected = with_gradients(lambda a, b, s: whole_loss(a, b, s, How(0.5)), image, gene, 3000.0)
    found = with_gradients(
        lambda a, b, s: panel_loss(a, b, s, How(0.5, elements=300)), image.float(), gene.float(), 3000.0
    )
    for value, right in zip(found, expected, strict=True):
        torch.testing.assert_close(value.double(), right, rtol=2e-3, atol=2e-3 * float(right.abs().max()))


def test_missing_values_stay_missing() -> None:
    image, gene = embeddings(9, 4, 2)
    image[3] = torch.nan
    for kind in KINDS:
        assert torch.isnan(panel_loss(image, gene, torch.tensor(2.0, dtype=torch.float64), how(kind, 0.5, 9, 18)))


def test_only_what_is_asked_for_gets_a_gradient() -> None:
    image, gene = embeddings(9, 4, 3)
    gene.requires_grad_()
    for kind in KINDS:
        loss = panel_loss(image, gene, torch.tensor(2.0, dtype=torch.float64), how(kind, 0.5, 9, 18))
        expected = whole_loss(image, gene, 2.0, how(kind, 0.5, 9))
        (found,), (right,) = torch.autograd.grad(loss, gene), torch.autograd.grad(expected, gene)
        torch.testing.assert_close(found, right)


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_batch_goes_panel_by_panel(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image, gene = embeddings(12, 4, 4)
    asked = how(kind, 0.5, 12)
    options: dict[str, Any] = {"targets": "soft" if asked.soft else "identity", "ids": asked.ids}
    options |= {name: getattr(asked, name) for name in ("alpha", "beta", "stop_grad")}
    options["column_targets"] = "renormalise" if asked.renormalise else "transpose"
    expected = with_gradients(lambda *x: contrastive(*x, **options), image, gene, 5.0)
    monkeypatch.setattr(losses, "WHOLE_ROWS", 5)
    monkeypatch.setattr(losses, "whole_loss", None)
    for value, right in zip(
        with_gradients(lambda *x: contrastive(*x, **options), image, gene, 5.0), expected, strict=True
    ):
        torch.testing.assert_close(value, right)


_TWO = """
import sys
import torch
from torch import distributed
from spatialwhisperer.networks.panels import panel_loss
from tests.networks.test_panels import KINDS, embeddings, how, with_gradients
from spatialwhisperer.networks.losses import whole_loss

rank = int(sys.argv[1])
distributed.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
image, gene = embeddings(23, 4, 0)
for bounds in ((0, 9, 23), (0, 0, 23)):
    own = slice(bounds[rank], bounds[rank + 1])
    for kind in KINDS:
        for lam in (0.0, 0.3, 1.0):
            asked = how(kind, lam, 23, 60)._replace(own=own)
            found = with_gradients(lambda *x: panel_loss(*x, asked), image, gene, 6.0)
            expected = with_gradients(lambda *x: whole_loss(*x, how(kind, lam, 23)), image, gene, 6.0)
            for gradient in found[1:]:
                distributed.all_reduce(gradient)
                gradient /= 2
            for value, right in zip(found, expected, strict=True):
                torch.testing.assert_close(value, right, rtol=1e-9, atol=1e-10)
# threads of a group that is left open may end the interpreter by a signal
distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_processes_compute_the_rows_of_their_own(tmp_path: Any) -> None:
    """The value is the same in all, and the mean of their gradients is the gradient."""
    ranks = [
        subprocess.Popen([sys.executable, "-c", _TWO, str(rank), str(tmp_path / "meeting")], stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    for process in ranks:
        _, message = process.communicate(timeout=300)
        assert process.returncode == 0, message.decode()
