from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from spatialwhisperer.networks.losses import balanced_sigmoid, contrastive, info_nce, masked_mean, positive_targets


def unit(n: int, d: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def reference(a: np.ndarray, b: np.ndarray, scale: float, ids: np.ndarray) -> float:
    """The same loss, row by row, in float64 and without torch."""
    total = 0.0
    for x, y in ((a, b), (b, a)):
        for i in range(len(x)):
            logits = np.array([scale * float(x[i] @ y[j]) for j in range(len(y))])
            log_z = logits.max() + np.log(np.exp(logits - logits.max()).sum())
            positives = [j for j in range(len(y)) if ids[j] == ids[i]]
            total += -np.mean([logits[j] - log_z for j in positives]) / len(x)
    return total / 2


@pytest.mark.parametrize("ids", [np.arange(7), np.array([0, 1, 0, 2, 2, 2, 3]), np.zeros(7, int)])
def test_matches_an_independent_computation(ids: np.ndarray) -> None:
    a, b = unit(7, 5, 0), unit(7, 5, 1)
    got = info_nce(torch.tensor(a), torch.tensor(b), torch.tensor(11.0), torch.tensor(ids))
    assert float(got) == pytest.approx(reference(a, b, 11.0, ids), abs=1e-6)


def test_distinct_pairs_give_the_loss_of_clip() -> None:
    a, b = torch.tensor(unit(16, 8, 0)).float(), torch.tensor(unit(16, 8, 1)).float()
    scale, target = torch.tensor(14.3), torch.arange(16)
    cross = torch.nn.functional.cross_entropy
    clip = (cross(scale * a @ b.T, target) + cross(scale * b @ a.T, target)) / 2
    assert float(info_nce(a, b, scale, torch.arange(16) * 3 + 5)) == pytest.approx(float(clip), abs=1e-6)


def test_as_negatives_equal_captions_give_the_same_loss() -> None:
    """Their embeddings are equal, and so are their logits: what the published code does differently changes nothing."""
    torch.manual_seed(0)
    ids = torch.tensor([0, 1, 0, 2, 1, 0])
    genes = functional.normalize(torch.randn(6, 5), dim=1).requires_grad_()
    captions = functional.normalize(torch.randn(3, 5), dim=1)[ids]
    positives, negatives = (info_nce(genes, captions, torch.tensor(14.0), i) for i in (ids, torch.arange(6)))
    assert float(positives) == pytest.approx(float(negatives), rel=1e-6)
    one, other = (torch.autograd.grad(loss, genes)[0] for loss in (positives, negatives))
    assert torch.allclose(one, other, atol=1e-6)


def test_equal_captions_attract_and_never_repel() -> None:
    """Gradient on the logit of an equal off-diagonal pair pulls it up; as a negative it would be pushed down."""
    ids = torch.tensor([0, 1, 0, 2])
    logits = torch.zeros(4, 4, requires_grad=True)
    # unit rows of one identity matrix turn the embedding product into the logits themselves
    info_nce(logits, torch.eye(4), torch.tensor(1.0), ids).backward()
    assert logits.grad is not None
    same = ids[:, None] == ids[None, :]
    assert (logits.grad[same] < 0).all()
    assert (logits.grad[~same] > 0).all()
    plain = torch.zeros(4, 4, requires_grad=True)
    info_nce(plain, torch.eye(4), torch.tensor(1.0), torch.arange(4)).backward()
    assert plain.grad is not None
    assert plain.grad[0, 2] > 0


# the four pairs of three numbers on which the published modules were run in float64
B, K = np.arange(4)[:, None], np.arange(3)[None, :]
IMAGE, GENE = np.sin(1 + 3 * B + K), 0.5 * np.cos(2 * B + 0.5 * K)
BLEEP: dict[str, Any] = {"targets": "soft", "lam": 0.5, "alpha": 0.5, "beta": 0.5}
HECLIP: dict[str, Any] = {"targets": "soft", "lam": 1.0, "alpha": 1.0, "beta": 0.0}


@pytest.mark.parametrize(
    ("options", "loss", "image_norm", "gene_norm"),
    [
        pytest.param(BLEEP, 1.566067, 0.236262, 0.553248, id="BLEEP"),
        pytest.param(HECLIP, 1.545710, 0.157079, 0.634296, id="HECLIP"),
        pytest.param({}, 1.547279, 0.348026, 0.685814, id="mclSTExp"),
        pytest.param({"ids": torch.arange(4)}, 1.547279, 0.348026, 0.685814, id="mclSTExp-ids"),
        pytest.param(BLEEP | {"stop_grad": True}, 1.566067, 0.174233, 0.509275, id="BLEEP-stop"),
        pytest.param(HECLIP | {"stop_grad": True}, 1.545710, 0.155969, 0.634296, id="HECLIP-stop"),
        pytest.param(BLEEP | {"column_targets": "renormalise"}, 1.565448, None, None, id="BLEEP-renormalised"),
        pytest.param(HECLIP | {"column_targets": "renormalise"}, 1.545667, None, None, id="HECLIP-renormalised"),
    ],
)
def test_loss_and_gradients_are_those_of_the_published_code(
    options: dict[str, Any], loss: float, image_norm: float | None, gene_norm: float | None
) -> None:
    image, gene = (torch.tensor(z, requires_grad=True) for z in (IMAGE, GENE))
    got = contrastive(image, gene, 1.0, **options)
    got.backward()
    assert float(got.detach()) == pytest.approx(loss, abs=1e-6)
    for z, norm in ((image, image_norm), (gene, gene_norm)):
        if norm is not None:
            assert z.grad is not None
            assert float(z.grad.norm()) == pytest.approx(norm, abs=1e-6)


def test_the_two_halves_add_up() -> None:
    image, gene = torch.tensor(IMAGE), torch.tensor(GENE)
    parts = [float(contrastive(image, gene, 2.0, **BLEEP | {"lam": lam})) for lam in (0.0, 1.0, 0.3)]
    assert parts[2] == pytest.approx(0.7 * parts[0] + 0.3 * parts[1], abs=1e-12)


def test_the_scale_multiplies_logits_and_similarities() -> None:
    image, gene = torch.tensor(IMAGE), torch.tensor(GENE)
    scaled = contrastive(image * 3**0.5, gene * 3**0.5, 1.0, **BLEEP)
    assert float(contrastive(image, gene, torch.tensor(3.0), **BLEEP)) == pytest.approx(float(scaled), abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": "hard"}, "Unknown targets 'hard'; choose one of identity, soft"),
        (BLEEP | {"column_targets": "none"}, "Unknown column_targets 'none'; choose one of transpose, renormalise"),
        ({"lam": 1.5}, "lam must lie between 0 and 1, not 1.5"),
        ({"lam": float("nan")}, "lam must lie"),
        ({"alpha": 0.5}, "pass targets='soft'"),
        ({"targets": "soft"}, "need a similarity"),
        (BLEEP | {"ids": torch.arange(4)}, "Leave ids out"),
    ],
)
def test_what_the_loss_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        contrastive(torch.tensor(IMAGE), torch.tensor(GENE), 1.0, **options)


def test_modalities_of_different_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one shape, not \(4, 3\) and \(3, 3\)"):
        contrastive(torch.tensor(IMAGE), torch.tensor(GENE[:3]), 1.0)


def test_targets_are_distributions() -> None:
    targets = positive_targets(torch.tensor([0, 1, 1, 9]), torch.tensor([1, 0, 1]))
    assert targets.tolist() == [[0, 1, 0], [0.5, 0, 0.5], [0.5, 0, 0.5], [0, 0, 0]]


def test_targets_have_the_precision_of_the_logits() -> None:
    """A third is not the same number in float32; the loss of float64 rows is right to the rounding of float64."""
    ids = torch.tensor([1, 1, 1, 2])
    assert positive_targets(ids, ids).dtype == torch.float32
    targets = positive_targets(ids, ids, dtype=torch.float64)
    assert targets.dtype == torch.float64
    assert float(targets[0, 0]) == 1 / 3
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    logits = 2.0 * b @ a.T
    same = np.equal.outer(ids.numpy(), ids.numpy()) / np.array([3, 3, 3, 1])[:, None]
    halves = [
        -(same * (x - np.log(np.exp(x).sum(axis=1, keepdims=True)))).sum(axis=1).mean() for x in (logits, logits.T)
    ]
    loss = contrastive(torch.from_numpy(a), torch.from_numpy(b), 2.0, ids=ids)
    assert float(loss) == pytest.approx(np.mean(halves), rel=1e-14)


def test_pairs_have_their_weight_whatever_their_rows() -> None:
    losses = {("image", "gene"): torch.tensor(2.0), ("gene", "text"): torch.tensor(4.0)}
    equal = dict.fromkeys(losses, 1.0) | {("image", "text"): 1.0}
    assert float(masked_mean(losses, equal)) == 3.0
    assert float(masked_mean(losses, {("image", "gene"): 3.0, ("gene", "text"): 1.0})) == 2.5
    assert float(masked_mean({("gene", "text"): torch.tensor(4.0)}, equal)) == 4.0
    assert float(masked_mean(losses, {("image", "gene"): 1.0, ("gene", "text"): 0.0})) == 2.0


def test_a_batch_without_a_weighted_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="No modality pair"):
        masked_mean({}, {("gene", "text"): 1.0})
    with pytest.raises(ValueError, match="positive weight"):
        masked_mean({("gene", "text"): torch.tensor(1.0)}, {("gene", "text"): 0.0})


def test_sigmoid_loss_matches_an_independent_computation() -> None:
    a, b = unit(9, 5, 0), unit(4, 5, 1)
    holds = np.random.default_rng(2).random((9, 4)) < 0.4
    holds[:, 3] = True  # a caption of every row has no negatives
    total = 0.0
    for c in range(4):
        logits = 7.0 * a @ b[c] - 2.0
        positive, negative = np.log1p(np.exp(-logits))[holds[:, c]], np.log1p(np.exp(logits))[~holds[:, c]]
        total += (positive.mean() if len(positive) else 0) + (negative.mean() if len(negative) else 0)
    tensors = (torch.tensor(a), torch.tensor(b), torch.tensor(7.0), torch.tensor(-2.0), torch.tensor(holds))
    assert float(balanced_sigmoid(*tensors)) == pytest.approx(total / 4, abs=1e-6)


def test_a_frequent_caption_has_no_more_weight() -> None:
    """Repeating rows that hold one caption changes nothing."""
    a, b = torch.tensor(unit(6, 4, 0)), torch.tensor(unit(2, 4, 1))
    holds = torch.tensor([[True, False]] * 3 + [[False, True]] * 3)
    scale, bias = torch.tensor(9.0), torch.tensor(-3.0)
    once = balanced_sigmoid(a, b, scale, bias, holds)
    again = torch.tensor([0, 1, 2] * 5 + [3, 4, 5])
    assert float(balanced_sigmoid(a[again], b, scale, bias, holds[again])) == pytest.approx(float(once), abs=1e-6)
