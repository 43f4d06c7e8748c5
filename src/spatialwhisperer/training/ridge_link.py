"""The closed-form image link: ridge regression from image features onto the fixed embedding of the bridge modality."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import torch

from spatialwhisperer.models.configuration.model import HeadConfig
from spatialwhisperer.networks.heads import fixed_linear_head
from spatialwhisperer.statistics.grouped_ridge import grouped_ridge
from spatialwhisperer.statistics.left_out import left_out_units
from spatialwhisperer.training.fitted import Fitted, one_step

if TYPE_CHECKING:
    from spatialwhisperer.models.joint_space import JointSpace
    from spatialwhisperer.training.batches import Items


def ridge_link(model: JointSpace, items: Items, *, bridge: str, validation: Items | None = None) -> Fitted:
    """Replace the image head by the ridge regression onto the embedding of the bridge modality.

    The map has no intercept. Image features are standardised, so that an intercept would be the mean embedding, which is the same for
    all tiles.

    Parameters
    ----------
    model
        Model whose other heads are trained.
    items
        Training items.
    bridge
        The modality that images are linked to.
    validation
        Held-out items, on which the error is measured too; ``None`` measures none.

    Returns
    -------
    History with the mean squared error of the link, and its penalty.
    """

    def read(items: Items) -> tuple[np.ndarray, np.ndarray]:
        pairs = linked_pairs(items, bridge)
        x = np.asarray(items.inputs["image"], dtype=np.float64)[pairs[0]]
        return x, _embedding(model, bridge, items.inputs[bridge][pairs[1]])

    x, y = read(items)
    weight, alpha = solve_ridge(x, y, pair_units(items, bridge))
    model.install_head("image", fixed_linear_head(weight), HeadConfig("linear", x.shape[1]))
    name, held_out = f"image-{bridge}", {}
    if measurable(validation, "image", bridge):
        held_out[name] = link_error(*read(validation), weight, y.mean(axis=0))
    return Fitted(one_step({name: link_error(x, y, weight, y.mean(axis=0))}, held_out), {"ridge_alpha": alpha})


def link_error(x: np.ndarray, y: np.ndarray, weight: np.ndarray, mean: np.ndarray) -> float:
    """Mean squared error of a link on pairs of image features (n, d) and targets (n, u), of which the training mean is known (u,)."""
    return float(np.mean((x @ weight.T - (y - mean)) ** 2))


def measurable(validation: Items | None, a: str, b: str) -> TypeGuard[Items]:
    """Whether held-out items have at least two pairs of two modalities, as a contrastive loss needs."""
    return validation is not None and validation.count(a, b) > 1


def linked_pairs(items: Items, bridge: str) -> np.ndarray:
    """Positions of the inputs of image and bridge modality that form a pair, each pair once, shape (2, m)."""
    return linked_items(items, bridge)[0]


def pair_units(items: Items, bridge: str) -> np.ndarray:
    """Unit of each of these pairs, shape (m,): the pairs of a unit are left out together when the penalty is chosen.

    Units are patients, where there are one or two patients sections, and where there is one section blocks of it.
    """
    first = linked_items(items, bridge)[1]
    section = xy = None
    if items.places is not None:
        section, xy = (x[items.row[first]] for x in items.places)
    return left_out_units(items.group[first], section, xy)


def linked_items(items: Items, bridge: str) -> tuple[np.ndarray, np.ndarray]:
    """The pairs, shape (2, m), and the first item of each, shape (m,)."""
    image, other = items.index["image"], items.index[bridge]
    both = np.flatnonzero((image >= 0) & (other >= 0))
    pairs, first = np.unique(np.stack([image[both], other[both]]), axis=1, return_index=True)
    return pairs, both[first]


def solve_ridge(x: np.ndarray, y: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights (u, d) from standardised features (n, d) to centred targets (n, u), and the penalty as it is added to XᵀX.

    The penalty is the one that predicts left-out units (n,) best. It is chosen relative to the number of rows.
    """
    fit = grouped_ridge(x, y, units)
    return np.ascontiguousarray(fit.weight.T), fit.alpha


@torch.inference_mode()
def _embedding(model: JointSpace, modality: str, inputs: Any, batch_size: int = 4096) -> np.ndarray:
    """Unit embeddings of standardised features, or of raw inputs where the encoder was trained; float64 (n, u)."""
    parts = []
    for start in range(0, inputs.shape[0], batch_size):
        part = inputs[start : start + batch_size]
        x = model.encoders[modality].collate(part) if modality in model.towers else torch.as_tensor(part)
        parts.append(model(modality, x).double().numpy())
    return np.concatenate(parts)
