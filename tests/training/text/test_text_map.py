from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from spatialwhisperer.networks.heads import fixed_signed_head
from spatialwhisperer.networks.negations import ORDINARY_ODDS
from spatialwhisperer.training.closed_form import caption_directions, text_directions
from spatialwhisperer.training.text.text_map import TEXT_PENALTY, WORDING_PENALTIES, fit_text_map, text_map
from spatialwhisperer.training.text.wordings import Wordings, place_wordings

CAPTIONS = ["a", "b", "c"]


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_penalties_by_text_are_the_weighted_ridge_regression_of_sklearn() -> None:
    rng = np.random.default_rng(0)
    penalty = rng.uniform(0.1, 3, size=12)
    for n_features in (4, 40):
        text, directions = rng.normal(size=(12, n_features)), rng.normal(size=(5, 12))
        expected = Ridge(alpha=1, fit_intercept=False).fit(text, directions.T, sample_weight=1 / penalty).coef_
        assert text_map(text, directions, penalty) == pytest.approx(expected)


def test_a_negated_text_has_the_direction_of_the_rows_without_the_caption() -> None:
    rng = np.random.default_rng(1)
    x, holds, group = rng.normal(size=(300, 4)), rng.random((300, 3)) < 0.3, np.repeat(["p", "q"], 150)
    texts, wordings = place_wordings(CAPTIONS, {"a": ["both"], "b": ["both"]}, {"c": ["no c"]})
    found = text_directions(x, holds, group, len(texts), wordings)
    assert found[:, :3] == pytest.approx(caption_directions(x, holds, group))
    union, without = holds[:, :2].any(axis=1, keepdims=True), ~holds[:, 2:]
    assert found[:, 3] == pytest.approx(caption_directions(x, union, group)[:, 0])
    assert found[:, 4] == pytest.approx(caption_directions(x, without, group)[:, 0])
    assert found[:, 4] == pytest.approx(-found[:, 2])


def worded(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, Wordings]:
    """Features of three captions with eight wordings and eight negations each: a topic, the word "no", and noise."""
    names = {c: [f"{c}{i}" for i in range(8)] for c in CAPTIONS}
    negated = {c: [f"no {c}{i}" for i in range(8)] for c in CAPTIONS}
    texts, wordings = place_wordings(CAPTIONS, names, negated)
    assert wordings is not None
    topics, no = rng.normal(size=(3, 60)), 3 * rng.normal(size=60)
    states, says_no = wordings.states(len(texts))
    text = unit(states @ topics + says_no[:, None] * no + 0.5 * rng.normal(size=(len(texts), 60)))
    directions = rng.normal(size=(6, 3)) @ states.T * np.where(says_no, -1, 1)
    return text, directions, wordings


def test_a_text_that_negates_points_the_other_way_also_where_it_was_not_trained() -> None:
    text, directions, wordings = worded(np.random.default_rng(2))
    mapped = fit_text_map(text, directions, wordings)
    assert mapped.penalty in WORDING_PENALTIES
    assert mapped.sign is not None
    rng = np.random.default_rng(3)
    new = unit(text + 0.05 * rng.normal(size=text.shape))
    cosines = (unit(mapped(new)) * unit(directions.T)).sum(axis=1)
    assert cosines.min() > 0.3
    assert cosines.mean() > 0.9


def test_the_sign_is_that_of_the_head_that_is_made_of_it() -> None:
    text, directions, wordings = worded(np.random.default_rng(6))
    mapped = fit_text_map(text, directions, wordings)
    assert mapped.sign is not None
    head = fixed_signed_head(mapped.weight, mapped.sign.weight, mapped.sign.bias)
    found = head(torch.tensor(text, dtype=torch.float32)).detach().numpy()
    assert found == pytest.approx(mapped(text, ORDINARY_ODDS), abs=1e-4)
    # a text on the limit of the regression, at even odds and at those of the head
    limit = text[0] - mapped.sign.weight * (text[0] @ mapped.sign.weight + mapped.sign.bias) / (
        mapped.sign.weight @ mapped.sign.weight
    )
    assert mapped.sign(limit[None]) == pytest.approx([0.0])
    assert mapped.sign(limit[None], ORDINARY_ODDS) == pytest.approx([0.5])


def test_the_map_is_fitted_to_texts_turned_round_at_even_odds() -> None:
    text, directions, wordings = worded(np.random.default_rng(7))
    mapped = fit_text_map(text, directions, wordings)
    assert mapped.sign is not None
    assert mapped.penalty is not None
    each = np.where(np.arange(len(text)) < len(CAPTIONS), TEXT_PENALTY, mapped.penalty)
    factor = np.tanh((text @ mapped.sign.weight + mapped.sign.bias) / 2)
    assert mapped.weight == pytest.approx(text_map(factor[:, None] * text, directions, each))


def test_captions_alone_are_mapped_as_without_wordings() -> None:
    rng = np.random.default_rng(4)
    text, directions = unit(rng.normal(size=(3, 9))), rng.normal(size=(5, 3))
    mapped = fit_text_map(text, directions, None)
    assert mapped.sign is None
    assert mapped.penalty is None
    assert mapped.weight == pytest.approx(text_map(text, directions, TEXT_PENALTY))


def test_noisy_wordings_get_a_larger_penalty() -> None:
    chosen = []
    for noise in (0.02, 3.0):
        rng = np.random.default_rng(5)
        texts, wordings = place_wordings(CAPTIONS, {c: [f"{c}{i}" for i in range(20)] for c in CAPTIONS}, {})
        assert wordings is not None
        states, _ = wordings.states(len(texts))
        text = unit(states @ rng.normal(size=(3, 40)) + noise * rng.normal(size=(len(texts), 40)))
        chosen.append(fit_text_map(text, rng.normal(size=(6, 3)) @ states.T, wordings).penalty)
    assert chosen[0] is not None
    assert chosen[1] is not None
    assert chosen[0] < chosen[1]
