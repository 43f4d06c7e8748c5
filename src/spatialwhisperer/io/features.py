"""Features of tiles that other tools computed: TRIDENT, HEST, STAMP and wsidata (LazySlide)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from spatialwhisperer import _keys
from spatialwhisperer._access.elements.squares import Squares
from spatialwhisperer._access.sections.platforms import mpp_by_wsidata
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._checks.values import check_text, positive
from spatialwhisperer._docs import shared
from spatialwhisperer._messages import listing
from spatialwhisperer.io._features.files import FeatureFile, check_rows, read_features
from spatialwhisperer.io._features.places import find_target, placed
from spatialwhisperer.io._features.stamp import stamp_layout

if TYPE_CHECKING:
    import os

    from spatialdata import SpatialData

    FilePath = str | os.PathLike[str]

_HEST_UM = 112.0
_MAGNIFICATION_UM = 10.0
_ALIKE = 1.6


@checked
@shared
def from_trident(
    path: FilePath,
    *,
    slide: SpatialData | None = None,
    image_key: str | None = None,
    mpp: float | None = None,
    name: str | None = None,
    key_added: str = _keys.TILES,
) -> SpatialData:
    """Read patch features of TRIDENT: a table of tiles with their positions.

    Parameters
    ----------
    path
        The file ``<slide>.h5`` in a folder ``features_<encoder>``, with the datasets ``features`` and ``coords``.
    %(tiles_of_slide)s
    mpp
        Microns per pixel of the slide; ``None`` takes that of ``slide``.
    name
        Name of the encoder; ``None`` takes that of the folder.
    key_added
        Name of the new table.

    Returns
    -------
    A new SpatialData; ``slide`` is left as it is. It holds the squares ``shapes["<image>_tiles"]`` and a table with one row per tile:

    ``.obsm["X_<name>"]`` : :class:`numpy.ndarray` (dtype ``float32``)
        Features, shape (n, d). Name them where they are used: ``sw.tl.ImageFeatures(key="X_<name>")``.
    ``.obsm["spatial"]`` : :class:`numpy.ndarray` (dtype ``float64``)
        x and y of the centres in pixels of the full resolution.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged or of another layout, features and coordinates have different numbers of rows, two tiles lie at one place, or
        tiles do not fit the slide: another size, another scale, or tiles outside the image.

    Examples
    --------
    >>> import tempfile
    >>> import h5py
    >>> import numpy as np
    >>> import spatialwhisperer as sw
    >>> with tempfile.NamedTemporaryFile(suffix=".h5") as file:
    ...     with h5py.File(file.name, "w") as h5:
    ...         h5["features"] = np.zeros((2, 8), np.float32)
    ...         h5["coords"] = np.array([[0, 0], [512, 0]])
    ...         h5["coords"].attrs["patch_size_level0"] = 512
    ...     sdata = sw.io.from_trident(file.name, mpp=0.25, name="uni")
    >>> sdata["sw_tiles"].obsm["X_uni"].shape, sdata["sw_tiles"].obsm["spatial"].tolist()
    ((2, 8), [[256.0, 256.0], [768.0, 256.0]])
    """
    file = read_features(path, "features")
    edge = file.number("patch_size_level0")
    if edge is None:
        raise ValueError(
            f"{file.path} does not state the edge of its tiles (attribute patch_size_level0 of 'coords'; found: "
            f"{listing(file.attributes)}). It was not written by TRIDENT; see sw.io.from_stamp for other layouts."
        )
    folder = file.path.parent.name
    target = find_target(slide, image_key, mpp)
    for axis, size in zip(("width", "height"), target.size_px or (), strict=False):
        stated = file.number(f"level0_{axis}")
        if stated is not None and abs(stated - size) > 1:
            raise ValueError(
                f"{file.path.name} was computed on a slide of {axis} {stated:.0f}; this one has {size:.0f} pixels."
            )
    magnification = file.number("level0_magnification")
    if magnification is not None and magnification > 0 and target.mpp is not None:
        expected = _MAGNIFICATION_UM / magnification
        if max(expected, target.mpp) > _ALIKE * min(expected, target.mpp):
            raise ValueError(
                f"{file.path.name} was computed on a slide of {magnification:g}x, about {expected:.3g} µm per pixel; {target.rule} states "
                f"{target.mpp:.3g}. Correct it, or take the features of this slide."
            )
    encoder = name or (folder.removeprefix("features_") if folder.startswith("features_") else "trident")
    squares = Squares(file.coordinates, edge, file.features, None, target.mpp, target.rule)
    return placed(file, squares, target, encoder, "TRIDENT", key_added)


@checked
@shared
def from_stamp(
    path: FilePath,
    *,
    slide: SpatialData | None = None,
    image_key: str | None = None,
    mpp: float | None = None,
    unit: Literal["um", "px"] | None = None,
    tile: float | None = None,
    name: str | None = None,
    key_added: str = _keys.TILES,
) -> SpatialData:
    """Read tile features of STAMP, or of another tool that stores ``feats`` and ``coords``: a table of tiles with their positions.

    Parameters
    ----------
    path
        The file ``<slide>.h5``, with the datasets ``feats`` and ``coords``.
    %(tiles_of_slide)s
    mpp
        Microns per pixel of the slide; ``None`` takes that of ``slide``.
    unit
        Unit of the coordinates, microns or pixels of the full resolution; ``None`` takes what the file states.
    tile
        Edge of a tile in that unit; ``None`` takes what the file states, else the median distance between neighbouring tiles.
    name
        Name of the encoder; ``None`` takes what the file states, else "stamp".
    key_added
        Name of the new table.

    Returns
    -------
    A new SpatialData; see :func:`from_trident`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged or of another layout, states no unit or another one than ``unit``, two tiles lie at one place, or tiles do not
        fit the slide; see :func:`from_trident`.

    Examples
    --------
    >>> import tempfile
    >>> import h5py
    >>> import numpy as np
    >>> import spatialwhisperer as sw
    >>> with tempfile.NamedTemporaryFile(suffix=".h5") as file:
    ...     with h5py.File(file.name, "w") as h5:
    ...         h5["feats"] = np.zeros((2, 8), np.float16)
    ...         h5["coords"] = np.array([[0.0, 0.0], [256.0, 0.0]])
    ...         h5.attrs.update({"unit": "um", "tile_size_um": 256.0, "extractor": "ctranspath"})
    ...     sdata = sw.io.from_stamp(file.name, mpp=0.5)
    >>> sdata["sw_tiles"].obsm["X_ctranspath"].shape, sdata["sw_tiles"].obsm["spatial"].tolist()
    ((2, 8), [[256.0, 256.0], [768.0, 256.0]])
    """
    if tile is not None:
        positive("tile", tile)
    file = read_features(path, "feats")
    if file.text("feat_type") not in (None, "tile"):
        raise ValueError(
            f"{file.path} holds features of a {file.text('feat_type')}, not of tiles. Read the file of tile features."
        )
    target = find_target(slide, image_key, mpp)
    measure, factor, edge = stamp_layout(file, unit, tile)
    if measure == "um":
        if target.mpp is None:
            raise ValueError(
                f"The coordinates of {file.path.name} are microns, and the microns per pixel of the slide are not known. Pass "
                "slide=sw.io.read_slide(path), or mpp=…."
            )
        factor, edge = factor / target.mpp, edge / target.mpp
    squares = Squares(file.coordinates * factor, edge, file.features, None, target.mpp, target.rule)
    return placed(file, squares, target, name or file.text("extractor") or "stamp", "STAMP", key_added)


@checked
@shared
def from_hest(
    path: FilePath,
    *,
    slide: SpatialData | None = None,
    image_key: str | None = None,
    mpp: float | None = None,
    tile_um: float = _HEST_UM,
    name: str | None = None,
    key_added: str = _keys.TILES,
) -> SpatialData:
    """Read patch embeddings of HEST: a table of tiles with their positions and barcodes.

    Parameters
    ----------
    path
        The file ``<sample>.h5`` that the HEST benchmark writes for an encoder, with the datasets ``embeddings``, ``coords`` and
        ``barcodes``.
    %(tiles_of_slide)s
    mpp
        Microns per pixel of the slide (``pixel_size_um_estimated`` in the metadata of HEST); ``None`` takes that of ``slide``.
    tile_um
        Edge of a patch in microns. The patches of HEST-1k have 224 pixels of 0.5 µm.
    name
        Name of the encoder; ``None`` takes the name of the folder.
    key_added
        Name of the new table.

    Returns
    -------
    A new SpatialData; see :func:`from_trident`. ``.obs["name"]`` holds the barcodes, which name the rows of the sample's ``.h5ad``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged or of another layout, the scale is not known, two tiles lie at one place, or tiles do not fit the slide; see
        :func:`from_trident`.

    Examples
    --------
    >>> import tempfile
    >>> import h5py
    >>> import numpy as np
    >>> import spatialwhisperer as sw
    >>> with tempfile.NamedTemporaryFile(suffix=".h5") as file:
    ...     with h5py.File(file.name, "w") as h5:
    ...         h5["embeddings"] = np.zeros((2, 8), np.float32)
    ...         h5["coords"] = np.array([[0, 0], [300, 0]])
    ...         h5["barcodes"] = np.array([[b"AAAC-1"], [b"AAAG-1"]])
    ...     sdata = sw.io.from_hest(file.name, mpp=0.5, name="uni")
    >>> sdata["sw_tiles"].obs["name"].tolist(), sdata["sw_tiles"].obsm["spatial"].tolist()
    (['AAAC-1', 'AAAG-1'], [[112.0, 112.0], [412.0, 112.0]])
    """
    file = read_features(path, "embeddings", "barcodes")
    target = find_target(slide, image_key, mpp)
    if target.mpp is None:
        raise ValueError(
            f"{file.path.name} does not state the size of its tiles in pixels. Pass slide=sw.io.read_slide(path), or mpp=… "
            "(pixel_size_um_estimated in the metadata of HEST)."
        )
    squares = Squares(file.coordinates, tile_um / target.mpp, file.features, file.names, target.mpp, target.rule)
    return placed(file, squares, target, name or file.path.parent.name or "hest", "HEST", key_added)


@checked
@shared
def from_wsidata(
    wsi: Any,
    feature_key: str,
    *,
    tile_key: str = "tiles",
    slide: SpatialData | None = None,
    image_key: str | None = None,
    mpp: float | None = None,
    name: str | None = None,
    key_added: str = _keys.TILES,
) -> SpatialData:
    """Take tile features from a WSIData of wsidata (LazySlide): a table of tiles with their positions.

    Parameters
    ----------
    wsi
        The object, with ``.shapes`` and ``.tables``; wsidata itself need not be installed.
    feature_key
        Name of the features, such as ``"uni"``, or of their table, such as ``"uni_tiles"``.
    tile_key
        Name of the tiles.
    %(tiles_of_slide)s
    mpp
        Microns per pixel of the slide; ``None`` takes that of ``slide``, else of ``wsi``.
    name
        Name of the encoder; ``None`` takes ``feature_key``.
    key_added
        Name of the new table.

    Returns
    -------
    A new SpatialData; see :func:`from_trident`.

    Raises
    ------
    KeyError
        If there are no such tiles or features.
    TypeError
        If ``wsi`` has no shapes and tables.
    ValueError
        If rows of features name tiles that do not exist, tiles differ in size, two of them lie at one place, two scales differ by more
        than 5 %, or tiles lie outside the image.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import anndata as ad
    >>> import geopandas as gpd
    >>> import numpy as np
    >>> import shapely
    >>> import spatialwhisperer as sw
    >>> tiles = gpd.GeoDataFrame({"tile_id": [0, 1]}, geometry=shapely.box([0, 512], [0, 0], [512, 1024], [512, 512]))
    >>> features = ad.AnnData(np.zeros((2, 8), np.float32))
    >>> features.obs["tile_id"] = [0, 1]
    >>> wsi = SimpleNamespace(shapes={"tiles": tiles}, tables={"uni_tiles": features})
    >>> sw.io.from_wsidata(wsi, "uni", mpp=0.25)["sw_tiles"].obsm["X_uni"].shape
    (2, 8)
    """
    shapes, tables = getattr(wsi, "shapes", None), getattr(wsi, "tables", None)
    if shapes is None or tables is None:
        raise TypeError(f"wsi must be a WSIData with .shapes and .tables, not {type(wsi).__name__}.")
    for argument, value in (("feature_key", feature_key), ("tile_key", tile_key)):
        check_text(argument, value)
    if tile_key not in shapes:
        raise KeyError(f"There are no tiles {tile_key!r} (found: {listing(shapes)}).")
    wanted = next((key for key in (feature_key, f"{feature_key}_{tile_key}") if key in tables), None)
    if wanted is None:
        raise KeyError(f"There are no features {feature_key!r} of {tile_key!r} (found: {listing(tables)}).")
    table, tiles = tables[wanted], shapes[tile_key]
    bounds = tiles.bounds.to_numpy(dtype=float)
    rows = _rows_of(table, tiles, wanted)
    edges = bounds[:, 2:] - bounds[:, :2]
    if not len(edges) or np.ptp(edges) > 1:
        raise ValueError(f"The tiles {tile_key!r} are not squares of one size; make them with a single tile size.")
    own = getattr(getattr(wsi, "properties", None), "mpp", None)
    # a store that spatialdata read has no such attribute
    stated = mpp_by_wsidata(wsi) if own is None else float(own)
    target = find_target(slide, image_key, mpp, stated)
    features = table.X.toarray() if hasattr(table.X, "toarray") else np.asarray(table.X)
    file = FeatureFile(Path(wanted), np.asarray(features, np.float32), bounds[rows, :2], {}, None)
    check_rows(file)
    squares = Squares(file.coordinates, float(edges.mean()), file.features, None, target.mpp, target.rule)
    return placed(file, squares, target, name or feature_key, "wsidata", key_added)


# ------------------------------------------------------------------------------------------------- layouts


def _rows_of(table: Any, tiles: Any, key: str) -> np.ndarray:
    """Position of the tile of each row of features."""
    import pandas as pd

    if "tile_id" not in table.obs:
        if table.n_obs != len(tiles):
            raise ValueError(
                f"{key!r} has {table.n_obs} rows and names no tiles (.obs['tile_id']), of which there are {len(tiles)}."
            )
        return np.arange(len(tiles))
    ids = pd.Index(tiles["tile_id"] if "tile_id" in tiles else tiles.index)
    if not ids.is_unique:
        raise ValueError("Several tiles have the same tile_id. Make the tiles again.")
    rows = ids.get_indexer(pd.Index(table.obs["tile_id"].to_numpy()))
    if (rows < 0).any():
        raise ValueError(
            f"{int((rows < 0).sum())} of {len(rows)} rows of {key!r} name tiles that do not exist. Compute the features again."
        )
    return rows
