"""The verb: what it writes, and which modality it reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer._provenance import recorded


def test_the_embedding_is_written_under_its_modality(section: Any, model: Any, keys: Any) -> None:
    table = section["table"]
    before = keys.of(table)
    assert sw.tl.embed(section, model=model) is None
    assert keys.added(before, table) == {"obsm": {"X_sw_image"}, "recorded": {"X_sw_image"}}
    z = table.obsm["X_sw_image"]
    assert z.dtype == np.float32
    assert np.allclose(np.linalg.norm(z, axis=1), 1, atol=1e-5)
    record: Any = recorded(table, "X_sw_image")
    assert record["modality"] == "image"


def test_the_array_is_returned_and_nothing_is_written(section: Any, model: Any, keys: Any) -> None:
    table = section["table"]
    before = keys.of(table)
    z: Any = sw.tl.embed(section, model=model, modality="gene", inplace=False)
    assert keys.of(table) == before
    encoder = model.encoders["gene"]
    assert np.allclose(z, model.project("gene", encoder.encode(table[:, encoder.genes].X)), atol=1e-5)


def test_computed_features_are_stored_with_the_embedding(section: Any, model: Any, keys: Any) -> None:
    table = section["table"]
    expected: Any = sw.tl.embed(section, model=model, inplace=False)
    features = table.obsm.pop("X_stain_texture")
    before = keys.of(table)
    sw.tl.embed(section, model=model, key_added="X_mine")
    assert keys.added(before, table) == {"obsm": {"X_mine", "X_stain_texture"}, "recorded": {"X_mine"}}
    assert np.allclose(table.obsm["X_stain_texture"], features, atol=1e-5)
    assert np.allclose(table.obsm["X_mine"], expected, atol=1e-5)


def test_the_embedded_model_is_the_default(section: Any) -> None:
    z: Any = sw.tl.embed(section, inplace=False)
    assert z.shape == (120, sw.models.default_model().config.projection_dim)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"modality": "text"}, ValueError, "a table holds no text of its own; choose 'gene' or 'image'"),
        ({"modality": "smell"}, ValueError, "there is no such modality"),
        ({"key_added": "a/b"}, ValueError, "key_added"),
        ({"batch_size": 0}, ValueError, "batch_size must be a positive whole number"),
        ({"model": 3}, TypeError, "a Whisperer, a folder or a hub name, not int"),
        ({"mp": 0.5}, TypeError, "Did you mean mpp"),
    ],
)
def test_bad_arguments_are_refused(section: Any, model: Any, options: Any, error: Any, message: str, keys: Any) -> None:
    before = keys.of(section["table"])
    with pytest.raises(error, match=message):
        sw.tl.embed(section, **({"model": model} | options))
    assert keys.of(section["table"]) == before
