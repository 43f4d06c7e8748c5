"""A joint space in closed form: the features of the bridge modality, with linear maps of captions and images into them.

The direction of a caption is the ridge regression of its presence on the features of the bridge modality. A second ridge regression
(:mod:`spatialwhisperer.training.text.text_map`) maps text features onto these directions.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from spatialwhisperer._frozen import FrozenMapping
from spatialwhisperer.models.configuration.model import ContextConfig, HeadConfig
from spatialwhisperer.networks.heads import fixed_linear_head, fixed_signed_head
from spatialwhisperer.training.fitted import Fitted, one_step
from spatialwhisperer.training.ridge_link import link_error, linked_pairs, measurable, pair_units, solve_ridge
from spatialwhisperer.training.text.text_map import TEXT_PENALTY, fit_text_map

if TYPE_CHECKING:
    from spatialwhisperer.models.joint_space import JointSpace
    from spatialwhisperer.training.batches import Items
    from spatialwhisperer.training.text.text_map import TextMap
    from spatialwhisperer.training.text.wordings import Wordings

CAPTION_PENALTY = 100.0
"""Ridge penalty of the caption directions; it is small, because the features are standardised and there are thousands of rows.

It is not chosen from data, and does not grow with the number of rows: it stands for what is assumed before any row is seen, which more
rows outweigh. The penalty of the image link is chosen, and relative to the number of rows.
"""

NEIGHBOURHOOD = {"n_neighbours": 8, "bandwidth": 1.0}
"""Neighbours whose mean enters an image embedding; their weights are exp(-r²/2), with r in units of the spacing."""


def fit_closed_form(
    model: JointSpace, items: Items, *, bridge: str, neighbour_weight: float = 0.0, validation: Items | None = None
) -> Fitted:
    """Replace all heads by closed-form solutions.

    The joint space holds the standardised features of the bridge modality and one constant coordinate. The length of a predicted row
    reflects the confidence of the prediction. Rows are scaled to unit length when they are compared; because of the constant, a long row
    still gets higher scores than a short one in the same direction.

    Parameters
    ----------
    model
        Model with frozen features of bridge modality, text and image.
    items
        Training items.
    bridge
        The modality that images and texts are linked to.
    neighbour_weight
        Weight of the mean of the nearest rows in an image embedding. The regression is fitted on single rows.
    validation
        Held-out items, on which the errors are measured too; ``None`` measures none.

    Returns
    -------
    History with one row for each link and its mean squared error, and the penalties. The error of the text link is that of the mapped
    captions, as estimates of the directions that the rows give them.
    """
    features = np.asarray(items.inputs[bridge], dtype=np.float64)
    text = np.asarray(items.inputs["text"], dtype=np.float64)
    rows, holds, group = captioned_rows(items, bridge)
    directions = text_directions(features[rows], holds, group, len(text), items.wordings)
    mapped = fit_text_map(text, directions, items.wordings)
    x, y = _linked(items, bridge)
    image_weight, alpha = solve_ridge(x, y, pair_units(items, bridge))

    constant = length_of_typical_row(features.shape[1])
    dim = features.shape[1] + 1
    _install(model, bridge, np.eye(features.shape[1]), constant, projection_dim=dim)
    _install_text(model, mapped)
    install_image_link(model, image_weight, neighbour_weight=neighbour_weight)
    # logits are then in standard deviations of the scores of training rows; a caption of held-out rows alone has no part
    stated = np.flatnonzero(holds.any(axis=0))
    text_error = np.nan
    if len(stated):
        found = mapped(text[stated])
        length = float(np.median(np.linalg.norm(found, axis=1)))
        with torch.no_grad():
            model.log_scale.fill_(math.log(max(constant * length, 1.0)))
        text_error = float(np.mean((found - directions[:, stated].T) ** 2))
    names, mean = (f"{bridge}-text", f"image-{bridge}"), y.mean(axis=0)
    errors = (text_error, link_error(x, y, image_weight, mean))
    held_out = {}
    if measurable(validation, bridge, "text"):
        held_out[names[0]] = _text_error(validation, bridge, mapped)
    if measurable(validation, "image", bridge):
        held_out[names[1]] = link_error(*_linked(validation, bridge), image_weight, mean)
    penalties = {"ridge_alpha": alpha, "caption_penalty": CAPTION_PENALTY, "text_penalty": TEXT_PENALTY}
    if mapped.penalty is not None:
        penalties["wording_penalty"] = mapped.penalty
    return Fitted(one_step(dict(zip(names, errors, strict=True)), held_out), penalties)


def _linked(items: Items, bridge: str) -> tuple[np.ndarray, np.ndarray]:
    """Features of the pairs of image (n, d) and bridge modality (n, p)."""
    image_rows, bridge_rows = linked_pairs(items, bridge)
    x, y = (np.asarray(items.inputs[m], dtype=np.float64) for m in ("image", bridge))
    return x[image_rows], y[bridge_rows]


def _text_error(held_out: Items, bridge: str, mapped: TextMap) -> float:
    """Mean squared difference of the mapped captions from the directions of held-out rows; NaN where these give none a direction."""
    rows, holds, group = captioned_rows(held_out, bridge)
    features = np.asarray(held_out.inputs[bridge], dtype=np.float64)[rows]
    directions = caption_directions(features, holds, group).T
    known = np.abs(directions).sum(axis=1) > 0
    text = np.asarray(held_out.inputs["text"], dtype=np.float64)[: len(directions)]
    return float(np.mean((mapped(text[known]) - directions[known]) ** 2)) if known.any() else math.nan


def captioned_rows(items: Items, bridge: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the bridge modality that have a caption (n,), which captions they have, Boolean (n, c), and their groups (n,)."""
    other, text = items.index[bridge], items.index["text"]
    both = (other >= 0) & (text >= 0)
    rows, first, at = np.unique(other[both], return_index=True, return_inverse=True)
    n_captions = len(items.inputs["text"]) if items.wordings is None else items.wordings.n_captions
    holds = np.zeros((len(rows), n_captions), bool)
    holds[at, text[both]] = True
    return rows, holds, items.group[both][first]


def caption_directions(features: np.ndarray, holds: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Direction of each caption in the space of the features, scaled so that training scores along it have unit variance.

    This is the ridge regression of the presence of a caption on the features, both centred within groups. A caption that is more frequent
    in one group therefore does not get the difference between patients or technologies as its direction. A caption that is true of all
    rows of some groups and of no row of the others differs only between groups; it is centred over all rows. A caption without rows gets
    zero.

    Parameters
    ----------
    features
        Standardised, shape (n, d).
    holds
        Which caption is true of which row, shape (n, c).
    group
        Group of each row, shape (n,).

    Returns
    -------
    Shape (d, c).
    """
    directions = np.zeros((features.shape[1], holds.shape[1]))
    if not len(features):
        return directions
    codes = np.unique(group.astype(str), return_inverse=True)[1]
    present = holds.astype(np.float64)
    centred = _centred(present, codes)
    between = np.square(centred).sum(axis=0) < 1e-9
    for chosen, by in ((~between, codes), (between, np.zeros_like(codes))):
        if chosen.any():
            directions[:, chosen] = _ridge(_centred(features, by), _centred(present[:, chosen], by))
    return directions


def text_directions(
    features: np.ndarray, holds: np.ndarray, group: np.ndarray, n_texts: int, wordings: Wordings | None
) -> np.ndarray:
    """Direction of each text, shape (d, n_texts): that of the rows of which it is true.

    These are the rows with one of the captions that it states, or without all of those that it negates. With presences centred within
    groups, the direction of the rows without captions is exactly opposite to that of the rows with them.

    Parameters
    ----------
    features, holds, group
        As `caption_directions` takes them.
    n_texts
        Number of texts, the captions first.
    wordings
        Which text says what of which caption; ``None`` where there are captions alone.
    """
    if wordings is None:
        return caption_directions(features, holds, group)
    states, negated = wordings.states(n_texts)
    distinct, which = np.unique(states, axis=0, return_inverse=True)
    present = np.stack([holds[:, captions].any(axis=1) for captions in distinct], axis=1)
    found = caption_directions(features, present, group)[:, which.ravel()]
    return np.where(negated, -1, 1) * found


def _ridge(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    weight = np.linalg.solve(x.T @ x + CAPTION_PENALTY * np.eye(x.shape[1]), x.T @ y)
    std = (x @ weight).std(axis=0)
    return weight / np.where(std > 1e-9, std, np.inf)


def _centred(x: np.ndarray, codes: np.ndarray) -> np.ndarray:
    sums = np.zeros((codes.max(initial=0) + 1, x.shape[1]))
    np.add.at(sums, codes, x)
    return x - (sums / np.bincount(codes, minlength=len(sums))[:, None])[codes]


def install_image_link(model: JointSpace, weight: np.ndarray, *, neighbour_weight: float = 0.0) -> None:
    """Install the image head of a model in closed form.

    Parameters
    ----------
    model
        With a closed-form head of its bridge modality in place.
    weight
        From standardised image features to standardised features of the bridge modality, shape (d, p).
    neighbour_weight
        Weight of the mean of the nearest rows, which is mapped by the same weights.
    """
    context = None
    if neighbour_weight:
        context = ContextConfig("section_mean", FrozenMapping(NEIGHBOURHOOD))
    weight = neighbour_columns(weight, neighbour_weight)
    _install(model, "image", weight, length_of_typical_row(len(weight)), context=context)


def _install_text(model: JointSpace, mapped: TextMap) -> None:
    if mapped.sign is None:
        _install(model, "text", mapped.weight, 0.0)
        return
    head = fixed_signed_head(mapped.weight, mapped.sign.weight, mapped.sign.bias, n_zeros=1)
    model.install_head("text", head, HeadConfig("signed_linear", int(mapped.weight.shape[1])))


def neighbour_columns(weight: np.ndarray, neighbour_weight: float) -> np.ndarray:
    """Linear map (d, 2p) of a row and the mean of its neighbours: the weighted mean of what the map (d, p) of single rows returns.

    Without a weight of the neighbours it is the map of single rows.
    """
    if not neighbour_weight:
        return weight
    return np.concatenate([(1 - neighbour_weight) * weight, neighbour_weight * weight], axis=1)


def length_of_typical_row(dim: int) -> float:
    """Length of a typical standardised row, which is the constant coordinate of the joint space."""
    return math.sqrt(dim)


def _install(
    model: JointSpace,
    modality: str,
    weight: np.ndarray,
    constant: float,
    *,
    context: ContextConfig | None = None,
    projection_dim: int | None = None,
) -> None:
    """Install a linear head into a space with one more coordinate, which is constant."""
    model.install_head(
        modality,
        fixed_linear_head(weight, constant),
        HeadConfig("linear", int(weight.shape[1])),
        context=context,
        projection_dim=projection_dim,
    )
