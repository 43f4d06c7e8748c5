"""What a call gives does not depend on the calls that came before it on the same object."""

from __future__ import annotations

import itertools
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import spatialwhisperer as sw

if TYPE_CHECKING:
    from collections.abc import Callable

    from spatialdata import SpatialData

Arrays = dict[str, np.ndarray]

TILES = sw.tl.ImageFeatures(tile_um=80, tile_px=64)
SEED = 0
N_TRIPLES = 24


@pytest.fixture(scope="module")
def made() -> Any:
    """Two sections and a reference: one to work on, one to train models with."""
    return sw.datasets.simulate_sections(2, 60, n_genes=60, n_reference_cells=80, random_state=3)


@pytest.fixture(scope="module")
def own_model(made: Any) -> Any:
    """A model of other tiles than the embedded one, that predicts expression."""
    preset = sw.models.get_preset("whisperer").replace(tile_um=(80.0,))
    data = [copy_of(made.sections["P2"]), made.reference.copy()]
    return sw.tl.train(data, preset=preset, image=TILES, expression=sw.tl.ExpressionOptions(cross_validate=False))


def copy_of(sdata: Any) -> SpatialData:
    """The same elements with tables of their own."""
    import spatialdata as sd

    tables = {name: table.copy() for name, table in sdata.tables.items()}
    return sd.SpatialData(images=dict(sdata.images), shapes=dict(sdata.shapes), tables=tables)


def annotated(sdata: Any) -> Arrays:
    table = sdata["table"]
    return {
        "scores": table.obsm["sw_label_scores"],
        "label": table.obs["sw_label"].astype(object).fillna("no label").to_numpy(),
        "confidence": table.obs["sw_label_confidence"].to_numpy(),
        "embedding": table.obsm["X_sw_image"],
    }


@pytest.fixture(scope="module")
def calls(made: Any, own_model: Any) -> dict[str, Callable[[Any], Arrays]]:
    """Each call by name; it returns what it gave."""

    def annotate_own(sdata: Any) -> Arrays:
        sw.tl.zero_shot_annotate(sdata, model=own_model)
        return annotated(sdata)

    def annotate_embedded(sdata: Any) -> Arrays:
        sw.tl.zero_shot_annotate(sdata, unknown="label")
        return annotated(sdata)

    def embed_other_tiles(sdata: Any) -> Arrays:
        sw.pp.embed_images(sdata, tile_um=60, tile_px=32)
        return {"features": sdata["table"].obsm["X_stain_texture"]}

    def train(sdata: Any) -> Arrays:
        model = sw.tl.train([sdata, made.reference.copy()], image=TILES)
        return {name: value.numpy() for name, value in model.state_dict().items()}

    def predict_expression(sdata: Any) -> Arrays:
        sw.tl.predict_expression(sdata, model=own_model)
        return {"values": np.asarray(sdata["sw_expression"].X)}

    def query(sdata: Any) -> Arrays:
        sw.tl.query(sdata, "fat cell")
        return {"scores": sdata["table"].obs["sw_query"].to_numpy()}

    named = (annotate_own, annotate_embedded, embed_other_tiles, train, predict_expression, query)
    return {call.__name__: call for call in named}


NAMES = ("annotate_own", "annotate_embedded", "embed_other_tiles", "train", "predict_expression", "query")


@pytest.fixture(scope="module")
def alone(made: Any, calls: dict[str, Callable[[Any], Arrays]]) -> dict[str, Arrays]:
    """What each call gives as the first one on a fresh copy."""
    return {name: call(copy_of(made.sections["P1"])) for name, call in calls.items()}


def assert_equal(given: Arrays, expected: Arrays, what: str) -> None:
    assert given.keys() == expected.keys()
    for key, values in given.items():
        np.testing.assert_array_equal(values, expected[key], err_msg=f"{key} after {what}")


@pytest.fixture(scope="module")
def after(made: Any, calls: dict[str, Callable[[Any], Arrays]]) -> Callable[[str], SpatialData]:
    """A copy of the section as a call leaves it."""

    @cache
    def left(name: str) -> SpatialData:
        sdata = copy_of(made.sections["P1"])
        calls[name](sdata)
        return sdata

    return lambda name: copy_of(left(name))


@pytest.mark.parametrize("last", NAMES)
@pytest.mark.parametrize("first", NAMES)
def test_the_second_of_two_calls_gives_what_it_gives_alone(
    first: str, last: str, after: Callable[[str], SpatialData], calls: Any, alone: dict[str, Arrays]
) -> None:
    """What the first call stored is on a copy; the three calls below are on one object."""
    assert_equal(calls[last](after(first)), alone[last], f"{first} -> {last}")


def some_triples() -> list[tuple[str, ...]]:
    triples = list(itertools.product(NAMES, repeat=3))
    chosen = np.random.default_rng(SEED).choice(len(triples), N_TRIPLES, replace=False)
    return [triples[i] for i in sorted(chosen)]


@pytest.mark.slow
@pytest.mark.parametrize("sequence", some_triples(), ids=" ".join)
def test_the_last_of_three_calls_gives_what_it_gives_alone(
    sequence: tuple[str, ...], made: Any, calls: Any, alone: dict[str, Arrays]
) -> None:
    sdata = copy_of(made.sections["P1"])
    *earlier, last = (calls[name] for name in sequence)
    for call in earlier:
        call(sdata)
    assert_equal(last(sdata), alone[sequence[-1]], " -> ".join(sequence))
