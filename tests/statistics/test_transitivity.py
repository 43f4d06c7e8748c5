from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from spatialwhisperer.statistics import transitivity as tr
from spatialwhisperer.statistics.bootstrap import Bootstrap, auroc
from spatialwhisperer.statistics.bridge import unit

U = 12


def cloud(n: int, seed: int, centre: np.ndarray | float = 0.0, width: float = 0.5) -> np.ndarray:
    """Unit rows around a direction."""
    axis = np.eye(U)[0] if np.isscalar(centre) else np.asarray(centre)
    return unit(axis + width * np.random.default_rng(seed).normal(size=(n, U)))


@pytest.mark.parametrize("seed", range(8))
def test_the_bound_holds_for_any_chain_of_pairs(seed: int) -> None:
    """E[1 - cos(I, T)] <= (√ε₁ + √δ + √ε₂)² for any unit vectors, near or unrelated."""
    rng = np.random.default_rng(seed)
    image = unit(rng.normal(size=(300, 6)))
    noise = (0.1, 0.3, 1.0, 5.0)
    gene = unit(image + rng.choice(noise) * rng.normal(size=image.shape))
    other = unit(gene + rng.choice(noise) * rng.normal(size=image.shape))
    text = unit(other + rng.choice(noise) * rng.normal(size=image.shape))
    errors = [tr.link_errors(a, b) for a, b in ((image, gene), (gene, other), (other, text))]
    direct = tr.link_errors(image, text)
    assert direct.mean() <= tr.bound(*(e.mean() for e in errors)) + 1e-12
    # also in every resampling, which reweights the same chains
    boot = Bootstrap(np.arange(300), 50, seed)
    assert (boot.means(direct) <= tr.bound(*(boot.means(e) for e in errors)) + 1e-12).all()


def test_the_bound_is_reached_on_a_line() -> None:
    """Small steps of one length in one direction make the inequality an equation."""
    angle = 1e-3
    at = [np.tile([np.cos(i * angle), np.sin(i * angle)], (5, 1)) for i in range(4)]
    errors = [tr.link_errors(at[i], at[i + 1]).mean() for i in range(3)]
    assert tr.link_errors(at[0], at[3]).mean() == pytest.approx(tr.bound(*errors), rel=1e-5)
    assert tr.as_distance(tr.bound(*errors)) == pytest.approx(3 * angle, rel=1e-5)
    assert tr.as_distance(2.0) == 2


# ------------------------------------------------------------------------------------------------- links


def test_errors_of_equal_orthogonal_and_opposite_rows() -> None:
    axes = np.eye(8)
    assert np.allclose(tr.link_errors(axes, axes), 0)
    assert np.allclose(tr.link_errors(axes, np.roll(axes, 1, axis=0)), 1)
    assert np.allclose(tr.link_errors(axes, -axes), 2)


def test_retrieval_of_known_pairs() -> None:
    axes, sections = np.eye(8), np.repeat(["a", "b"], 4)
    perfect = tr.retrieval(axes, axes, sections, k=1)
    assert (perfect.above == 1).all()
    assert (perfect.found == 1).all()
    assert (perfect.chance == 0.25).all()
    # the partner is one of four; in the other section nothing is compared
    shifted = tr.retrieval(axes, np.vstack([np.roll(axes[:4], 1, axis=0), axes[4:]]), sections, k=1)
    assert np.allclose(shifted.above[:4], 1 / 3, atol=1e-9)  # one is nearer, the two others tie
    assert (shifted.above[4:] == 1).all()


def test_a_row_alone_in_its_section_has_no_rank() -> None:
    alone = tr.retrieval(np.eye(1), np.eye(1), np.array(["a"]))
    assert np.isnan(alone.above).all()


def test_random_pairs_rank_in_the_middle_and_are_found_by_chance() -> None:
    a, b = cloud(400, 0, width=2), cloud(400, 1, width=2)
    got = tr.retrieval(a, b, np.zeros(400), k=40)
    assert got.above.mean() == pytest.approx(0.5, abs=0.03)
    assert got.found.mean() == pytest.approx(got.chance.mean(), abs=0.05)


def test_rank_of_captions() -> None:
    caption = np.eye(4)
    assert (tr.caption_ranks(caption, caption, np.arange(4)) == 1).all()
    assert np.allclose(tr.caption_ranks(-caption, caption, np.arange(4)), 0)
    assert np.allclose(tr.caption_ranks(np.ones((1, 4)) / 2, caption, np.array([2])), 0.5)
    assert np.isnan(tr.caption_ranks(caption, caption[:1], np.zeros(4, int))).all()


# ------------------------------------------------------------------------------------------------- prompts


def test_orthogonal_and_equal_prompts() -> None:
    text = np.eye(U)[:4]
    rows = np.vstack([cloud(50, i, centre=text[i], width=0.1) for i in range(4)])
    labels = tr.prompts(text, rows)
    assert np.allclose(labels.distance, np.sqrt(2) * (1 - np.eye(4)))
    assert np.allclose(labels.margin, np.sqrt(2))
    assert np.allclose(labels.fraction, 0.25)
    assert labels.together() == []
    near = unit(np.vstack([text, text[3] + 0.01 * np.eye(U)[7]]))
    labels = tr.prompts(near, rows)
    assert labels.margin.min() == pytest.approx(0.01, rel=0.01)
    assert labels.together() == [(3, 4)]
    hub = tr.prompts(text, cloud(100, 0, centre=text[2], width=0.1))
    assert hub.fraction[2] == 1
    assert hub.sink.argmax() == 2


# ------------------------------------------------------------------------------------------------- agreement


def test_scores_are_centred_within_sections() -> None:
    rows, sections = cloud(20, 0), np.repeat(["a", "b"], 10)
    text = np.eye(U)[:3]
    got = tr.centred_scores(rows, text, sections)
    for name in "ab":
        inside = sections == name
        expected = rows[inside] @ text.T
        assert np.allclose(got[inside], expected - expected.mean(axis=0))


def test_kappa_is_that_of_sklearn() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 3, 200), rng.integers(0, 3, 200)
    assert tr.kappa(a, a, 3) == 1
    assert tr.kappa(a, b, 3) == pytest.approx(cohen_kappa_score(a, b))
    assert np.isnan(tr.kappa(np.zeros(5), np.zeros(5), 3))


def test_weighted_kappa_is_that_of_repeated_rows() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 3, 200), rng.integers(0, 3, 200)
    weights = Bootstrap(rng.integers(0, 30, 200), 10, 0).weights
    repeated = [np.repeat(np.arange(200), w.astype(int)) for w in weights]
    assert tr.kappa(a, b, 3, weights) == pytest.approx([cohen_kappa_score(a[rows], b[rows]) for rows in repeated])


def test_aurocs_of_classes_need_rows_with_and_without() -> None:
    rng = np.random.default_rng(0)
    scores, silver = rng.normal(size=(200, 3)), np.r_[np.full(120, 0), np.full(77, 1), [2, 2, 2]]
    weights = Bootstrap(np.arange(200), 7, 0).weights
    each, resampled = tr.class_aurocs(scores, silver), tr.class_aurocs(scores, silver, weights)
    assert each.shape == (3,)
    assert resampled.shape == (7, 3)
    for c in (0, 1):
        assert each[c] == auroc(scores[:, c], silver == c)
        assert np.array_equal(resampled[:, c], auroc(scores[:, c], silver == c, weights))
    assert np.isnan(each[2])
    assert np.isnan(resampled[:, 2]).all()
    # a label of nearly all rows has too few rows without it
    assert np.isnan(tr.class_aurocs(scores, np.r_[np.full(197, 0), [1, 1, 1]])).all()


def test_a_macro_mean_leaves_out_what_is_undefined() -> None:
    assert tr.macro(np.array([np.nan, 0.4, 0.6])) == 0.5
    assert np.isnan(tr.macro(np.array([np.nan])))
    assert tr.macro(np.array([[1.0, np.nan], [np.nan, np.nan]])) == pytest.approx([1, np.nan], nan_ok=True)
