from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw
from spatialwhisperer.models import bridge
from spatialwhisperer.models import transitivity as tr
from spatialwhisperer.models.bootstrap import Bootstrap, auroc, interval, spatial_blocks
from spatialwhisperer.tl.transitivity import transitivity

if TYPE_CHECKING:
    from pathlib import Path

mpl.use("agg")

U = 12


def cloud(n: int, seed: int, centre: np.ndarray | float = 0.0, width: float = 0.5) -> np.ndarray:
    """Unit rows around a direction."""
    axis = np.eye(U)[0] if np.isscalar(centre) else np.asarray(centre)
    return bridge.unit(axis + width * np.random.default_rng(seed).normal(size=(n, U)))


# ------------------------------------------------------------------------------------------------- the inequality


@pytest.mark.parametrize("seed", range(8))
def test_the_bound_holds_on_glued_chains(seed: int) -> None:
    """E[1 - cos(I, T)] <= (√ε₁ + √δ + √ε₂)² for any unit vectors, near or unrelated."""
    rng = np.random.default_rng(seed)
    image = bridge.unit(rng.normal(size=(300, 6)))
    noise = (0.1, 0.3, 1.0, 5.0)
    gene = bridge.unit(image + rng.choice(noise) * rng.normal(size=image.shape))
    other = bridge.unit(gene + rng.choice(noise) * rng.normal(size=image.shape))
    text = bridge.unit(other + rng.choice(noise) * rng.normal(size=image.shape))
    errors = [tr.link_errors(a, b) for a, b in ((image, gene), (gene, other), (other, text))]
    direct = tr.link_errors(image, text)
    assert direct.mean() <= tr.bound(*(e.mean() for e in errors)) + 1e-12
    # also in every resampling, which reweights the same chains
    boot = Bootstrap(np.arange(300), 50, seed)
    assert (boot.means(direct) <= tr.bound(*(boot.means(e) for e in errors)) + 1e-12).all()


def test_the_bound_is_reached_on_a_line() -> None:
    """Small steps of one length in one direction use the inequality up."""
    angle = 1e-3
    at = [np.tile([np.cos(i * angle), np.sin(i * angle)], (5, 1)) for i in range(4)]
    errors = [tr.link_errors(at[i], at[i + 1]).mean() for i in range(3)]
    assert tr.link_errors(at[0], at[3]).mean() == pytest.approx(tr.bound(*errors), rel=1e-5)
    assert tr.as_distance(tr.bound(*errors)) == pytest.approx(3 * angle, rel=1e-5)
    assert tr.as_distance(2.0) == 2


# ------------------------------------------------------------------------------------------------- links


def test_errors_and_retrieval_of_known_pairs() -> None:
    axes = np.eye(8)
    assert np.allclose(tr.link_errors(axes, axes), 0)
    assert np.allclose(tr.link_errors(axes, np.roll(axes, 1, axis=0)), 1)
    assert np.allclose(tr.link_errors(axes, -axes), 2)
    sections = np.repeat(["a", "b"], 4)
    perfect = tr.retrieval(axes, axes, sections, k=1)
    assert (perfect.above == 1).all()
    assert (perfect.found == 1).all()
    assert (perfect.chance == 0.25).all()
    # the partner is one of four; in the other section nothing is compared
    shifted = tr.retrieval(axes, np.vstack([np.roll(axes[:4], 1, axis=0), axes[4:]]), sections, k=1)
    assert np.allclose(shifted.above[:4], 1 / 3, atol=1e-9)  # one is nearer, the two others tie
    assert (shifted.above[4:] == 1).all()
    alone = tr.retrieval(axes[:1], axes[:1], sections[:1])
    assert np.isnan(alone.above).all()
    a, b = cloud(400, 0, width=2), cloud(400, 1, width=2)
    assert tr.retrieval(a, b, np.zeros(400)).above.mean() == pytest.approx(0.5, abs=0.03)


def test_rank_of_captions() -> None:
    caption = np.eye(4)
    assert (tr.caption_ranks(caption, caption, np.arange(4)) == 1).all()
    assert np.allclose(tr.caption_ranks(-caption, caption, np.arange(4)), 0)
    assert np.allclose(tr.caption_ranks(np.ones((1, 4)) / 2, caption, np.array([2])), 0.5)


# ------------------------------------------------------------------------------------------------- bridge


def test_identical_clouds_overlap() -> None:
    rows, reference = cloud(400, 0), cloud(400, 1)
    assert bridge.overlap(reference, reference).covered.all()
    assert np.allclose(bridge.overlap(reference, reference).error, 0, atol=1e-12)
    assert bridge.overlap(rows, reference, k=15).covered.mean() > 0.9
    x, own = np.vstack([rows, reference]), np.arange(800) < 400
    for method in ("logistic", "knn"):
        for centre in (False, True):
            scores = bridge.separability(x, own, np.arange(800), method, centre=centre)
            assert auroc(scores, own) == pytest.approx(0.5, abs=0.06)
    assert bridge.mixing(x, own).mean() == pytest.approx(1, abs=0.06)
    statistic, p = bridge.mmd(x, own)
    assert abs(statistic) < 0.002
    assert p > 0.05


def test_shifted_clouds_are_apart_until_they_are_centred() -> None:
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(400, U))
    rows = rng.normal(size=(400, U)) + 8 * np.eye(U)[3]
    assert bridge.overlap(rows, reference).covered.mean() == 0
    assert bridge.overlap(rows - rows.mean(0), reference - reference.mean(0), k=15).covered.mean() > 0.8
    x, own = np.vstack([rows, reference]), np.arange(800) < 400
    assert auroc(bridge.separability(x, own, np.arange(800), "logistic"), own) == 1
    assert auroc(bridge.separability(x, own, np.arange(800), "logistic", centre=True), own) == pytest.approx(
        0.5, abs=0.06
    )
    assert bridge.mixing(x, own).mean() == 0
    assert bridge.mmd(x, own)[1] < 0.01
    with pytest.raises(ValueError, match="'logistic' or 'knn'"):
        bridge.separability(x, own, np.arange(800), "forest")
    with pytest.raises(ValueError, match="two blocks"):
        bridge.separability(x, own, own.astype(int), "knn")
    with pytest.raises(ValueError, match="at least two rows"):
        bridge.overlap(rows, reference[:1])


def test_distances_to_other_groups() -> None:
    reference = np.array([[0.0, 0], [0, 1], [5, 0], [5, 3]])
    groups = np.array([0, 0, 1, 1])
    assert np.allclose(bridge.to_other_groups(reference, groups), [5, np.sqrt(26), 5, np.sqrt(29)])
    assert np.allclose(bridge.to_other_groups(reference, np.zeros(4)), [1, 1, 3, 3])


def test_a_lone_reference_row_does_not_cover_half_the_space() -> None:
    reference = np.vstack([np.random.default_rng(0).normal(size=(100, 2)), [[1000, 1000]]])
    assert bridge.radii(reference).max() < 5
    assert not bridge.overlap(np.array([[900.0, 900.0]]), reference).covered.any()


# ------------------------------------------------------------------------------------------------- prompts, agreement


def test_orthogonal_and_equal_prompts() -> None:
    text = np.eye(U)[:4]
    rows = np.vstack([cloud(50, i, centre=text[i], width=0.1) for i in range(4)])
    labels = tr.prompts(text, rows)
    assert np.allclose(labels.distance, np.sqrt(2) * (1 - np.eye(4)))
    assert np.allclose(labels.margin, np.sqrt(2))
    assert np.allclose(labels.share, 0.25)
    assert labels.together() == []
    near = bridge.unit(np.vstack([text, text[3] + 0.01 * np.eye(U)[7]]))
    labels = tr.prompts(near, rows)
    assert labels.margin.min() == pytest.approx(0.01, rel=0.01)
    assert labels.together() == [(3, 4)]
    hub = tr.prompts(text, cloud(100, 0, centre=text[2], width=0.1))
    assert hub.share[2] == 1
    assert hub.sink.argmax() == 2


def test_agreement_of_known_labellings() -> None:
    from sklearn.metrics import cohen_kappa_score, roc_auc_score

    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 3, 200), rng.integers(0, 3, 200)
    assert tr.kappa(a, a, 3) == 1
    assert tr.kappa(a, b, 3) == pytest.approx(cohen_kappa_score(a, b))
    assert np.isnan(tr.kappa(np.zeros(5), np.zeros(5), 3))
    weights = np.ones((1, 200))
    weights[0, :50] = 2
    doubled = np.r_[np.arange(200), np.arange(50)]
    assert tr.kappa(a, b, 3, weights)[0] == pytest.approx(cohen_kappa_score(a[doubled], b[doubled]))
    scores = rng.normal(size=200).round(1)
    assert auroc(scores, a == 1) == pytest.approx(roc_auc_score(a == 1, scores))
    assert auroc(scores, a == 1, weights)[0] == pytest.approx(roc_auc_score(a[doubled] == 1, scores[doubled]))
    assert np.isnan(auroc(scores, np.zeros(200, bool)))
    each = tr.class_aurocs(np.eye(3)[a], np.r_[np.full(197, 0), [1, 1, 1]])
    assert np.isfinite(each[0]) == False  # noqa: E712
    assert tr.macro(np.array([np.nan, 0.4, 0.6])) == 0.5
    assert np.isnan(tr.macro(np.array([np.nan])))


# ------------------------------------------------------------------------------------------------- bootstrap


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for i in range(100):
        low, high = Bootstrap(np.arange(80), 100, i).mean(rng.normal(size=80))
        hits += low < 0 < high
    assert 85 <= hits <= 100


def test_blocks_of_neighbours_widen_the_interval() -> None:
    blocks = np.repeat(np.arange(20), 10)
    values = np.repeat(np.random.default_rng(0).normal(size=20), 10)
    by_row, by_block = Bootstrap(np.arange(200), 300, 0).mean(values), Bootstrap(blocks, 300, 0).mean(values)
    assert np.diff(by_block) > 2 * np.diff(by_row)
    assert interval(np.array([1.0, np.nan, np.nan])) == pytest.approx((np.nan, np.nan), nan_ok=True)


def test_blocks_are_neighbours_within_sections() -> None:
    rng = np.random.default_rng(0)
    xy, sections = rng.uniform(size=(300, 2)), np.repeat(["a", "b"], 150)
    blocks = spatial_blocks(xy, sections)
    sizes = np.bincount(blocks)
    assert 8 <= sizes[sizes > 0].min() <= sizes.max() <= 18
    assert not set(blocks[:150]) & set(blocks[150:])
    spread = np.mean([xy[blocks == b].std(axis=0).mean() for b in np.unique(blocks)])
    assert spread < 0.5 * xy.std(axis=0).mean()
    assert np.array_equal(spatial_blocks(None, sections), np.arange(300))
