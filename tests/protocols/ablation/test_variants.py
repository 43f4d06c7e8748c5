from __future__ import annotations

import pytest

import spatialwhisperer as sw
from spatialwhisperer.protocols.ablation.variants import BASE, PARTS, VARIANTS, Variant, chosen

NAMES = [v.name for v in VARIANTS]


def test_every_row_has_a_name_and_something_to_be_compared_with() -> None:
    assert NAMES[0] == BASE
    assert len(set(NAMES)) == len(NAMES)
    assert {v.against for v in VARIANTS} - {None} <= set(NAMES)


@pytest.mark.parametrize("variant", VARIANTS, ids=NAMES)
def test_the_preset_takes_the_changes(variant: Variant) -> None:
    base = sw.models.get_preset(variant.recipe.preset).replace(schedule=variant.recipe.schedule, refine="never")
    changed = base.replace(**variant.preset)
    assert (changed != base) == bool(variant.preset)
    assert changed.solved_in_closed_form == (
        variant.part not in ("locking", "loss") and "schedule" not in variant.preset
    )


@pytest.mark.parametrize("variant", VARIANTS[1:], ids=NAMES[1:])
def test_a_row_differs_in_one_respect(variant: Variant) -> None:
    other = next(v for v in VARIANTS if v.name == (variant.against or BASE))
    differing = [
        name
        for name in ("preset", "recipe", "images", "standardize", "negations", "cells")
        if getattr(variant, name) != getattr(other, name)
    ]
    both = variant.change == "stains as they are, z-scores within the section"
    assert differing == ["images", "standardize"] if both else len(differing) == 1


def test_the_rows_that_others_are_compared_with_are_there() -> None:
    assert [v.name for v in chosen((), slow=True)] == NAMES
    assert not any(v.slow for v in chosen((), slow=False))
    pairs = [v.name for v in chosen(("pairs",), slow=False)]
    assert {name for name in pairs if not name.startswith("pairs: ")} == {
        BASE,
        "loss: InfoNCE from random heads, all pairs together, published heads",
        "captions: with wordings, without negations",
    }
    assert "gene encoder" in PARTS
    assert [v.name for v in chosen(("gene encoder",), slow=False)] == [BASE]
