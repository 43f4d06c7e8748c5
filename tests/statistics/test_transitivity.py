from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from spatialwhisperer.statistics import transitivity as tr
from spatialwhisperer.statistics.bridge import unit
from spatialwhisperer.statistics.intervals.auroc import auroc

U = 12


def cloud(n: int, seed: int, centre: np.ndarray | float = 0.0, width: float = 0.5) -> np.ndarray:
    """Unit rows around a direction."""
    axis = np.eye(U)[0] if np.isscalar(centre) else np.asarray(centre)
    return unit(axis + width * np.random.default_rng(seed).normal(size=(n, U)))


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


@pytest.mark.parametrize("n", [15, 29, 100])
def test_collapsed_embeddings_are_found_by_chance(n: int) -> None:
    one, other = np.random.default_rng(n).normal(size=(2, 37))
    got = tr.retrieval(
        np.tile(one, (n, 1)) / np.linalg.norm(one), np.tile(other, (n, 1)) / np.linalg.norm(other), np.zeros(n)
    )
    assert got.found == pytest.approx(got.chance)
    assert got.above == pytest.approx(np.full(n, 0.5))


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
    assert tr.kappa(a, a, 3)[0] == 1
    assert tr.kappa(a, b, 3)[0] == pytest.approx(cohen_kappa_score(a, b))
    assert np.isnan(tr.kappa(np.zeros(5, int), np.zeros(5, int), 3)[0])


def test_a_row_moves_kappa_by_its_influence() -> None:
    """The derivative by the weight of a row, in units of its weight."""
    rng = np.random.default_rng(0)
    b = rng.integers(0, 3, 2000)
    a = np.where(rng.random(2000) < 0.5, b, rng.integers(0, 3, 2000))
    value, moved = tr.kappa(a, b, 3)
    assert moved.mean() == pytest.approx(0, abs=1e-12)
    for row in range(5):
        without = cohen_kappa_score(np.delete(a, row), np.delete(b, row))
        assert value - without == pytest.approx(moved[row] / 2000, rel=0.01)


def test_aurocs_of_classes_need_rows_with_and_without() -> None:
    rng = np.random.default_rng(0)
    scores, silver = rng.normal(size=(200, 3)), np.r_[np.full(120, 0), np.full(71, 1), np.full(9, 2)]
    each = tr.class_aurocs(scores, silver)
    for c in (0, 1):
        assert each[c] == auroc(scores[:, c], silver == c)
    assert np.isnan(each[2])
    # a label of nearly all rows has too few rows without it
    assert np.isnan(tr.class_aurocs(scores, np.r_[np.full(191, 0), np.full(9, 1)])).all()
