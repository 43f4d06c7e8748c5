"""Rows of counts through a network, a batch at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    import torch


def network_rows(
    network: torch.nn.Module,
    counts: sp.csr_matrix,
    present: np.ndarray | None,
    *,
    dim: int,
    batch_size: int,
    device: str | None,
) -> np.ndarray:
    """What a network computes of counts, float32 (n, dim).

    Parameters
    ----------
    network
        The network; it is moved to the device and set to evaluation mode.
    counts
        Counts in the genes of the network, CSR (n, g).
    present
        Which genes were measured, shape (g,); the others count as zero. ``None``: all were.
    dim
        Columns of the result.
    batch_size
        Rows in one pass.
    device
        Torch device; ``None`` takes that of the settings.
    """
    import torch

    from spatialwhisperer._settings import settings

    device = settings.resolve_device(device)
    if present is not None:
        counts = counts @ sp.diags_array(present.astype(np.float32), format="csr")
    network = network.eval().to(device)
    out = np.empty((counts.shape[0], dim), np.float32)
    with torch.inference_mode():
        for start in range(0, counts.shape[0], batch_size):
            part = torch.from_numpy(counts[start : start + batch_size].toarray()).to(device)
            out[start : start + batch_size] = network(part).cpu().numpy()
    return out
