from __future__ import annotations

from spatialwhisperer.protocols import captions
from spatialwhisperer.protocols.default_model.labels import LABELS, PATHOLOGIST, REASONED_PARENTS, REGIONS, TISSUE


def test_every_region_has_labels() -> None:
    assert list(REGIONS) == list(captions.REGIONS)
    inside = [label for region in TISSUE.values() for label in region.labels]
    assert sorted(inside) == sorted(LABELS)
    assert REGIONS["immune infiltrate"] == ("T cell", "B cell", "plasma cell", "myeloid cell")
    assert PATHOLOGIST["cancer in situ"] == PATHOLOGIST["invasive cancer"] == "tumour"


def test_prompts_are_captions_that_training_holds() -> None:
    known = {*captions.REGIONS.values(), *captions.CELLS.values(), *captions.REFERENCE.values()}
    assert {prompt for label in LABELS.values() for prompt in label.prompts} <= known
    assert {prompt for region in TISSUE.values() for prompt in region.prompts} <= known


def test_parents_are_added_to_labels() -> None:
    assert set(REASONED_PARENTS) <= {label.cl for label in LABELS.values()}
