from __future__ import annotations

import math
from typing import Any

import pytest

import spatialwhisperer as sw
from spatialwhisperer._storage.schema import from_plain, to_plain
from spatialwhisperer.models.configuration.augmentation import Augmentation


@pytest.mark.parametrize(
    ("wrong", "limit"),
    [
        ({"brightness": -0.1}, "between 0 and 1"),
        ({"stain_scale": 1.2}, "between 0 and 1"),
        ({"hue": 0.6}, "between 0 and 0.5"),
        ({"rotation": 181}, "between 0 and 180"),
        ({"fill": 256}, "between 0 and 255"),
        ({"stain_shift": math.nan}, "0 or more"),
        ({"stain_shift": math.inf}, "0 or more"),
        ({"contrast": True}, "between 0 and 1"),
    ],
)
def test_values_out_of_range_are_refused(wrong: dict[str, Any], limit: str) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} of an augmentation must be {limit}"):
        Augmentation(**wrong)


def test_it_is_stored_as_plain_values() -> None:
    one = Augmentation(flips=False, rotation=10.0, hue=0.1)
    assert from_plain(Augmentation, to_plain(one), "an augmentation") == one


def test_it_is_reached_through_the_preset() -> None:
    preset = sw.models.get_preset("bleep")
    assert preset.augmentation == Augmentation()
    assert preset.replace(augmentation=None).augmentation is None
    assert preset.replace(augmentation=Augmentation(rotation=5.0)).augmentation.rotation == 5  # type: ignore[union-attr]


def test_what_changes_follows_from_the_values() -> None:
    none: Any = {"brightness": 0, "contrast": 0, "saturation": 0}
    assert Augmentation().changes_stains
    assert not Augmentation(stain_scale=0, stain_shift=0).changes_stains
    assert Augmentation(**none, hue=0.1).changes_colours
    assert not Augmentation(**none).changes_colours
    assert not Augmentation(colour_probability=0).changes_colours


def test_what_was_published() -> None:
    """The numbers of the published code, not of the presets."""
    bleep, heclip, mcl, omiclip = (
        sw.models.get_preset(name, "peer").augmentation
        for name in ("bleep", "heclip-hvg", "mclstexp", "omiclip-predex")
    )
    assert bleep is not None
    assert bleep == heclip
    assert (bleep.flips, bleep.right_angles, bleep.rotation) == (True, True, 0)
    assert not bleep.changes_stains
    assert not bleep.changes_colours
    assert mcl is not None
    assert (mcl.brightness, mcl.contrast, mcl.saturation, mcl.hue) == (0.5, 0.5, 0.5, 0)
    assert (mcl.flips, mcl.rotation, mcl.fill, mcl.stain_scale) == (True, 180, 0, 0)
    assert omiclip is not None
    assert (omiclip.brightness, omiclip.contrast, omiclip.saturation, omiclip.hue) == (0.32, 0.32, 0.32, 0.08)
    assert (omiclip.colour_probability, omiclip.flips, omiclip.right_angles) == (0.5, False, False)
    assert sw.models.get_preset("spatialwhisperer", "peer").augmentation is None
