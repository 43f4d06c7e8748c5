from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer.tl._training import run

TILES = sw.tl.ImageFeatures(tile_um=80, tile_px=64)


def train(simulated: Any, folder: Any, preset: Any = "whisperer", **text: Any) -> Any:
    data = [simulated.sections["P1"], simulated.sections["P2"], simulated.reference]
    return sw.tl.train(
        data,
        preset=preset,
        image=TILES,
        text=sw.tl.TextFeatures(**text),
        expression=False,
        folder=folder,
        max_epochs=1 if preset != "whisperer" else None,
    )


@pytest.fixture(scope="module")
def worded(labels: dict[str, str]) -> dict[str, Any]:
    """Two names more for each caption, and three texts that negate it."""
    return {
        "wordings": {text: [f"section of {name}", f"many {name}s", f"{name}s"] for name, text in labels.items()},
        "negated": {text: [f"no {name}s", f"without {name}s", f"absence of {name}s"] for name, text in labels.items()},
    }


def test_wordings_lead_to_the_direction_of_their_caption_and_negations_away_from_it(
    simulated: Any, labels: dict[str, str], worded: dict[str, Any], tmp_path: Any
) -> None:
    model = train(simulated, tmp_path, **worded)
    assert set(model.config.labels) == set(labels.values())
    assert model.config.wordings == {caption: tuple(texts) for caption, texts in worded["wordings"].items()}
    assert model.config.modality("text").head.kind == "signed_linear"
    assert "wording_penalty" in model.config.training.penalties
    opened = sw.models.Whisperer.load(model.folder)
    for caption, texts in worded["wordings"].items():
        z, own = (opened.project("text", sw.pp.embed_texts(t)) for t in (texts, [caption]))
        assert (z @ own[0]).min() > 0.5
        no = opened.project("text", sw.pp.embed_texts(list(worded["negated"][caption])))
        assert (no @ own[0]).max() < -0.5


def test_wordings_alone_leave_the_text_head_linear(simulated: Any, worded: dict[str, Any], tmp_path: Any) -> None:
    model = train(simulated, tmp_path, wordings=worded["wordings"])
    assert model.config.modality("text").head.kind == "linear"


def test_a_contrastive_training_takes_wordings_and_refuses_negations(
    simulated: Any, worded: dict[str, Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = train(simulated, tmp_path / "worded", "spatialwhisperer", wordings=worded["wordings"])
    plain = train(simulated, tmp_path / "plain", "spatialwhisperer")
    caption = sw.pp.embed_texts(list(worded["wordings"]))
    assert not np.allclose(model.project("text", caption), plain.project("text", caption), atol=1e-4)
    # before images and genes are read, which takes long
    monkeypatch.setattr(run, "prepare_inputs", None)
    with pytest.raises(ValueError, match="negated=… is learnt in closed form only"):
        train(simulated, tmp_path / "negated", "spatialwhisperer", **worded)
    assert not (tmp_path / "negated" / "phases").exists()


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ({"wordings": {"fat": "adipose"}}, TypeError, r"wordings\['fat'\] must be a list of texts, not 'adipose'"),
        ({"negated": {"fat": ["no fat", 3]}}, TypeError, r"negated\['fat'\] must be a list of texts"),
        ({"wordings": {"fat": ["adipose", " "]}}, ValueError, r"wordings\['fat'\] holds an empty text"),
    ],
)
def test_wordings_that_are_no_texts_are_refused(text: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sw.tl.TextFeatures(**text)


def test_an_unknown_pooling_is_refused_at_once() -> None:
    pooling: Any = "max"
    with pytest.raises(ValueError, match="pooling must be one of 'mean', 'cls', 'pooler', not 'max'"):
        sw.tl.TextFeatures(pooling=pooling)
