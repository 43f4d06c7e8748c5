"""The closed-form image link: ridge regression from image features onto the fixed gene embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from spatialwhisperer.networks.heads import make_head

if TYPE_CHECKING:
    import pandas as pd

    from spatialwhisperer.models.whisperer import Whisperer
    from spatialwhisperer.training.batches import Items

ALPHAS = tuple(10.0**k for k in np.arange(1, 5.1, 0.5))
"""Penalties tried by leave-one-out cross-validation."""


def ridge_link(model: Whisperer, items: Items) -> pd.DataFrame:
    """Replace the image head by the ridge solution; returns one history row with the penalty and the error.

    The map has no intercept: image features are standardised, so that the mean gene embedding, which tells nothing about
    a tile, does not enter the scores.
    """
    import pandas as pd

    pairs = linked_pairs(items)
    x = np.asarray(items.inputs["image"], dtype=np.float64)[pairs[0]]
    y = _gene_embedding(model, items.inputs["gene"][pairs[1]])
    weight, alpha = solve_ridge(x, y)
    head = make_head("linear", x.shape[1], y.shape[1])
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.zero_()
    model.heads["image"] = head.eval()
    model.config["heads"]["image"] = {"kind": "linear", "in_dim": int(x.shape[1])}
    model.config["ridge_alpha"] = alpha
    error = float(np.mean((x @ weight.T - (y - y.mean(axis=0))) ** 2))
    return pd.DataFrame([{"phase": "image-gene", "epoch": 0, "step": 0, "loss": error}])


def linked_pairs(items: Items) -> np.ndarray:
    """Positions of image and gene inputs that belong together, each pair once, shape (2, m)."""
    image, gene = items.index["image"], items.index["gene"]
    both = (image >= 0) & (gene >= 0)
    return np.unique(np.stack([image[both], gene[both]]), axis=1)


def solve_ridge(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights (u, d) from standardised features (n, d) to centred targets (n, u), and the penalty chosen."""
    from sklearn.linear_model import RidgeCV

    fit = RidgeCV(alphas=ALPHAS).fit(x, y - y.mean(axis=0))
    return fit.coef_, float(fit.alpha_)


@torch.inference_mode()
def _gene_embedding(model: Whisperer, inputs: Any, batch_size: int = 4096) -> np.ndarray:
    """Unit embeddings of standardised features, or of counts where the gene tower was trained; float64 (n, u)."""
    parts = []
    for start in range(0, inputs.shape[0], batch_size):
        part = inputs[start : start + batch_size]
        x = model.towers["gene"].collate(part) if "gene" in model.towers else torch.as_tensor(part)
        parts.append(model("gene", x).double().numpy())
    return np.concatenate(parts)
