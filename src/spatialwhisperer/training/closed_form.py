"""A joint space without training: the gene features themselves, with linear maps of captions and images into them.

``M = argmin`` over linear maps of text features onto caption directions, where the direction of a caption is the ridge
regression of its presence on gene features (the bilinear model of Romera-Paredes & Torr, ICML 2015, with a free text side).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from spatialwhisperer.networks.context import make_context
from spatialwhisperer.networks.heads import make_head
from spatialwhisperer.training.ridge_link import linked_pairs, solve_ridge

if TYPE_CHECKING:
    import pandas as pd

    from spatialwhisperer.models.whisperer import Whisperer
    from spatialwhisperer.training.batches import Items

GENE_PENALTY = 100.0
"""Of the caption directions, on standardised features of some thousand rows: a small one."""

TEXT_PENALTY = 0.1
"""Of the text map, in units of squared text features of length one: how far a caption lends its direction to similar words."""

NEIGHBOURHOOD = {"n_neighbours": 8, "bandwidth": 1.0}
"""Rows whose mean takes part in an image embedding; weights are exp(-r²/2), with r in units of the spacing."""


def fit_closed_form(model: Whisperer, items: Items, *, neighbour_share: float = 0.0) -> pd.DataFrame:
    """Replace all heads by closed-form solutions; returns one history row for each link, with its error.

    The joint space holds the standardised gene features and one constant coordinate. Rows are scaled to unit length when
    they are compared, and thanks to the constant a long row still scores higher than a short one: the length of a predicted
    row says how sure the prediction is.

    Parameters
    ----------
    model
        With frozen gene, text and image features.
    items
        Training items.
    neighbour_share
        Weight of the mean of the nearest rows in an image embedding. The regression itself reads single rows.
    """
    import pandas as pd

    gene = np.asarray(items.inputs["gene"], dtype=np.float64)
    text = np.asarray(items.inputs["text"], dtype=np.float64)
    rows, holds, group = captions_of_genes(items)
    directions = caption_directions(gene[rows], holds, group)
    text_weight = text_map(text, directions)
    image_rows, gene_rows = linked_pairs(items)
    x, y = np.asarray(items.inputs["image"], dtype=np.float64)[image_rows], gene[gene_rows]
    image_weight, alpha = solve_ridge(x, y)

    constant = math.sqrt(gene.shape[1])  # the length of a typical standardised row
    model.config["projection_dim"] = gene.shape[1] + 1
    _set_head(model, "gene", np.eye(gene.shape[1]), constant)
    _set_head(model, "text", text_weight, 0.0)
    set_image_link(model, image_weight, neighbour_share=neighbour_share)
    # logits are then in standard deviations of the scores of training rows
    length = float(np.median(np.linalg.norm(text @ text_weight.T, axis=1)))
    with torch.no_grad():
        model.log_scale.fill_(math.log(max(constant * length, 1.0)))
    model.config["ridge_alpha"] = alpha
    model.config["closed_form"] = {"gene_penalty": GENE_PENALTY, "text_penalty": TEXT_PENALTY}
    errors = {
        "gene-text": np.mean((text @ text_weight.T - directions.T) ** 2),
        "image-gene": np.mean((x @ image_weight.T - (y - y.mean(axis=0))) ** 2),
    }
    return pd.DataFrame([{"phase": p, "epoch": 0, "step": 0, "loss": float(e)} for p, e in errors.items()])


def captions_of_genes(items: Items) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gene rows that hold a caption, which captions they hold, bool (n, c), and their groups (n,)."""
    gene, text = items.index["gene"], items.index["text"]
    both = (gene >= 0) & (text >= 0)
    rows, first, at = np.unique(gene[both], return_index=True, return_inverse=True)
    holds = np.zeros((len(rows), len(items.inputs["text"])), bool)
    holds[at, text[both]] = True
    return rows, holds, items.group[both][first]


def caption_directions(gene: np.ndarray, holds: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Direction of each caption in the space of gene features, shape (d, c); scores along it have unit variance in training.

    Ridge regression of presence on features, both centred within groups, so that what sets patients or technologies apart is
    not taken for the meaning of a caption that one of them has more of. A caption that is true of all rows of some groups
    and of none of the others has nothing but that difference; it is centred over all rows. A caption without rows gets zero.

    Parameters
    ----------
    gene
        Standardised features, shape (n, d).
    holds
        Which caption is true of which row, shape (n, c).
    group
        Group of each row, shape (n,).
    """
    codes = np.unique(group.astype(str), return_inverse=True)[1]
    present = holds.astype(np.float64)
    centred = _centred(present, codes)
    between = np.square(centred).sum(axis=0) < 1e-9
    directions = np.zeros((gene.shape[1], holds.shape[1]))
    for chosen, by in ((~between, codes), (between, np.zeros_like(codes))):
        if chosen.any():
            directions[:, chosen] = _ridge(_centred(gene, by), _centred(present[:, chosen], by))
    return directions


def text_map(text: np.ndarray, directions: np.ndarray, penalty: float = TEXT_PENALTY) -> np.ndarray:
    """Linear map (d, t) that takes text features (c, t) of the captions near to their directions (d, c)."""
    known = np.abs(directions).sum(axis=0) > 0
    t, b = text[known], directions[:, known]
    return b @ np.linalg.solve(t @ t.T + penalty * np.eye(len(t)), t)


def _ridge(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    weight = np.linalg.solve(x.T @ x + GENE_PENALTY * np.eye(x.shape[1]), x.T @ y)
    spread = (x @ weight).std(axis=0)
    return weight / np.where(spread > 1e-9, spread, np.inf)


def _centred(x: np.ndarray, codes: np.ndarray) -> np.ndarray:
    sums = np.zeros((codes.max(initial=0) + 1, x.shape[1]))
    np.add.at(sums, codes, x)
    return x - (sums / np.bincount(codes, minlength=len(sums))[:, None])[codes]


def set_image_link(model: Whisperer, weight: np.ndarray, *, neighbour_share: float = 0.0) -> None:
    """Put the image head of a model in closed form in place.

    Parameters
    ----------
    model
        Its gene head is in place.
    weight
        From standardised image features to standardised gene features, shape (d, p).
    neighbour_share
        Weight of the mean of the nearest rows; both go through the same weights.
    """
    dim = weight.shape[1]
    if "image" in model.contexts:
        model.contexts.pop("image")
    contexts = {m: c for m, c in model.config["contexts"].items() if m != "image"}
    if neighbour_share:
        model.contexts["image"] = make_context("section_mean", dim, **NEIGHBOURHOOD)
        contexts["image"] = {"kind": "section_mean", "in_dim": dim, "options": dict(NEIGHBOURHOOD)}
        weight = np.concatenate([(1 - neighbour_share) * weight, neighbour_share * weight], axis=1)
    model.config["contexts"] = contexts
    _set_head(model, "image", weight, float(model.heads["gene"].bias[-1].detach()))


def _set_head(model: Whisperer, modality: str, weight: np.ndarray, constant: float) -> None:
    """A linear head into a space with one more coordinate, which is constant."""
    head = make_head("linear", weight.shape[1], len(weight) + 1)
    with torch.no_grad():
        head.weight.zero_()
        head.weight[:-1].copy_(torch.from_numpy(np.ascontiguousarray(weight)))
        head.bias.zero_()
        head.bias[-1] = constant
    model.heads[modality] = head.eval()
    model.config["heads"][modality] = {"kind": "linear", "in_dim": int(weight.shape[1])}
