from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from spatialwhisperer.encoders.image._nuclei.table import MEASURES
from spatialwhisperer.encoders.image._nuclei.words import FILE, NucleusWords, packaged_words, robust_scale

if TYPE_CHECKING:
    from pathlib import Path

DIGEST = "3df2402ff86901af57ad08695d8d0bcebeead6b8932ca8a54eef8d888ff19171"


def test_the_packaged_words_are_those_that_models_were_trained_on():
    words = packaged_words()
    assert words.digest == DIGEST
    assert words.centroids.shape == (24, len(MEASURES))
    assert "CC BY 4.0" in words.source
    assert FILE.stat().st_size < 100_000


def test_words_survive_a_file(tmp_path: Path):
    words = packaged_words()
    words.save(tmp_path / "words.safetensors")
    again = NucleusWords.load(tmp_path / "words.safetensors")
    assert (again.digest, again.source) == (words.digest, words.source)
    np.testing.assert_array_equal(again.medians, words.medians)


def test_any_change_of_the_values_changes_the_digest():
    words = packaged_words()
    centroids = words.centroids.copy()
    centroids[3, 4] += 1e-3
    other = NucleusWords(words.centre, words.scale, centroids, words.medians, words.source)
    assert other.digest != words.digest


def test_files_that_hold_no_words_are_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no words of nuclei"):
        NucleusWords.load(tmp_path / "none.safetensors")
    (tmp_path / "odd.safetensors").write_bytes(b"something else")
    with pytest.raises(ValueError, match="does not hold words of nuclei"):
        NucleusWords.load(tmp_path / "odd.safetensors")
    words = packaged_words()
    with pytest.raises(ValueError, match="17 measurements"):
        NucleusWords(words.centre[:5], words.scale, words.centroids, words.medians, "")
    with pytest.raises(ValueError, match="not finite, in 'scale'"):
        NucleusWords(words.centre, words.scale * np.nan, words.centroids, words.medians, "")


def test_robust_scale_is_the_standard_deviation_of_normal_values_whatever_a_few_outliers():
    values = np.random.default_rng(0).normal(3, 2, (5000, 2))
    values[:100] = 40
    values[:, 1] = np.arange(5000) > 4000
    centre, scale = robust_scale(values)
    assert (centre[0], scale[0]) == pytest.approx((3, 2), abs=0.15)
    # half of the values are the same: a fifth of the standard deviation
    assert (centre[1], scale[1]) == pytest.approx((0, 0.2 * values[:, 1].std()))
