"""What a phase of training is fed with: batches of items in memory, or of a corpus on the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from spatialwhisperer.training.batches import ItemBatches, ShuffledBatches, WholeBatches, prepared_inputs
from spatialwhisperer.training.loader import BatchLoader, workers_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spatialwhisperer.models.configuration.augmentation import Augmentation
    from spatialwhisperer.models.joint_space import JointSpace
    from spatialwhisperer.models.presets.recipe import Recipe
    from spatialwhisperer.training.batches import Items


class Feed(Protocol):
    """Where the batches of a phase come from.

    Attributes
    ----------
    parts
        Number of equal parts of a pass over the data, each of which the trainer takes for an epoch.
    """

    parts: int

    def sampler(self, world: int) -> Any:
        """Order of the batches of each of so many processes."""
        ...

    def loaders(self, sampler: Any, *, processes: int, pin: bool) -> tuple[BatchLoader, BatchLoader | None]:
        """Batches to train on, and those of held-out groups.

        Parameters
        ----------
        sampler
            What `sampler` returned.
        processes
            Number of processes on this machine.
        pin
            Whether batches are put into pinned memory.
        """
        ...


class ItemFeed:
    """Batches of items in memory.

    Parameters
    ----------
    model
        The model, whose encoders prepare the inputs of what is trained.
    items, validation
        Training items, and those of held-out groups.
    pairs
        The modality pairs that are trained.
    recipe
        Size and mixture of the batches.
    seed
        Seed of their order.
    augmentation
        Random changes of tiles; ``None`` changes none.
    workers
        Threads that prepare batches of encoders that are trained; ``None`` takes one for each core, at most four.
    """

    parts = 1

    def __init__(
        self,
        model: JointSpace,
        items: Items,
        validation: Items | None,
        *,
        pairs: Mapping[tuple[str, str], float],
        recipe: Recipe,
        seed: int,
        augmentation: Augmentation | None = None,
        workers: int | None = None,
    ) -> None:
        items = items.with_pairs(pairs)
        if recipe.select == "best" and too_few(validation, pairs):
            items, validation = _a_fifth_apart(items, seed)
        self.items, self.validation, self.pairs, self.recipe, self.seed = items, validation, pairs, recipe, seed
        self.augmentation, self.workers = augmentation, workers
        self.trained = {m: model.encoders[m] for m in model.towers}

    def sampler(self, world: int) -> ShuffledBatches:
        """Order of the batches."""
        recipe = self.recipe
        return ShuffledBatches(
            len(self.items),
            recipe.batch_size,
            seed=self.seed,
            world_size=world,
            strata=self.items.strata() if recipe.mixture == "balanced" else None,
            keep_last=recipe.last_batch == "keep",
        )

    def loaders(self, sampler: ShuffledBatches, *, processes: int, pin: bool) -> tuple[BatchLoader, BatchLoader | None]:
        """Batches to train on, and those of held-out groups, which are never augmented."""
        inputs: dict[str, Any] = {
            "trained": self.trained,
            "prepared": prepared_inputs(self.items, self.trained),
        }
        how: dict[str, Any] = {}
        if self.trained:
            # what is looked up in arrays needs neither threads nor pinned memory
            how = {"workers": workers_of(processes) if self.workers is None else self.workers, "pin": pin}
        train = BatchLoader(ItemBatches(self.items, **inputs, augment=self._augment()), sampler, **how)
        if self.validation is None or too_few(self.validation, self.pairs):
            return train, None
        items = self.validation.with_pairs(self.pairs)
        most = self.recipe.batch_size
        if self.recipe.mixture == "balanced":
            counts = np.unique(items.strata(), return_counts=True)[1]
            most = rows_to_validate(most, len(np.unique(self.items.strata())), counts.max() / counts.sum())
        whole = WholeBatches(len(items), most, seed=self.seed)
        return train, BatchLoader(ItemBatches(items, **inputs), whole, **how, training=False)

    def _augment(self) -> dict[str, Any]:
        """What changes the inputs of an encoder that is trained in this phase: tiles only."""
        tiles: Any = self.items.inputs.get("image")
        is_tiles = getattr(tiles, "ndim", 0) == 4 and tiles.dtype == np.uint8
        if self.augmentation is None or not is_tiles:
            return {}
        # compiling takes a while
        from spatialwhisperer.training.augment import TileAugmenter

        return {"image": TileAugmenter(self.augmentation, self.seed)}


def rows_to_validate(batch_size: int, trained: int, commonest: float) -> int:
    """Largest number of rows of a batch of held-out groups: of no kind more than in a batch to train on, on average.

    A contrastive loss grows with the number of negatives, which are rows of the same kind.

    Parameters
    ----------
    batch_size
        Rows of a batch to train on, which holds all kinds in equal parts.
    trained
        Number of kinds (sets of modalities) in it.
    commonest
        Fraction of the held-out rows that are of their commonest kind.
    """
    return max(2, min(batch_size, int(batch_size / (trained * commonest) + 1e-9)))


def too_few(validation: Items | None, pairs: Mapping[tuple[str, str], float]) -> bool:
    """Whether the held-out groups have no loss: a single pair has no negative."""
    return validation is None or len(validation.with_pairs(pairs)) < 2


def _a_fifth_apart(items: Items, seed: int) -> tuple[Items, Items]:
    """Items to train on, and those of a fifth of the rows, drawn at random, on which the best epoch is chosen."""
    rows = np.unique(items.row)
    order = np.random.default_rng([seed, len(rows)]).permutation(rows)
    n = max(2, round(len(rows) / 5))
    if len(rows) - n < 2:
        raise ValueError(
            f"select='best' chooses the epoch on a fifth of the rows, and there are {len(rows)}. Add data, or take select='last'."
        )
    # a row with several captions is several items, which stay together
    apart = np.isin(items.row, order[:n])
    return items.subset(np.flatnonzero(~apart)), items.subset(np.flatnonzero(apart))
