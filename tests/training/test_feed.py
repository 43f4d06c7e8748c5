"""What a phase is fed with from items in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from spatialwhisperer.training.feed import ItemFeed
from tests.training.conftest import PAIRS, RECIPE

if TYPE_CHECKING:
    from collections.abc import Callable

    from spatialwhisperer.models.joint_space import JointSpace
    from spatialwhisperer.training.batches import Items


@pytest.mark.parametrize(("mixture", "sizes"), [("balanced", [7, 7, 6]), ("natural", [10, 10])])
def test_validation_batches_hold_no_more_rows_of_a_kind_than_batches_to_train_on(
    items: Items, space: Callable[..., JointSpace], mixture: str, sizes: list[int]
) -> None:
    """A contrastive loss grows with the number of negatives."""
    recipe = replace(RECIPE, mixture=mixture)
    held_out, rest = items.subset(np.arange(20)), items.subset(np.arange(20, 48))
    feed = ItemFeed(space(), rest, held_out, pairs=PAIRS, recipe=recipe, seed=0)
    _, batches = feed.loaders(feed.sampler(1), processes=1, pin=False)
    assert batches is not None
    assert [len(batch["row"]) for batch in batches] == sizes
    # held-out rows of both kinds
    both = items.subset(np.arange(20, 44))
    feed = ItemFeed(space(), items, both, pairs=PAIRS, recipe=recipe, seed=0)
    _, batches = feed.loaders(feed.sampler(1), processes=1, pin=False)
    assert batches is not None
    assert [len(batch["row"]) for batch in batches] == [12, 12]


def test_the_best_epoch_is_chosen_on_rows_that_are_not_trained_on(
    items: Items, space: Callable[..., JointSpace]
) -> None:
    """A row with two captions is two items."""
    twice = items.subset(np.concatenate([np.arange(48), np.arange(32, 48)]))
    feed = ItemFeed(space(), twice, None, pairs=PAIRS, recipe=replace(RECIPE, select="best"), seed=0)
    assert feed.validation is not None
    trained, apart = set(feed.items.row.tolist()), set(feed.validation.row.tolist())
    assert len(apart) == 10
    assert trained | apart == set(range(48))
    assert not trained & apart
