"""A file of patches: the pixels around each row of a table, as HEST-1k has one for each section."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from spatialwhisperer._messages import listing, progress

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IMAGES = ("img", "imgs")
BARCODES = ("barcode", "barcodes")

PATCHES = "sw_patches"
"""``.uns[PATCHES]``: JSON with the file of the patches of a table, their edge in microns and in pixels."""

_SAMPLE, _SAMPLE_MPP = 256, 2.0


class PatchFile:
    """Patches of some rows of a file.

    Parameters
    ----------
    path
        The file, with the datasets ``img`` (n, p, p, 3) of uint8 and ``barcode``.
    tile_um
        Edge of a patch in microns.

    Attributes
    ----------
    names
        Barcode of each patch that is read, in the order of the file.

    Raises
    ------
    ValueError
        If the file is damaged or of another layout, or barcodes repeat.
    """

    def __init__(self, path: Path, tile_um: float) -> None:
        import h5py

        self.path, self.tile_um = path, tile_um
        try:
            with h5py.File(path) as h5:
                self._key, names = _one_of(h5, IMAGES), np.asarray(h5[_one_of(h5, BARCODES)]).reshape(-1)
                shape, kind = h5[self._key].shape, h5[self._key].dtype
        except (OSError, KeyError, TypeError) as error:
            raise ValueError(f"{path} could not be read as patches: {error}. Download it again.") from error
        self.names = np.array([n.decode() if isinstance(n, bytes) else str(n) for n in names], dtype=object)
        if len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3 or kind != np.uint8 or shape[0] != len(names):
            raise ValueError(
                f"{path} must hold square RGB patches of uint8, (n, p, p, 3), and a barcode for each; found {self._key} {shape} of "
                f"{kind} and {len(names)} barcodes."
            )
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"Barcodes repeat in {path}: a row would have two patches. Download it again.")
        self.tile_px = int(shape[1])
        self.rows = np.arange(len(names))
        state = path.stat()
        self.stamp = f"{path.name} {state.st_size} {state.st_mtime_ns}"

    def taken(self, rows: np.ndarray) -> Self:
        """The same file with some of its patches, which are given by their positions in increasing order."""
        out = type(self)(self.path, self.tile_um)
        out.rows, out.names = self.rows[rows], self.names[rows]
        return out

    @property
    def mpp(self) -> float:
        """Microns per pixel of the patches."""
        return self.tile_um / self.tile_px

    def tiles(self, at_once: int, what: str) -> Iterator[np.ndarray]:
        """Blocks of patches, uint8 (k, 3, p, p)."""
        import h5py

        with h5py.File(self.path) as h5:
            starts = range(0, len(self.rows), at_once)
            for start in progress(starts, total=len(starts), desc=f"{self.path.stem}: {what}", unit="batch"):
                block = h5[self._key][self.rows[start : start + at_once]]
                yield np.ascontiguousarray(np.moveaxis(np.asarray(block), 3, 1))

    def sample(self, most: int = _SAMPLE) -> tuple[np.ndarray, float]:
        """Some patches at a coarse scale, for an encoder that looks at the whole image, and their microns per pixel.

        An image between the patches is not seen: what the encoder learns of it is learnt where rows are.
        """
        import h5py

        some = self.rows[np.unique(np.linspace(0, len(self.rows) - 1, most).astype(int))]
        step = max(1, round(_SAMPLE_MPP / self.mpp))
        edge = self.tile_px // step
        with h5py.File(self.path) as h5:
            tiles = np.moveaxis(np.asarray(h5[self._key][some]), 3, 1)[:, :, : edge * step, : edge * step]
        blocks = tiles.reshape(len(tiles), 3, edge, step, edge, step).mean(axis=(3, 5))
        return np.rint(blocks).astype(np.uint8), self.mpp * step


def _one_of(h5: Any, names: tuple[str, ...]) -> str:
    found = [name for name in names if name in h5]
    if not found:
        raise KeyError(f"it has no dataset {' or '.join(names)} (found: {listing(h5)})")
    return found[0]
