"""Published models of images and texts beside the methods, at tiny size and from the cache of the hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("transformers")

import spatialwhisperer as sw
from spatialwhisperer.protocols import captions, published_models
from spatialwhisperer.protocols.__main__ import main
from spatialwhisperer.protocols.annotation.methods import METHODS
from tests.encoders.hub_mirror import fill_cache, use_cache
from tests.encoders.tiny_models import bert_tokenizer, keep_repository

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def baselines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> published_models.Baselines:
    use_cache(monkeypatch, tmp_path / "cache")
    (tmp_path / "model").mkdir()
    bert_tokenizer(tmp_path / "model")
    keep_repository(tmp_path / "model")
    fill_cache(tmp_path / "cache", "Astaxanthin/KEEP", tmp_path / "model")
    return published_models.open_here(["keep", "plip", "keep"])


def test_what_is_on_the_machine_is_opened_and_the_others_are_listed_with_the_reason(baselines) -> None:
    assert list(baselines.models) == ["keep"]
    assert list(baselines.left_out) == ["plip"]
    assert "none are cached, and the settings say offline" in baselines.left_out["plip"]
    assert baselines.notes().startswith("Published models of images and texts that were left out:\n\n- plip: ")
    assert set(baselines.models) <= set(METHODS)


def test_scores_are_those_of_an_annotation(baselines, monkeypatch: pytest.MonkeyPatch) -> None:
    # the tokenizer knows few words
    monkeypatch.setattr(captions, "TARGETS", {"adipose": "fat", "cancer": "tumour cells"})
    section = sw.datasets.simulate_sections(1, 20, n_genes=40, n_reference_cells=20, random_state=0).sections["P1"]
    scores = baselines.scores(section, "P1")["keep"]
    expected = sw.tl.zero_shot_annotate(section, captions.TARGETS, model=baselines.models["keep"], inplace=False)
    assert expected is not None
    assert list(scores.index) == list(range(20))
    assert set(scores.columns) == set(captions.TARGETS)
    np.testing.assert_array_equal(scores.to_numpy(), expected.to_numpy())


def test_a_section_that_a_model_cannot_label_is_listed(baselines, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("The image is\ntoo coarse.")

    monkeypatch.setattr(sw.tl, "zero_shot_annotate", refuse)
    assert baselines.scores(None, "A1") == {}
    assert baselines.left_out["keep on A1"] == "The image is too coarse."


def test_names_are_checked_before_anything_is_read(tmp_path: Path) -> None:
    arguments = ["annotation", "--data", str(tmp_path), "--out", str(tmp_path / "out"), "--baselines"]
    with pytest.raises(ValueError, match="no published model of images and texts 'kepp'"):
        main([*arguments, "kepp"])
    with pytest.raises(ValueError, match="The text encoder of 'conch' is not supported"):
        main([*arguments, "keep", "conch"])
    assert published_models.open_here([]).notes() == ""
    with pytest.raises(SystemExit, match="--baselines belongs to --dataset her2st"):
        main([*arguments, "keep", "--dataset", "lizard"])
