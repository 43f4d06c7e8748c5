from __future__ import annotations

import numpy as np
import pytest
import torch

from spatialwhisperer.models.losses import balanced_sigmoid, info_nce, masked_mean, positive_targets


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


def test_equal_captions_attract_and_never_repel() -> None:
    """Gradient on the logit of an equal off-diagonal pair pulls it up; as a negative it would be pushed down."""
    ids = torch.tensor([0, 1, 0, 2])
    logits = torch.zeros(4, 4, requires_grad=True)
    # unit rows of one identity matrix turn the embedding product into the logits themselves
    info_nce(logits, torch.eye(4), torch.tensor(1.0), ids).backward()
    same = ids[:, None] == ids[None, :]
    assert (logits.grad[same] < 0).all()
    assert (logits.grad[~same] > 0).all()
    plain = torch.zeros(4, 4, requires_grad=True)
    info_nce(plain, torch.eye(4), torch.tensor(1.0), torch.arange(4)).backward()
    assert plain.grad[0, 2] > 0


def test_targets_are_distributions() -> None:
    targets = positive_targets(torch.tensor([0, 1, 1, 9]), torch.tensor([1, 0, 1]))
    assert targets.tolist() == [[0, 1, 0], [0.5, 0, 0.5], [0.5, 0, 0.5], [0, 0, 0]]


def test_pairs_weigh_the_same_whatever_their_rows() -> None:
    losses = {("image", "gene"): torch.tensor(2.0), ("gene", "text"): torch.tensor(4.0)}
    equal = dict.fromkeys(losses, 1.0) | {("image", "text"): 1.0}
    assert float(masked_mean(losses, equal)) == 3.0
    assert float(masked_mean(losses, {("image", "gene"): 3.0, ("gene", "text"): 1.0})) == 2.5
    assert float(masked_mean({("gene", "text"): torch.tensor(4.0)}, equal)) == 4.0
    assert float(masked_mean(losses, {("image", "gene"): 1.0, ("gene", "text"): 0.0})) == 2.0


def test_no_pair_is_an_error() -> None:
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


def test_a_frequent_caption_weighs_no_more() -> None:
    """Repeating rows that hold one caption changes nothing."""
    a, b = torch.tensor(unit(6, 4, 0)), torch.tensor(unit(2, 4, 1))
    holds = torch.tensor([[True, False]] * 3 + [[False, True]] * 3)
    scale, bias = torch.tensor(9.0), torch.tensor(-3.0)
    once = balanced_sigmoid(a, b, scale, bias, holds)
    again = torch.tensor([0, 1, 2] * 5 + [3, 4, 5])
    assert float(balanced_sigmoid(a[again], b, scale, bias, holds[again])) == pytest.approx(float(once), abs=1e-6)
