"""The rows of a corpus that a model keeps are standardised as those that it was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer.tl._training.corpus import sample
from spatialwhisperer.training.corpus.batches import Standard
from spatialwhisperer.training.corpus.shards import Corpus
from tests import corpora

if TYPE_CHECKING:
    from spatialwhisperer.tl._training.inputs import Inputs

N = 2000
MEAN, STD = np.full(6, 0.5, np.float32), np.full(6, 2.0, np.float32)


@pytest.fixture(scope="module")
def slides() -> dict[str, Any]:
    """A large section of two tissues, one after the other, and a section of 15 rows."""
    large, small = corpora.slide(1, N, ["A"], gene=False, captions=["x", "y"]), corpora.slide(2, 15, ["B"])
    large.obsm["X_image"][N // 2 :] += 8
    return {"large": large, "small": small}


@pytest.fixture(scope="module")
def corpus(slides: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    given = sw.pp.CorpusSource("s", slides, licence="CC0")
    return Corpus.open(corpora.build(tmp_path_factory.mktemp("corpus") / "c", [given]))


def inputs(corpus: Corpus, how: str, monkeypatch: pytest.MonkeyPatch, rows: int) -> Inputs:
    monkeypatch.setattr(sample, "ROWS", rows)
    standards = {"image": Standard(how, MEAN, STD), "text": Standard("none", np.zeros(4), np.ones(4))}
    return sample.sample_inputs(corpus, standards, {}, held_out=frozenset(), seed=0)


def test_a_sampled_strip_has_the_z_scores_of_the_whole_section(
    corpus: Corpus, slides: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    some = inputs(corpus, "section", monkeypatch, 500)
    assert len(some.observations) < N / 2
    raw, z = some.modalities["image"].raw, some.items.inputs["image"]
    large = slides["large"].obsm["X_image"].astype(np.float64)
    own = (some.observations["section"] == "s/large:all").to_numpy()
    assert own.any()
    np.testing.assert_allclose(z[own], (raw[own] - large.mean(0)) / large.std(0), atol=1e-4)


def test_sections_keep_the_moments_of_all_their_rows(
    corpus: Corpus, slides: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    some = inputs(corpus, "section", monkeypatch, 500)
    whole = some.modalities["image"].whole_sections
    assert whole is not None
    assert set(whole) == set(some.observations["section"])
    large = slides["large"].obsm["X_image"].astype(np.float64)
    np.testing.assert_allclose(whole["s/large:all"], (large.mean(0), large.std(0)), rtol=1e-5)
    assert some.modalities["text"].whole_sections is None


def test_sections_with_few_rows_have_training_statistics(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    every = inputs(corpus, "section", monkeypatch, 2 * N)
    raw, z = every.modalities["image"].raw, every.items.inputs["image"]
    small = (every.observations["section"] == "s/small:all").to_numpy()
    assert small.sum() == 15
    np.testing.assert_allclose(z[small], (raw[small] - MEAN) / STD, atol=1e-5)


@pytest.mark.parametrize("how", ["global", "none"])
def test_other_rules_do_not_look_at_sections(corpus: Corpus, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    some = inputs(corpus, how, monkeypatch, 500)
    raw, z = some.modalities["image"].raw, some.items.inputs["image"]
    np.testing.assert_allclose(z, raw if how == "none" else np.clip((raw - MEAN) / STD, -6, 6), atol=1e-5)
