"""HDF5 files with an H&E image and its masks: the layout of the PathoCell data set and of the published benchmark."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer._messages import listing
from spatialwhisperer.datasets._nuclei.layout import LabelledImage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def hdf_files(*folders: Path) -> dict[str, Path]:
    """Files ``<name>.hdf`` of the first folder that has any."""
    for folder in folders:
        paths = sorted(folder.glob("*.hdf"))
        if paths:
            return {path.stem: path for path in paths}
    return {}


def read_hdf(path: Path, class_keys: Sequence[str]) -> LabelledImage:
    """Read ``img`` and ``gt_inst`` and the first of the class masks that is there; nothing else of the file is loaded.

    Raises
    ------
    KeyError
        If the file lacks one of them.
    ValueError
        If an array has another shape than the layout states.
    """
    import h5py

    with h5py.File(path, "r") as file:
        classes = next((key for key in class_keys if key in file), None)
        missing = [key for key in ("img", "gt_inst") if key not in file]
        if missing or classes is None:
            raise KeyError(
                f"{path} lacks {listing([*missing, *([] if classes else class_keys)])}; it holds {listing(file)}."
            )
        instances, code = (_mask(file[key][...], path, key) for key in ("gt_inst", classes))
        return LabelledImage(_rgb(file["img"][...], path), instances, code)


def _mask(values: np.ndarray, path: Path, key: str) -> np.ndarray:
    values = values[0] if values.ndim == 3 and values.shape[0] == 1 else values
    if values.ndim != 2:
        raise ValueError(f"{key} of {path} must have the shape (1, h, w) or (h, w), not {values.shape}.")
    return values


def _rgb(pixels: np.ndarray, path: Path) -> np.ndarray:
    """uint8 (3, h, w). Values up to 1 are scaled by 255, uint16 above 255 is divided by 256, anything else is cut to a byte."""
    if pixels.ndim == 3 and pixels.shape[0] != 3 and pixels.shape[2] == 3:
        pixels = np.moveaxis(pixels, 2, 0)
    if pixels.ndim != 3 or pixels.shape[0] != 3:
        raise ValueError(f"img of {path} must have the shape (3, h, w), not {pixels.shape}.")
    if pixels.dtype == np.uint8:
        return pixels
    brightest = pixels.max(initial=0)
    if brightest <= 1:
        return (pixels * 255).astype(np.uint8)
    # uint16 may hold pixels of eight bits
    return (pixels // 256 if pixels.dtype == np.uint16 and brightest > 255 else pixels).astype(np.uint8)


def read_classes(path: Path) -> dict[int, str]:
    """Class names by code from a text that holds pairs such as ``0: 'Background'``.

    Raises
    ------
    FileNotFoundError
        If the file is not there.
    ValueError
        If it holds no pairs.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no {path}; it comes with the images and names their classes.")
    pairs = re.findall(r"(\d+)\s*:\s*(?:'([^']+)'|\"([^\"]+)\")", path.read_text(encoding="utf-8"))
    names = {int(code): single or double for code, single, double in pairs}
    if not names:
        raise ValueError(f"{path} holds no pairs of a code and a quoted name, such as 0: 'Background'.")
    return names
