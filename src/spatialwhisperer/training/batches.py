"""Training items as arrays: which inputs of the modalities belong together, and batches of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from spatialwhisperer.encoders.base import Encoder
    from spatialwhisperer.training.text.wordings import Wordings

_COLLATING = Lock()
"""Encoders need not expect that several threads call them."""


@dataclass(frozen=True)
class Items:
    """Paired observations of up to three modalities.

    Attributes
    ----------
    inputs
        Modality to what its trained encoder or its head takes, one entry for each distinct input: standardised features (n, d),
        tiles (n, 3, p, p) that may be read only when they are indexed, a CSR matrix of counts, or a list of captions.
    index
        Modality to the position in ``inputs`` of each item, shape (n_items,); -1 where the item lacks the modality.
    row
        Observation of each item, shape (n_items,); an observation with two captions gives two items.
    group
        Patient (or other group) of each item, shape (n_items,).
    context
        Modality to what its context module reads in addition to the features, one entry for each distinct input: ``positions`` (n, 2)
        of whole numbers, or the ``neighbours`` (n, 1 + k) of each input and their ``offsets`` (n, 1 + k, 2).
    values
        Expression that a decoder is trained to predict, CSR, shape (m, g), or ``None``.
    value_index
        Row of ``values`` of each item, shape (n_items,); -1 where there is none.
    places
        Section (n,) and position (n, 2) of each observation, to which ``row`` points, or ``None``.
    wordings
        Other texts for the captions, which are text inputs too; ``None`` where there are captions alone.
    """

    inputs: Mapping[str, Any]
    index: Mapping[str, np.ndarray]
    row: np.ndarray
    group: np.ndarray
    context: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    values: Any = None
    value_index: np.ndarray | None = None
    places: tuple[np.ndarray, np.ndarray] | None = None
    wordings: Wordings | None = None

    def __len__(self) -> int:
        return len(self.row)

    def subset(self, keep: np.ndarray) -> Items:
        """Items at the given positions. The inputs are not copied."""
        return replace(
            self,
            index={m: i[keep] for m, i in self.index.items()},
            row=self.row[keep],
            group=self.group[keep],
            value_index=None if self.value_index is None else self.value_index[keep],
        )

    def count(self, a: str, b: str) -> int:
        """Number of distinct pairs of inputs of two modalities."""
        if a not in self.index or b not in self.index:
            return 0
        both = (self.index[a] >= 0) & (self.index[b] >= 0)
        return len(np.unique(np.stack([self.index[a][both], self.index[b][both]]), axis=1).T)

    def strata(self) -> np.ndarray:
        """Code for the set of modalities that each item holds, shape (n_items,)."""
        return np.sum([(index >= 0).astype(int) << bit for bit, index in enumerate(self.index.values())], axis=0)

    def with_pairs(self, pairs: Any) -> Items:
        """Only the items that hold at least one of the modality pairs, with only the modalities of these pairs."""
        modalities = sorted({m for pair in pairs for m in pair})
        keep = np.zeros(len(self), bool)
        for a, b in pairs:
            keep |= (self.index[a] >= 0) & (self.index[b] >= 0)
        narrowed = replace(
            self, inputs={m: self.inputs[m] for m in modalities}, index={m: self.index[m] for m in modalities}
        )
        if "image" not in modalities:
            # a decoder is trained on images
            narrowed = replace(narrowed, values=None, value_index=None)
        return narrowed.subset(np.flatnonzero(keep))


class ItemBatches(Dataset):
    """Looks up whole batches by the positions of their items, with one indexing operation for each modality.

    Parameters
    ----------
    items
        The items.
    trained
        Encoders that are trained, by modality; their ``collate`` prepares the raw inputs.
    prepared
        What `prepared_inputs` returned for the inputs; ``None`` prepares them here.
    augment
        Function that changes the inputs of a trained encoder at random, by modality. It gets the inputs, the epoch, and the position of
        each input in ``items.inputs``.
    """

    def __init__(
        self,
        items: Items,
        trained: Mapping[str, Encoder],
        *,
        prepared: Mapping[str, Any] | None = None,
        augment: Mapping[str, Callable[[Any, int, np.ndarray], Any]] | None = None,
    ) -> None:
        self.items = items
        self.trained = trained
        self.prepared = prepared_inputs(items, trained) if prepared is None else prepared
        self.augment = augment or {}
        self.tensors = {
            m: torch.as_tensor(np.asarray(x, dtype=np.float32)) for m, x in items.inputs.items() if m not in trained
        }
        self.captions = _captions_of_rows(items)
        self.texts = None if items.wordings is None else items.wordings.of_captions()

    def __getitem__(self, positions: np.ndarray) -> dict[str, Any]:
        return self.batch(positions, 0)

    def batch(self, positions: np.ndarray, epoch: int) -> dict[str, Any]:
        """Look up a batch. Several threads may do so at a time.

        Parameters
        ----------
        positions
            Positions of its items.
        epoch
            Number of the epoch, on which random changes of inputs depend.
        """
        batch: dict[str, Any] = {"row": torch.as_tensor(self.items.row[positions])}
        for modality, index in self.items.index.items():
            found = index[positions]
            at = np.flatnonzero(found >= 0)
            # the identity stays that of the caption: its wordings are no negatives of each other
            read = self._worded(found[at], positions[at], epoch) if modality == "text" else found[at]
            batch[modality] = {"at": torch.as_tensor(at), "id": torch.as_tensor(found)} | self._input(
                modality, read, epoch
            )
        if self.captions is not None:
            batch["text"]["captions"] = torch.as_tensor(self.captions[self.items.row[positions]])
        if self.items.values is not None and self.items.value_index is not None:
            batch["values"] = self._values(positions, self.items.values, self.items.value_index)
        return batch

    def _worded(self, captions: np.ndarray, items: np.ndarray, epoch: int) -> np.ndarray:
        """Text input of each item: its caption, or the next of its wordings in every epoch, from another start for every item."""
        if self.texts is None:
            return captions
        numbers = items + epoch
        return np.array(
            [self.texts[c][n % len(self.texts[c])] for c, n in zip(captions, numbers, strict=True)], np.int64
        )

    def _values(self, items: np.ndarray, values: Any, index: np.ndarray) -> dict[str, torch.Tensor]:
        """Expression of the items that have an image and a value."""
        found = index[items]
        at = np.flatnonzero((found >= 0) & (self.items.index["image"][items] >= 0))
        return {"at": torch.as_tensor(at), "y": torch.as_tensor(values[found[at]].toarray())}

    def _features(self, modality: str, found: np.ndarray) -> dict[str, Any]:
        tensor, context = self.tensors[modality], self.items.context.get(modality)
        if context is None:
            return {"x": tensor[torch.as_tensor(found)]}
        if "positions" in context:
            return {
                "x": tensor[torch.as_tensor(found)],
                "context": {"positions": torch.as_tensor(context["positions"][found])},
            }
        neighbours = torch.as_tensor(context["neighbours"][found])
        mask = neighbours >= 0
        x = tensor[neighbours.clamp_min(0)] * mask[..., None]
        return {"x": x, "context": {"offsets": torch.as_tensor(context["offsets"][found]), "mask": mask}}

    def _input(self, modality: str, found: np.ndarray, epoch: int) -> dict[str, Any]:
        if modality not in self.trained:
            return self._features(modality, found)
        if not len(found):
            return {"x": torch.empty(0)}
        # a trained encoder is expensive, so each distinct input is encoded once
        distinct, expand = np.unique(found, return_inverse=True)
        source = self.prepared[modality]
        chosen = [source[i] for i in distinct] if isinstance(source, list) else source[distinct]
        if modality in self.augment:
            chosen = self.augment[modality](chosen, epoch, distinct)
        with _COLLATING:
            x = self.trained[modality].collate(chosen)
        return {"x": x, "expand": torch.as_tensor(expand)}


def prepared_inputs(items: Items, trained: Mapping[str, Encoder]) -> dict[str, Any]:
    """Inputs of the encoders that are trained, as far as each can be prepared once for all batches."""
    return {m: trained[m].prepare(x) for m, x in items.inputs.items() if m in trained}


def _captions_of_rows(items: Items) -> np.ndarray | None:
    """Captions that are true of each row, shape (rows, most captions of a row), filled up with -1; ``None`` without text."""
    if "text" not in items.index:
        return None
    stated = items.index["text"] >= 0
    pairs = np.unique(np.stack([items.row[stated], items.index["text"][stated]], axis=1), axis=0)
    counts = np.bincount(pairs[:, 0], minlength=int(items.row.max(initial=-1)) + 1)
    captions = np.full((len(counts), int(counts.max(initial=1))), -1, np.int64)
    # position of each caption among those of its row
    place = np.arange(len(pairs)) - (np.cumsum(counts) - counts)[pairs[:, 0]]
    captions[pairs[:, 0], place] = pairs[:, 1]
    return captions


class ShuffledBatches(Sampler):
    """Batches of item positions, from one seeded permutation in each epoch.

    With ``strata`` every batch holds the strata in equal parts: an epoch passes once through the largest stratum and repeats the others.
    Otherwise, where there are few image–gene pairs and many captions, a batch would hold hardly any negative of an image–gene pair.

    Parameters
    ----------
    n_items
        Number of items.
    batch_size
        Items of a batch on one rank.
    seed
        Seed of the permutations.
    world_size
        Number of ranks, over which every batch is split.
    strata
        Code of each item, shape (n_items,).
    keep_last
        Keep an incomplete last batch, in equal parts for the ranks, unless these are too small for a negative.

    Attributes
    ----------
    rank_of
        Function without arguments that returns the rank of this process, which is known only when the trainer runs.
    """

    def __init__(
        self,
        n_items: int,
        batch_size: int,
        *,
        seed: int,
        world_size: int = 1,
        strata: np.ndarray | None = None,
        keep_last: bool = False,
    ) -> None:
        self.strata = [np.arange(n_items)]
        if strata is not None:
            self.strata = [np.flatnonzero(strata == code) for code in np.unique(strata)]
            n_items = max(map(len, self.strata)) * len(self.strata)
        self.n_items, self.seed, self.world_size = n_items, seed, world_size
        self.rank_of: Callable[[], int] = int
        self.batch_size = max(1, min(batch_size, n_items // world_size))
        # ranks exchange their rows, and so need equally many
        of_rank = n_items % (self.batch_size * world_size) // world_size
        self.last = of_rank if keep_last and of_rank > 1 else 0
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation; the trainer calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return max(1, self.n_items // (self.batch_size * self.world_size)) + bool(self.last)

    def __iter__(self) -> Iterator[np.ndarray]:
        order = self._order()
        step = self.batch_size * self.world_size
        whole = len(self) - bool(self.last)
        for start in range(0, whole * step, step):
            # a contiguous part for each rank, so that each rank holds the strata in equal parts too
            first = start + self.rank_of() * self.batch_size
            yield order[first : first + self.batch_size]
        if self.last:
            first = whole * step + self.rank_of() * self.last
            yield order[first : first + self.last]

    def _order(self) -> np.ndarray:
        rng = np.random.default_rng([self.seed, self.epoch])
        longest = max(map(len, self.strata))
        shuffled = [
            np.concatenate([rng.permutation(part) for _ in range(-(-longest // len(part)))])[:longest]
            for part in self.strata
        ]
        # interleaved, so that any contiguous part holds the strata in equal parts
        return np.stack(shuffled, axis=1).ravel()


class WholeBatches(Sampler):
    """Batches of item positions that together hold every item once, for validation.

    The order is one seeded permutation, the same in every epoch, so that every batch holds items of all kinds. The sizes of the batches
    differ by one at most, because a contrastive loss depends on the number of negatives.

    Parameters
    ----------
    n_items
        Number of items.
    batch_size
        Largest number of items in a batch.
    seed
        Seed of the permutation.
    """

    def __init__(self, n_items: int, batch_size: int, *, seed: int) -> None:
        order = np.random.default_rng(seed).permutation(n_items)
        self.batches = np.array_split(order, max(1, -(-n_items // batch_size)))

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.batches)
