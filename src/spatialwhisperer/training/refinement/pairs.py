"""The image–gene pairs that a refinement learns from, as the image head and the fixed side see them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from spatialwhisperer.networks.context import ContextModule, apply_context
from spatialwhisperer.retrieval.neighbours import section_neighbours
from spatialwhisperer.statistics.left_out import left_out_units
from spatialwhisperer.training.ridge_link import linked_items

if TYPE_CHECKING:
    from spatialwhisperer.models.joint_space import JointSpace
    from spatialwhisperer.training.batches import Items


@dataclass(frozen=True)
class Pairs:
    """Image–gene pairs.

    Attributes
    ----------
    single
        Standardised image features, on which the closed form is solved, shape (n, d).
    seen
        The input of the image head: the same, or these and the mean of the neighbours, float32 (n, D).
    target
        Standardised features of the bridge modality, shape (n, p).
    group, section
        Patient and section of each pair, shape (n,).
    xy
        Positions, shape (n, 2), or ``None``.
    """

    single: np.ndarray
    seen: np.ndarray
    target: np.ndarray
    group: np.ndarray
    section: np.ndarray
    xy: np.ndarray | None

    def __len__(self) -> int:
        return len(self.target)

    def at(self, rows: np.ndarray) -> Pairs:
        """Some of the pairs, by their positions."""
        xy = None if self.xy is None else self.xy[rows]
        parts = {name: getattr(self, name)[rows] for name in ("single", "seen", "target", "group", "section")}
        return replace(self, xy=xy, **parts)

    def units(self) -> np.ndarray:
        """What is left out together when a ridge penalty is chosen; see :func:`~spatialwhisperer.statistics.left_out.left_out_units`."""
        return left_out_units(self.group, self.section, self.xy)


def read_pairs(model: JointSpace, items: Items, *, bridge: str) -> Pairs | None:
    """The pairs of the training items; ``None`` where the image head needs neighbours and the items have no positions.

    Parameters
    ----------
    model
        Model with an image head in closed form.
    items
        Training items.
    bridge
        The modality that images are linked to.
    """
    pairs, first = linked_items(items, bridge)
    single = np.asarray(items.inputs["image"], dtype=np.float64)
    seen = single.astype(np.float32)
    if "image" in model.contexts:
        if items.places is None:
            return None
        seen = _with_neighbours(model, items, seen)
    target = np.asarray(items.inputs[bridge], dtype=np.float64)[pairs[1]]
    group = np.asarray(items.group[first]).astype(str)
    section, xy = group, None
    if items.places is not None:
        section, xy = (x[items.row[first]] for x in items.places)
    return Pairs(single[pairs[0]], seen[pairs[0]], target, group, np.asarray(section).astype(str), xy)


def _with_neighbours(model: JointSpace, items: Items, x: np.ndarray) -> np.ndarray:
    """What the context of the image returns for each image of the items; other images are zero and nobody's neighbour."""
    places = items.places
    if places is None:
        raise ValueError("Neighbours need positions.")
    with_image = np.flatnonzero(items.index["image"] >= 0)
    rows, first = np.unique(items.index["image"][with_image], return_index=True)
    section, xy = (part[items.row[with_image[first]]] for part in places)
    context = model.contexts["image"]
    if not isinstance(context, ContextModule):
        raise TypeError(f"The context of the image is {type(context).__name__}.")
    near = section_neighbours(xy, section, context.n_neighbours)
    with torch.inference_mode():
        found = apply_context(context, torch.from_numpy(x[rows]), neighbourhood=near).float().numpy()
    out = np.zeros((len(x), found.shape[1]), np.float32)
    out[rows] = found
    return out
