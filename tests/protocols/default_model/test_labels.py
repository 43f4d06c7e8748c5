from __future__ import annotations

from spatialwhisperer.protocols import captions
from spatialwhisperer.protocols.default_model.labels import LABELS, REGIONS


def test_every_region_has_labels() -> None:
    assert list(REGIONS) == list(captions.REGIONS)
    assert {label for own in REGIONS.values() for label in own} <= set(LABELS)


def test_prompts_are_captions_that_training_holds() -> None:
    known = {*captions.REGIONS.values(), *captions.CELLS.values(), *captions.REFERENCE.values()}
    assert {prompt for label in LABELS.values() for prompt in label.prompts} <= known
