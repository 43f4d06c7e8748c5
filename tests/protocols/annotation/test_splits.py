from __future__ import annotations

from spatialwhisperer.protocols.annotation.splits import SEVERAL_UM, SPLITS, image_key


def test_no_section_is_annotated_that_trains() -> None:
    assert all(split.test not in split.train for split in SPLITS)
    assert [split.patient for split in SPLITS] == ["A", "C", "C", "C", "C", "C"]


def test_features_of_other_tiles_have_another_key() -> None:
    assert image_key(48) == "X_stain_texture_154um_48px"
    assert image_key(224, SEVERAL_UM) == "X_stain_texture_100_154_300um_224px"
