"""Recognising and reading a stored slide."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

ROOTS = ("zarr.json", ".zgroup")
"""Files of which every zarr store has one."""

FILE_ENDING, STORE_ENDING = ".h5ad", ".zarr"


def is_store(path: Path) -> bool:
    """Whether this is the folder of a zarr store."""
    return path.is_dir() and any((path / name).is_file() for name in ROOTS)


def is_named_store(path: Path) -> bool:
    """Whether this is the folder of a zarr store, or one with the name of a store, which may be empty or half copied."""
    return is_store(path) or (path.is_dir() and path.suffix == STORE_ENDING)


def read_object(path: Path, *, values: bool = True) -> AnnData | SpatialData:
    """Read a SpatialData store or an AnnData file.

    Parameters
    ----------
    path
        The store or file.
    values
        Read the values of an AnnData file; otherwise they stay on the disk.

    Raises
    ------
    ValueError
        If it is damaged, or holds something else.
    """
    if path.is_dir() and not is_store(path):
        raise ValueError(
            f"{path} holds no zarr store: it is empty or half copied (there is neither {' nor '.join(ROOTS)} in it). Copy it again."
        )
    try:
        if path.suffix == FILE_ENDING:
            from anndata import read_h5ad

            return read_h5ad(path, backed=None if values else "r")
        from spatialdata import SpatialData

        data = SpatialData.read(path)
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        kind = "an AnnData" if path.suffix == FILE_ENDING else "a SpatialData"
        why = " ".join(str(error).split())
        raise ValueError(f"{path} cannot be read as {kind}: {why}") from error
    if next(data.gen_elements(), None) is None:
        raise ValueError(
            f"{path} is a zarr store without an element of SpatialData. An AnnData is read from an {FILE_ENDING} file: "
            f"anndata.read_zarr({str(path)!r}).write_h5ad('slide{FILE_ENDING}')."
        )
    return data
