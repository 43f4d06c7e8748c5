"""What score maps show beyond darkness, on maps whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from spatialwhisperer.protocols.coverage import Section, rejections
from spatialwhisperer.statistics.evidence import association, darkness_basis, darkness_report, effective_rank, varies
from spatialwhisperer.statistics.intervals.spatial import SpatialErrors

GRID = np.argwhere(np.ones((15, 15)))
N = len(GRID)


def test_maps_of_darkness_are_explained_by_it_and_others_are_not() -> None:
    rng = np.random.default_rng(0)
    darkness, noise = rng.random(300), rng.normal(size=300)
    half = np.sqrt(12) * (darkness - 0.5) + noise
    scores = np.stack([np.exp(darkness), -darkness, noise, half, np.ones(300)], axis=1)
    report = darkness_report(scores, darkness)
    assert report["r2_darkness"].to_numpy()[:4] == pytest.approx([1, 1, 0, 0.5], abs=0.07)
    assert np.isnan(report["r2_darkness"][4])
    assert report.attrs["n"] == 300


def test_sections_may_differ_in_colour_and_scores() -> None:
    rng = np.random.default_rng(0)
    sections = np.repeat(["a", "b"], 100)
    darkness = rng.random(200) + 5 * (sections == "b")
    scores = rng.normal(size=(200, 1)) + 5 * (sections == "b")[:, None]
    assert darkness_report(scores, darkness)["r2_darkness"][0] > 0.6
    assert darkness_report(scores, darkness, sections)["r2_darkness"][0] < 0.1


def test_the_effective_rank_counts_maps() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(2, 4000))
    assert effective_rank(np.stack([one, -one, 3 * one], axis=1)) == pytest.approx(1)
    assert effective_rank(np.stack([one, two, np.ones(4000)], axis=1)) == pytest.approx(2, abs=0.01)
    # three maps of one and one of another: eigenvalues 3 and 1 of 4
    expected = np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert effective_rank(np.stack([one, one, one, two], axis=1)) == pytest.approx(expected, abs=0.01)
    assert np.isnan(effective_rank(np.ones((30, 2))))


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="19 rows have scores and darkness; at least 20"):
        darkness_report(np.zeros((19, 2)), np.arange(19.0))
    with pytest.raises(ValueError, match="a row for each"):
        darkness_report(np.zeros((30, 2)), np.arange(29.0))


def test_independent_rows_are_tested_as_a_correlation_is() -> None:
    from scipy.stats import pearsonr

    x, y = np.random.default_rng(0).normal(size=(2, 200))
    y = y + 0.15 * x
    flat = darkness_basis(np.zeros(200), np.zeros(200))
    found = association(SpatialErrors(None, np.zeros(200)), x, y, flat)
    expected = pearsonr(x, y, alternative="greater")
    assert found.r == pytest.approx(expected.statistic)
    assert found.p_value == pytest.approx(expected.pvalue, rel=0.02)
    assert found.n_effective == pytest.approx(200, rel=0.01)


def test_smooth_maps_have_few_rows() -> None:
    section = Section(2.0, np.random.default_rng(0))
    x, y = section.map(2)
    flat = darkness_basis(np.zeros(section.n), np.zeros(section.n))
    assert association(section.errors, x, y, flat).n_effective < 80
    assert association(section.errors, x, x, flat).p_value < 1e-6
    assert association(section.errors, x, -x, flat).p_value > 0.99


def test_agreement_through_darkness_alone_is_taken_out() -> None:
    rng = np.random.default_rng(1)
    a, b, both = rng.normal(size=(3, N))
    darkness = np.sqrt(12) * (rng.random(N) - 0.5)
    errors, sections = SpatialErrors(GRID, np.zeros(N)), np.zeros(N)
    flat, beyond = darkness_basis(np.zeros(N), sections), darkness_basis(darkness, sections)
    x, y = darkness + a, darkness + b
    assert association(errors, x, y, flat).p_value < 1e-4
    assert association(errors, x, y, beyond).p_value > 0.05
    assert association(errors, x + both, y + both, beyond).p_value < 1e-4


def test_a_sample_of_the_rows_has_the_patches_of_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A section that is sampled has about the effective number of rows that all of its rows give."""
    section = Section(3.0, np.random.default_rng(0), edge=26)
    x, y = section.map(2)
    flat = darkness_basis(np.zeros(section.n), np.zeros(section.n))
    assert len(section.errors.sample) == section.n
    whole = association(section.errors, x, y, flat)
    monkeypatch.setattr("spatialwhisperer.statistics.intervals.spatial.SAMPLE", 200)
    sampled = association(Section(3.0, np.random.default_rng(0), edge=26).errors, x, y, flat)
    assert sampled.r == whole.r
    assert sampled.n_effective == pytest.approx(whole.n_effective, rel=0.3)


def test_rows_beyond_the_sample_count_where_they_are_independent() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 5000))
    found = association(SpatialErrors(None, np.zeros(5000)), x, y, darkness_basis(np.zeros(5000), np.zeros(5000)))
    assert found.n_effective == pytest.approx(5000, rel=0.02)


@pytest.mark.slow
def test_false_alarms_of_a_large_section_are_as_frequent_as_stated() -> None:
    """Of 1600 spots, at 5 %; the standard error over 200 sections is .015."""
    section = Section(3.0, np.random.default_rng(0), edge=40)
    assert rejections(section, 200, beyond_darkness=False) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.0, 2.0])
@pytest.mark.parametrize("beyond", [False, True])
def test_false_alarms_are_as_frequent_as_stated(sigma: float, beyond: bool) -> None:
    """At 5 %; the standard error over 200 sections is .015."""
    assert rejections(Section(sigma, np.random.default_rng(0)), 200, beyond_darkness=beyond) < 0.1


def test_a_darkness_that_is_the_same_in_each_section_explains_nothing_that_could_be_told() -> None:
    scores = np.random.default_rng(0).random((60, 2))
    sections = np.repeat(["a", "b"], 30)
    apart = np.where(sections == "a", 0.2, 0.5)
    assert not varies(apart, sections)
    assert darkness_report(scores, apart, sections)["r2_darkness"].isna().all()
    apart[0] = 0.3
    assert varies(apart, sections)
    assert darkness_report(scores, apart, sections)["r2_darkness"].notna().all()
