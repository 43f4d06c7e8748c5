"""A sample of the training data, as arrays that fit each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from spatialwhisperer._artifact.artifact import Artifact
from spatialwhisperer.models.reference import FAR, KIND, Reference, ReferenceConfig

if TYPE_CHECKING:
    from pathlib import Path

Z = np.ones((3, 2), np.float16)


def of_images(n: int = 2, seed: int = 0) -> Reference:
    """Training sections whose features lie one standard deviation apart at most."""
    rng = np.random.default_rng(seed)
    arrays = {"feature_mean": rng.uniform(0, 1, (n, 4)), "feature_std": np.ones((n, 4))}
    return Reference(arrays={k: v.astype(np.float32) for k, v in arrays.items()})


# ------------------------------------------------------------------------------------------------- what it holds


def test_an_empty_one_holds_nothing() -> None:
    reference = Reference()
    assert reference.config == ReferenceConfig()
    assert not reference.has("caption")
    assert reference.has()
    assert reference.captions == []
    assert repr(reference) == "Reference: empty"
    with pytest.raises(KeyError, match=r"has no 'caption' \(found: none\)"):
        reference.unit("caption")


def test_embeddings_have_unit_length_again() -> None:
    z = np.random.default_rng(0).normal(size=(4, 3))
    arrays = {"caption": (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float16)}
    unit = Reference(arrays=arrays).unit("caption")
    assert unit.dtype == np.float64
    assert np.allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-12)
    assert np.array_equal(Reference(arrays={"caption": np.zeros((2, 3))}).unit("caption"), np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pair_image": Z, "pair_bridge": Z[:2], "pair_group": np.zeros(3, np.int32)}, "one row each"),
        ({"pair_image": Z}, "one row each"),
        ({"feature_mean": Z}, "one row each"),
        ({"mean_image": np.array([np.nan, 1])}, "'mean_image' of the reference holds values that are not finite"),
        ({"other": Z}, r"no arrays named other \(it may have: caption, "),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Reference(arrays=arrays)


@pytest.mark.parametrize("index", [[0, 1, 5], [0, 1, -1]])
def test_captions_that_do_not_fit_are_refused(index: list[int]) -> None:
    text: dict[str, Any] = {
        "text_bridge": Z,
        "text_caption": np.array(index, np.int32),
        "text_group": np.zeros(3, np.int32),
    }
    with pytest.raises(ValueError, match="does not fit its 3 captions .3 texts"):
        Reference(ReferenceConfig(captions=("a", "b", "c")), text | {"caption": Z})
    right = text | {"text_caption": np.array([0, 1, 2], np.int32), "caption": Z}
    assert Reference(ReferenceConfig(captions=("a", "b", "c")), right).captions == ["a", "b", "c"]
    with pytest.raises(ValueError, match="does not fit its 3 captions .1 texts"):
        Reference(ReferenceConfig(captions=("a",)), right)


# ------------------------------------------------------------------------------------------------- distance of images


def test_distance_is_in_standard_deviations_from_the_nearest_section() -> None:
    reference = of_images()
    centres = reference.arrays["feature_mean"]
    rows = np.repeat(centres[1][None], 5, axis=0)
    assert reference.image_distance(rows) == pytest.approx(0, abs=1e-6)
    assert reference.image_distance(rows + 3) == pytest.approx(
        min(np.sqrt(np.square(centres[1] + 3 - c).mean()) for c in centres), rel=1e-5
    )
    # one feature alone counts for ten at most
    rows[:, 0] += 1e6
    assert reference.image_distance(rows) < 10


def test_incomplete_rows_do_not_count() -> None:
    reference = of_images()
    rows = np.random.default_rng(1).normal(size=(6, 4))
    holes = np.vstack([rows, np.full((2, 4), np.nan)])
    assert reference.image_distance(holes) == reference.image_distance(rows)
    for wrong in (holes[6:], rows[:, :3]):
        with pytest.raises(ValueError, match="features need complete rows of 4 values; found"):
            reference.image_distance(wrong)


def test_a_constant_feature_does_not_divide_by_zero() -> None:
    reference = of_images()
    reference.arrays["feature_std"][:, 2] = 0
    assert np.isfinite(reference.image_distance(np.ones((3, 4))))


def test_the_limit_grows_with_the_differences_of_the_training_sections() -> None:
    assert of_images().image_limit() == FAR
    assert of_images(1).image_limit() == FAR
    wide = of_images()
    wide.arrays["feature_mean"][1] += 8
    one, other = wide.arrays["feature_mean"]
    assert wide.image_limit() == pytest.approx(1.5 * np.sqrt(np.square(one - other).mean()), rel=1e-5)


def test_a_model_without_image_features_has_no_distance() -> None:
    for call in (lambda r: r.image_limit(), lambda r: r.image_distance(np.ones((2, 4)))):
        with pytest.raises(KeyError, match="reference has no image features"):
            call(Reference())


# ------------------------------------------------------------------------------------------------- storage


def test_that_of_a_model_comes_back_bit_for_bit(model: Any, tmp_path: Path) -> None:
    folder = model.reference.artifact().write(tmp_path / "reference")
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]
    opened = Reference.from_artifact(Artifact.read(folder, KIND))
    assert opened.config == model.reference.config
    assert opened.arrays.keys() == model.reference.arrays.keys()
    for name, value in model.reference.arrays.items():
        assert opened.arrays[name].dtype == value.dtype
        assert np.array_equal(opened.arrays[name], value)


@pytest.mark.parametrize(
    ("config", "tensors", "message"),
    [
        ({"mpp": 0.5}, {}, "mpp: "),
        ({"more": 1}, {}, "more: Unexpected"),
        ({"captions": ["a"]}, {"caption": Z, "text_bridge": Z}, "one row each"),
        ({}, {"other": Z}, "no arrays named other"),
    ],
)
def test_a_stored_one_that_does_not_fit_is_refused(config: Any, tensors: Any, message: str) -> None:
    artifact = Reference().artifact()
    with pytest.raises(ValueError, match=message):
        Reference.from_artifact(Artifact(KIND, {**artifact.config, **config}, tensors))
