from __future__ import annotations

import numpy as np
import pytest

from spatialwhisperer.training.refinement.rule import LEAST_GAIN, choose, in_words

CANDIDATES = (0, 5, 10)


def agreement(gains: list[list[float]]) -> np.ndarray:
    """Units of different levels, which have the gains over the first candidate."""
    level = 0.6 + 0.05 * np.arange(len(gains))
    return level[:, None] + np.array(gains)


def test_a_clear_gain_is_kept_with_its_mean_and_standard_error() -> None:
    choice = choose(agreement([[0, 0.01, 0.02], [0, 0.01, 0.01], [0, 0.00, 0.03]]))
    assert (choice.best, choice.kept) == (2, True)
    assert choice.mean == pytest.approx(0.02)
    assert choice.standard_error == pytest.approx(0.01 / np.sqrt(3))
    assert choice.gains == pytest.approx([0.02, 0.01, 0.03])
    assert in_words(choice, CANDIDATES, "patients") == (
        "10 steps, caption agreement +0.0200 ± 0.0058 on 3 left-out patients: kept"
    )


def test_the_warm_start_is_a_candidate() -> None:
    choice = choose(agreement([[0, -0.01, -0.02], [0, 0.005, -0.01]]))
    assert (choice.best, choice.kept, choice.mean) == (0, False, 0.0)
    assert "closed form" in in_words(choice, CANDIDATES, "sections")


@pytest.mark.parametrize(
    ("gains", "kept"),
    [
        # mean .01, standard error .0101 and .0099
        ([0.01 + 0.0101, 0.01 - 0.0101], False),
        ([0.01 + 0.0099, 0.01 - 0.0099], True),
        ([LEAST_GAIN * 0.99] * 3, False),
        ([LEAST_GAIN * 1.01] * 3, True),
    ],
)
def test_a_gain_needs_more_than_one_standard_error_and_the_least_gain(gains: list[float], *, kept: bool) -> None:
    choice = choose(agreement([[0, gain] for gain in gains]))
    assert (choice.best, choice.kept) == (1, kept)
    assert ("kept" in in_words(choice, CANDIDATES, "patients")) is kept


def test_of_equal_means_the_fewest_steps_are_taken() -> None:
    assert choose(np.array([[0.5, 0.75, 0.75], [0.5, 0.75, 0.75]])).best == 1


def test_what_is_chosen_is_never_below_the_warm_start() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        values = rng.random((4, 6))
        choice = choose(values)
        taken = choice.best if choice.kept else 0
        assert values[:, taken].mean() >= values[:, 0].mean()


def test_one_unit_decides_nothing() -> None:
    with pytest.raises(ValueError, match="at least two left-out units; there are 1"):
        choose(np.ones((1, 3)))
