"""Training of scVI, scANVI and DRVI by scvi-tools: seeded, quiet, without files."""

from __future__ import annotations

import logging
import sys
import warnings
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from spatialwhisperer._messages import import_torch_stack
from spatialwhisperer._random import isolated_rng

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import scipy.sparse as sp

_BATCH, _LARGE_BATCH, _LARGE = 128, 512, 20_000
_UNLABELED = "-1"

DRVI_SINCE = "1.5"
"""First version of scvi-tools that has DRVI."""


def train(
    counts: sp.csr_matrix,
    batch: np.ndarray | None,
    labels: np.ndarray | None,
    parameters: Mapping[str, Any],
    max_epochs: int | None,
    device: str | None,
    random_state: int,
    *,
    drvi: bool = False,
) -> tuple[Any, list[int]]:
    """Train scVI, then scANVI where there are labels, on a temporary AnnData. The random state of the process is left alone.

    Parameters
    ----------
    counts
        Raw counts, shape (n, genes), no row empty.
    batch
        Batch of each row, or ``None``.
    labels
        Integer code of each row's label, -1 where it has none, or ``None`` for scVI alone.
    parameters
        Of the network: n_latent, n_hidden, n_layers, dropout_rate.
    max_epochs, device, random_state
        As for `SCVIEncoder.fit`.
    drvi
        Train DRVI instead of scVI.

    Returns
    -------
    The model of scvi-tools in evaluation mode, and the epochs of each stage.

    Raises
    ------
    ImportError
        If the installed scvi-tools has no DRVI.
    """
    import anndata as ad
    import pandas as pd

    from spatialwhisperer._settings import settings

    accelerator, devices = _lightning_device(settings.resolve_device(device))
    scvi = import_torch_stack("scvi")
    kind: Any = _drvi(scvi) if drvi else scvi.model.SCVI
    n = counts.shape[0]
    obs = pd.DataFrame({"batch": np.zeros(n, int) if batch is None else np.unique(batch, return_inverse=True)[1]})
    obs["batch"] = obs["batch"].astype(str).astype("category")
    obs.index = obs.index.astype(str)
    parts = [n]
    if labels is not None:
        # codes, not names: no label of the data can then be taken for the missing one
        obs["label"] = pd.Categorical(labels.astype(str))
        labeled = int((labels >= 0).sum())
        parts += [labeled, n - labeled]
    options = {
        "accelerator": accelerator,
        "devices": devices,
        # every row trains, in an order that only the seeded sampler decides: a random split would take its seed from elsewhere
        "train_size": 1.0,
        "shuffle_set_split": False,
        "batch_size": minibatch_rows(parts),
        "enable_progress_bar": settings.progress and sys.stderr.isatty(),
        "logger": False,
        "enable_checkpointing": False,
    }
    adata = ad.AnnData(counts.copy(), obs=obs)
    with _quiet(), isolated_rng(random_state):
        kind.setup_anndata(adata, batch_key="batch")
        model = kind(adata, encode_covariates=False, **parameters)
        model.train(max_epochs=max_epochs, **options)
        done = [int(model.trainer.current_epoch)]
        if labels is not None:
            model = scvi.model.SCANVI.from_scvi_model(model, unlabeled_category=_UNLABELED, labels_key="label")
            epochs = None if max_epochs is None else min(10, max(2, round(max_epochs / 3)))
            model.train(max_epochs=epochs, **options)
            done.append(int(model.trainer.current_epoch))
    model.module.eval()
    return model, done


def _drvi(scvi: Any) -> Any:
    found = getattr(import_module("scvi.external"), "DRVI", None)
    if found is None:
        raise ImportError(
            f"The encoder 'drvi' needs scvi-tools {DRVI_SINCE} or later; {scvi.__version__} is installed. "
            f"pip install 'scvi-tools>={DRVI_SINCE}', or take encoder='scvi'."
        )
    return found


def minibatch_rows(parts: Sequence[int]) -> int:
    """Rows per minibatch, so that none is left with one or two rows, where batch normalisation fails or is noise."""
    size = _BATCH if parts[0] < _LARGE else _LARGE_BATCH
    for candidate in range(size, size // 2, -1):
        if not any(0 < part % candidate < 3 for part in parts):
            return candidate
    return size


def _lightning_device(device: str) -> tuple[Literal["cpu", "gpu", "mps"], int | list[int]]:
    kind, _, index = device.partition(":")
    if kind == "cuda":
        return "gpu", [int(index or 0)]
    if kind in ("cpu", "mps"):
        return kind, 1  # type: ignore[return-value]
    raise ValueError(f"scvi-tools trains on cpu, cuda or mps here, not on device={device!r}.")


@contextmanager
def _quiet() -> Iterator[None]:
    """Switch off Lightning's messages about hardware and data loaders."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning", "scvi")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            for module in (r"lightning\.", r"torch\.", r"scvi\."):
                warnings.filterwarnings("ignore", module=module)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
