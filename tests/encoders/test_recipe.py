"""Two arrays of features may stand for each other where their recipes say so."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from spatialwhisperer._storage.schema import from_plain, to_plain
from spatialwhisperer.encoders.recipe import EncoderIdentity, FeatureRecipe

RECIPE = FeatureRecipe(EncoderIdentity("resnet18", revision="a1"), "X_resnet18", (112.0, 224.0), 224)


def test_the_place_does_not_matter() -> None:
    assert RECIPE.same_features(replace(RECIPE, key=None))
    assert RECIPE.same_features(replace(RECIPE, key="X_other"))


@pytest.mark.parametrize(
    "changes",
    [
        {"encoder": EncoderIdentity("resnet50", revision="a1")},
        {"encoder": EncoderIdentity("resnet18", revision="a2")},
        {"encoder": EncoderIdentity("resnet18", revision="a1", digest="0")},
        {"encoder": None},
        {"tile_um": (112.0,)},
        {"tile_um": (224.0, 112.0)},
        {"tile_um": ()},
        {"tile_px": 64},
        {"tile_px": None},
        {"border": "nan"},
    ],
)
def test_everything_else_does(changes: dict) -> None:
    other = replace(RECIPE, **changes)
    assert not RECIPE.same_features(other)
    assert not other.same_features(RECIPE)


def test_whole_numbers_are_numbers() -> None:
    assert RECIPE.same_features(replace(RECIPE, tile_um=(112, 224)))


def test_a_border_matters_only_where_there_are_tiles() -> None:
    genes = FeatureRecipe(EncoderIdentity("pca", digest="0"))
    assert genes.same_features(replace(genes, border="nan"))


def test_features_of_unknown_origin_are_never_the_same() -> None:
    given = FeatureRecipe(None, "X_mine")
    assert not given.same_features(given)
    assert given.name == "X_mine"
    assert RECIPE.name == "resnet18"


def test_a_name_is_enough_only_without_a_digest() -> None:
    assert EncoderIdentity("a").by_name
    assert EncoderIdentity("a", revision="b").by_name
    assert not EncoderIdentity("a", digest="c").by_name


@pytest.mark.parametrize("recipe", [RECIPE, FeatureRecipe(None, "X"), FeatureRecipe(EncoderIdentity("a", None, "b"))])
def test_a_recipe_survives_json(recipe: FeatureRecipe) -> None:
    assert from_plain(FeatureRecipe, json.loads(json.dumps(to_plain(recipe))), "a recipe") == recipe
    assert hash(recipe) == hash(replace(recipe))
