"""Sections of an AnnData: the libraries of ``.uns['spatial']``, with positions in ``.obsm['spatial']``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spatialwhisperer._access.contract import libraries_of, link_of
from spatialwhisperer._access.images import find_image, rgb_names
from spatialwhisperer._access.sections.lattice import array_indices
from spatialwhisperer._access.sections.positions import stored_positions, xy_part
from spatialwhisperer._access.sections.scale import of_library
from spatialwhisperer._access.sections.section import Found, Section
from spatialwhisperer._access.table.groups import check_all_named, group_names
from spatialwhisperer._access.tables import obs_of
from spatialwhisperer._messages import inform, listing, warn

if TYPE_CHECKING:
    from anndata import AnnData

LIBRARY_COLUMN = "library_id"
"""Column of ``.obs`` that squidpy reads too."""

_COLUMNS = (LIBRARY_COLUMN, "library", "section", "sample", "sample_id", "batch")

_UPON_EACH_OTHER = 0.1
"""Fraction of rows at the place of another row from which on a table may hold several sections that nothing tells apart."""


def library_codes(adata: AnnData, library_key: str | None) -> np.ndarray:
    """Library of each row; one for all where there are not several.

    Where there is one library and a column names several, those others are sections without an image. Where there is none, and the
    rows have positions, so are all that one of the usual columns names.

    Raises
    ------
    KeyError
        If the column does not exist.
    ValueError
        If there are several libraries and no column names them, or rows name none.
    """
    column = library_column(adata, library_key)
    if column is None:
        libraries = libraries_of(adata)
        if not libraries:
            _warn_of_joined(adata)
        return np.full(adata.n_obs, next(iter(libraries), "all"), object)
    names = group_names(obs_of(adata)[column])
    check_all_named(names, "library", column, "Fill it in, drop the rows, or name another column with library_key=….")
    if library_key is None and column in _COLUMNS[1:] and not libraries_of(adata):
        inform(
            f"Sections are those of .obs[{column!r}] ({listing(pd.unique(names), 4)}); library_key=… names another column."
        )
    return names


def library_column(adata: AnnData, library_key: str | None) -> str | None:
    """Column of ``.obs`` that names the library of each row; ``None`` where all rows are of one.

    Raises
    ------
    KeyError
        If the column does not exist.
    ValueError
        If there are several libraries and no column names them.
    """
    libraries = list(libraries_of(adata))
    if library_key is not None:
        if library_key not in adata.obs:
            raise KeyError(f"library_key={library_key!r} not in .obs (found: {listing(adata.obs)}).")
        return library_key
    if not libraries:
        return _column_of_sections(adata)
    if len(libraries) < 2:
        return _column_of_several(adata, libraries[0])
    for column in _COLUMNS:
        if column in adata.obs and set(group_names(obs_of(adata)[column].drop_duplicates())) <= set(libraries):
            return column
    raise ValueError(
        f".uns['spatial'] holds {len(libraries)} libraries ({listing(libraries)}) and no column of .obs names them. "
        "Pass library_key=… with the column that does."
    )


def library_sections(
    adata: AnnData,
    codes: np.ndarray,
    *,
    image_key: str | Mapping[str, str] | None,
    coordinate_system: str | None,
) -> list[Found]:
    """Sections of an AnnData with images, centres and what states their scale.

    Raises
    ------
    KeyError
        If there are no positions, or an image that is named does not exist.
    ValueError
        If ``coordinate_system`` is given.
    """
    check_no_system(coordinate_system)
    if "spatial" not in adata.obsm:
        raise KeyError(
            f"'spatial' not in .obsm (found: {listing(adata.obsm)}). Tiles need the positions of the rows: x and y in "
            "full-resolution pixels, as sc.read_visium or sq.read.visium store them."
        )
    xy = stored_positions(adata)
    images = rgb_names(adata)
    libraries = libraries_of(adata)
    out = []
    for name in pd.unique(codes):
        rows = np.flatnonzero(codes == name)
        wanted = image_key.get(name) if isinstance(image_key, Mapping) else image_key
        wanted = name if wanted is None and name in images else wanted
        image = find_image(adata, wanted) if wanted is not None else None
        scales = () if image is None else of_library(libraries[image.name], obs_of(adata).iloc[rows], xy[rows])
        out.append(Found(Section(str(name), rows, xy[rows], image, None), scales))
    return out


def check_no_system(coordinate_system: str | None) -> None:
    """Refuse a coordinate system: an AnnData has none."""
    if coordinate_system is not None:
        raise ValueError(
            "coordinate_system applies to SpatialData; an AnnData keeps pixel coordinates in .obsm['spatial']."
        )


def _column_of_several(adata: AnnData, library: str) -> str | None:
    """Column that names several libraries, where only one of them is there; one name for all rows may be worded in any way."""
    for column in (LIBRARY_COLUMN, "library"):
        names = set(group_names(obs_of(adata)[column].drop_duplicates())) if column in adata.obs else set()
        # rows that name none beside rows of this library came from another table; "library" may also be that of the sequencing
        if (library in names and len(names) > 1) or (column == LIBRARY_COLUMN and len(names - {None}) > 1):
            return column
    return None


def _column_of_sections(adata: AnnData) -> str | None:
    """Column that names several sections of rows with positions, where no library is there.

    That of a SpatialData's table names the elements that the rows annotate. The usual columns of single cells name donors or
    sequencing runs, and cells without positions are one section.
    """
    if "spatialdata_attrs" in adata.uns:
        link = link_of(adata)
        usual: tuple[str, ...] = () if link is None else (link.region_key,)
    else:
        usual = _COLUMNS if "spatial" in adata.obsm or _on_array(adata) else ()
    for column in usual:
        names = set(group_names(obs_of(adata)[column].drop_duplicates())) - {None} if column in adata.obs else set()
        # a column with another value in each row names rows
        if 1 < len(names) < adata.n_obs:
            return column
    return None


def _on_array(adata: AnnData) -> bool:
    return array_indices(obs_of(adata)) is not None


def _warn_of_joined(adata: AnnData) -> None:
    """Say where many rows of the only section lie at the very places of others, as after a join."""
    xy = array_indices(obs_of(adata))
    if xy is None:
        xy = np.asarray(xy_part(adata.obsm["spatial"])) if "spatial" in adata.obsm else np.empty((0, 2))
    # what is damaged is said where it is read
    if xy.ndim != 2 or xy.shape[1] < 2 or xy.dtype.kind not in "iuf":
        return
    places = pd.Series(xy[:, :2] @ np.array([1, 1j])).dropna()
    same = int(places.duplicated(keep=False).sum())
    # positions that are all the same are none
    if same >= max(_UPON_EACH_OTHER * adata.n_obs, 2) and (places != places.iloc[0]).any():
        warn(
            f"{same} of {adata.n_obs} rows lie at the very places of other rows, and all count as one section. Where several sections were "
            "joined, pass library_key=… with the column that names them."
        )
