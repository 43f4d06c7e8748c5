"""Nuclei by InstanSeg, a network that is trained on brightfield images (Goldsborough et al. 2024, arXiv:2408.15954)."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._messages import require
from spatialwhisperer._settings import settings

if TYPE_CHECKING:
    from spatialwhisperer.pp._nuclei.canvas import Canvas
    from spatialwhisperer.pp._nuclei.regions import Window

MODEL = "brightfield_nuclei"
_DOWNLOADS = "https://github.com/instanseg/instanseg/releases"
_SEAM_UM = 2.0
_TISSUE = 0.15
_EPSILON = 1e-3


@dataclass(frozen=True)
class InstanSegFinder:
    """Nuclei by a network of InstanSeg.

    Colours are normalised by the darkest and brightest thousandth of each channel of the whole image, and not of each part, so that a
    part that is nearly empty looks like the others.

    Attributes
    ----------
    network
        ``instanseg.InstanSeg``.
    min_area_um2, max_area_um2
        Smallest and largest area of a nucleus.
    lock
        One window at a time: the network uses all cores itself.
    """

    network: Any
    min_area_um2: float
    max_area_um2: float
    lock: Any
    repeats = True

    def __call__(self, canvas: Canvas, sums: np.ndarray, window: Window) -> np.ndarray:
        """Find the nuclei of a window."""
        if not (window.density > _TISSUE).any():
            return np.zeros(window.density.shape, np.int32)
        low, high = canvas.range
        pixels = (sums / np.float32(canvas.n_pixels) - low) / np.maximum(high - low, _EPSILON)
        with self.lock:
            found = self.network.eval_small_image(
                pixels.astype(np.float32), pixel_size=window.mpp, normalise=False, return_image_tensor=False
            )
        return self._kept(found[0, 0].cpu().numpy().astype(np.int64), window)

    def _kept(self, labels: np.ndarray, window: Window) -> np.ndarray:
        """Those of the right size with a centroid in the core or just beyond it, numbered anew."""
        _, numbers = np.unique(np.append(0, labels.ravel()), return_inverse=True)
        labels = numbers[1:].reshape(labels.shape).astype(np.int32)
        y, x = np.indices(labels.shape)
        n = np.bincount(labels.ravel())
        row, column = (np.bincount(labels.ravel(), weights=axis.ravel()) / n + 0.5 for axis in (y, x))
        area, seam = n * window.mpp**2, _SEAM_UM / window.mpp
        top, bottom, left, right = window.core
        kept = (area >= self.min_area_um2) & (area <= self.max_area_um2)
        kept &= (row >= top - seam) & (row < bottom + seam) & (column >= left - seam) & (column < right + seam)
        kept[0] = False
        return np.where(kept, np.cumsum(kept), 0).astype(np.int32)[labels]


def open_instanseg(
    min_area_um2: float, max_area_um2: float, *, weights: str | os.PathLike[str] | None, device: str | None
) -> InstanSegFinder:
    """Open a network.

    Parameters
    ----------
    min_area_um2, max_area_um2
        Smallest and largest area of a nucleus.
    weights
        TorchScript file of a model; ``None`` downloads the one for nuclei in brightfield images.
    device
        Torch device; ``None`` takes ``settings.device``.

    Raises
    ------
    ImportError
        If InstanSeg is not installed.
    FileNotFoundError
        If there is no such file, or it cannot be downloaded.
    ValueError
        If the file is not a model of InstanSeg.
    """
    instanseg = require("instanseg", extra="nuclei")
    model = _downloaded(instanseg) if weights is None else _of_file(weights)
    network = instanseg.InstanSeg(model, device=settings.resolve_device(device), verbosity=0)
    return InstanSegFinder(network, min_area_um2, max_area_um2, Lock())


def _of_file(weights: str | os.PathLike[str]) -> Any:
    import torch

    if not os.path.isfile(weights):
        raise FileNotFoundError(f"There is no file {os.fspath(weights)!r}. A model of InstanSeg is one: {_DOWNLOADS}.")
    try:
        with warnings.catch_warnings():
            # torch will drop TorchScript, and InstanSeg publishes nothing else
            warnings.simplefilter("ignore", FutureWarning)
            model = torch.jit.load(os.fspath(weights), map_location="cpu")
    except RuntimeError as error:
        raise ValueError(f"{os.fspath(weights)!r} is not a TorchScript file: {str(error).splitlines()[0]}") from error
    missing = [name for name in ("pixel_size", "cells_and_nuclei") if not hasattr(model, name)]
    if missing:
        raise ValueError(
            f"{os.fspath(weights)!r} is not a model of InstanSeg: it lacks {' and '.join(missing)}. Get one from {_DOWNLOADS}."
        )
    return model


def _downloaded(instanseg: Any) -> Any:
    """The released model, from the cache of InstanSeg or by a download."""
    folder = os.environ.get("INSTANSEG_BIOIMAGEIO_PATH") or Path(instanseg.__file__).parent / "bioimageio_models"
    stored = sorted(Path(folder, MODEL).glob("*/instanseg.pt"))
    if stored:
        return _of_file(stored[-1])
    if not settings.offline:
        from instanseg.utils.utils import download_model

        try:
            return download_model(MODEL, verbose=False)
        except OSError as error:
            raise FileNotFoundError(_unreachable(folder, f" ({type(error).__name__})")) from error
    raise FileNotFoundError(_unreachable(folder, ", and settings.offline is set"))


def _unreachable(folder: str | os.PathLike[str], why: str) -> str:
    return (
        f"The weights of InstanSeg ({MODEL}) are not in {os.fspath(folder)!r} and could not be downloaded{why}. Get {MODEL}.zip from "
        f"{_DOWNLOADS}, and pass the file instanseg.pt in it: weights=…. method='watershed' needs no weights."
    )
