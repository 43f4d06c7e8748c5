"""Image features of each row: tiles are read block by block in one thread while an encoder works in another."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from spatialwhisperer import _keys
from spatialwhisperer._access.prefetch import batches, prefetch
from spatialwhisperer._access.tile_plan import OffSlide, TilePlan, check_resolution, plan_tiles
from spatialwhisperer._checks import check_batch_size, check_key_added, check_tile, one_of
from spatialwhisperer._messages import found, progress
from spatialwhisperer._provenance import record
from spatialwhisperer.settings import settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import torch
    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer.encoders.image.timm import ImageEncoder
    from spatialwhisperer.encoders.registry import EncoderSpec

Border = Literal["pad", "nan"]

_TILE_PX = 224
_IN_MEMORY_BYTES = 2**30


def embed_images(
    data: AnnData | SpatialData,
    *,
    encoder: str | torch.nn.Module | ImageEncoder = "stain_texture",
    tile_um: float | Sequence[float] | None = None,
    tile_px: int | None = None,
    mpp: float | Mapping[str, float] | None = None,
    spot_pitch_um: float | None = None,
    image_key: str | Mapping[str, str] | None = None,
    coordinate_system: str | None = None,
    table_key: str | None = None,
    library_key: str | None = None,
    border: Border = "pad",
    off_slide: OffSlide | None = None,
    weights: str | Path | None = None,
    key_added: str | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    inplace: bool = True,
) -> np.ndarray | None:
    """Give each row the features of the H&E tile around it, from a frozen image encoder.

    What :func:`spatialwhisperer.pp.tiles` recorded (size, scale, image) is used wherever an argument is left out;
    calling it first is not necessary.

    Parameters
    ----------
    data
        AnnData with ``.obsm['spatial']`` in full-resolution pixels and images in ``.uns['spatial']``, or SpatialData.
    encoder
        Name of an encoder (:func:`spatialwhisperer.models.list_encoders`), a torch module, or an encoder object.
    tile_um
        Edge of a tile in microns, or several edges: the features of each size, in the order given, then stand side by
        side in one slot. Not given: what `tiles` recorded, else what the encoder was trained on.
    tile_px
        Edge of a tile of any size in pixels. Not given: what `tiles` recorded, else what the encoder takes.
    mpp
        Microns per full-resolution pixel, one for all or by section (or image).
    spot_pitch_um
        Centre-to-centre distance of the spots, from which ``mpp`` follows: 100 for Visium.
    image_key
        Image to read, one for all or by section.
    coordinate_system
        Where shapes and image meet, for a SpatialData.
    table_key
        Table of a SpatialData.
    library_key
        Column of ``.obs`` that names the library of each row, for an AnnData of several libraries.
    border
        Tiles that leave the image are filled up with glass, or their rows are NaN. Of several sizes the first one
        decides; the others are always filled up, so that wide context costs no row at the edge.
    off_slide
        What to do with centres that are off the image: refuse, or leave their rows NaN.
    weights
        File or folder with the encoder's weights, instead of a download.
    key_added
        Slot in ``.obsm``. Not given: ``X_`` and the encoder's name.
    batch_size
        Tiles in one forward pass; the result does not depend on it.
    device
        Torch device.
    inplace
        Write to ``data``, or return the features and leave ``data`` as it is.

    Returns
    -------
    ``None``, or the features with ``inplace=False``. Written are:

    ``.obsm[key_added]``
        float32 (n, d) in the order of the table; (n, sizes * d) for several sizes.
    ``.uns['spatialwhisperer'][key_added]``
        Encoder, licence, size of the tiles, scale and image by section.

    Raises
    ------
    KeyError
        If there is no image, or a named element does not exist.
    ValueError
        If the scale is not known, a size is not positive or named twice, there is none, a coordinate is NaN, or centres
        are off the slide. Nothing is written then.

    Notes
    -----
    The coarsest level of the image's pyramid that still has ``tile_px`` pixels across a tile is read. Each chunk of it
    is decoded once (per section and size), so chunk size and number of tiles matter little. In a pyramid of
    halves a wide tile, too, is less than ``2 * tile_px`` across; without one it is cut at full resolution and reduced.

    Examples
    --------
    >>> import numpy as np, anndata as ad, spatialwhisperer as sw
    >>> adata = ad.AnnData(np.zeros((2, 0), np.float32))
    >>> adata.obsm["spatial"] = np.array([[100.0, 100.0], [300.0, 200.0]])
    >>> image = np.random.default_rng(0).integers(0, 255, (400, 400, 3), dtype=np.uint8)
    >>> adata.uns["spatial"] = {"slide": {"images": {"fullres": image}, "scalefactors": {}}}
    >>> sw.pp.embed_images(adata, encoder="stain_texture", tile_um=56, tile_px=112, mpp=0.5)
    >>> adata.obsm["X_stain_texture"].shape[0]
    2
    """
    one_of("border", border, Border)
    given = _sizes(tile_um)
    check_key_added(key_added)
    check_batch_size(batch_size)
    size = settings.batch_size if batch_size is None else batch_size
    plan = plan_tiles(
        data,
        table_key=table_key,
        image_key=image_key,
        coordinate_system=coordinate_system,
        library_key=library_key,
        mpp=mpp,
        spot_pitch_um=spot_pitch_um,
        off_slide=off_slide,
        use_stored=True,
    )
    for um in given:
        check_tile(um, tile_px)
    encoder = _encoder(encoder, weights)
    tile_ums, tile_px = _tile_sizes(plan, given, tile_px, encoder.spec)
    features = _side_by_side(plan, encoder, tile_ums, tile_px, whole=border == "nan", batch_size=size, device=device)
    if not inplace:
        return features
    key = _keys.features(encoder.spec.name) if key_added is None else key_added
    plan.table.obsm[key] = features
    record(
        plan.table,
        key,
        encoder=encoder.spec.name,
        licence=encoder.spec.licence,
        weights=None if weights is None else str(weights),
        tile_um=tile_ums[0] if len(tile_ums) == 1 else tile_ums,
        tile_px=tile_px,
        border=border,
        **plan.provenance(),
    )
    return None


def read_tiles(
    data: AnnData | SpatialData,
    *,
    tile_um: float | None = None,
    tile_px: int | None = None,
    mpp: float | Mapping[str, float] | None = None,
    spot_pitch_um: float | None = None,
    image_key: str | Mapping[str, str] | None = None,
    coordinate_system: str | None = None,
    table_key: str | None = None,
    library_key: str | None = None,
    off_slide: OffSlide | None = None,
) -> np.ndarray:
    """Read the tile of each row, for training an image encoder and for looking at tiles.

    Parameters
    ----------
    data
        AnnData with ``.obsm['spatial']`` in full-resolution pixels and images in ``.uns['spatial']``, or SpatialData.
    tile_um, tile_px
        Edge of a tile in microns and in pixels. Not given: what :func:`spatialwhisperer.pp.tiles` recorded.
    mpp, spot_pitch_um, image_key, coordinate_system, table_key, library_key
        As in :func:`spatialwhisperer.pp.embed_images`.
    off_slide
        What to do with centres that are off the image: refuse, or return glass.

    Returns
    -------
    uint8 (n, 3, tile_px, tile_px) in the order of the table; what lies outside the image is 255. More than 1 GiB is kept
    in a temporary file, which goes when the array does.

    Raises
    ------
    KeyError
        If there is no image, or a named element does not exist.
    ValueError
        If size or scale are not known, a coordinate is NaN, or centres are off the slide.

    Examples
    --------
    >>> import numpy as np, anndata as ad, spatialwhisperer as sw
    >>> from spatialwhisperer.pp.images import read_tiles
    >>> adata = ad.AnnData(np.zeros((2, 0), np.float32))
    >>> adata.obsm["spatial"] = np.array([[100.0, 100.0], [300.0, 200.0]])
    >>> image = np.full((400, 400, 3), 200, np.uint8)
    >>> adata.uns["spatial"] = {"slide": {"images": {"fullres": image}, "scalefactors": {}}}
    >>> read_tiles(adata, tile_um=56, tile_px=112, mpp=0.5).shape
    (2, 3, 112, 112)
    """
    plan = plan_tiles(
        data,
        table_key=table_key,
        image_key=image_key,
        coordinate_system=coordinate_system,
        library_key=library_key,
        mpp=mpp,
        spot_pitch_um=spot_pitch_um,
        off_slide=off_slide,
        use_stored=True,
    )
    if tile_um is not None:
        check_tile(tile_um, tile_px)
    (tile_um,), tile_px = _tile_sizes(plan, [] if tile_um is None else [tile_um], tile_px, None)
    out = _blank_tiles((plan.table.n_obs, 3, tile_px, tile_px))
    for rows, tiles in _with_bar(plan.read(tile_um, tile_px), plan, "reading tiles"):
        out[rows] = tiles
    if plan.off.any():
        out[plan.off] = 255
    return out


def _encoder(encoder: Any, weights: str | Path | None) -> ImageEncoder:
    if hasattr(encoder, "spec") and hasattr(encoder, "encode") and weights is None:
        return encoder
    from spatialwhisperer.encoders.image.timm import image_encoder

    return image_encoder(encoder, weights=weights)


def _sizes(tile_um: float | Sequence[float] | None) -> list[float]:
    """The edges that were asked for; none where the caller leaves it open."""
    if tile_um is None:
        return []
    if np.ndim(tile_um) == 0:
        return [tile_um]  # type: ignore[list-item]
    sizes = list(tile_um)  # type: ignore[arg-type]
    if not sizes:
        raise ValueError("tile_um names no size. Pass one (tile_um=112) or several (tile_um=(112, 224)).")
    if len(set(sizes)) < len(sizes):
        raise ValueError(f"tile_um names a size twice: {found(sizes)}. Name each once.")
    return sizes


def _tile_sizes(
    plan: TilePlan, tile_ums: list[float], tile_px: int | None, spec: EncoderSpec | None
) -> tuple[list[float], int]:
    """Argument, else what `tiles` recorded, else what the encoder was trained on."""
    stored = plan.stored
    as_stored = not tile_ums and tile_px is None and stored.get("tile_px") is not None
    tile_um = None if tile_ums else stored.get("tile_um")
    tile_px = stored.get("tile_px") if tile_px is None else tile_px
    if spec is not None:
        trained_um = spec.input_px * spec.mpp if spec.input_px and spec.mpp else None
        tile_um = (spec.tile_um or trained_um) if tile_um is None else tile_um
        tile_px = spec.input_px if tile_px is None else tile_px
    if not tile_ums and tile_um is None:
        who = "" if spec is None else f", and encoder {spec.name!r} names no field of view"
        raise ValueError(
            f"The size of the tiles is not known{who}. Pass tile_um=…, or run sw.pp.tiles(data, tile_um=…) first."
        )
    tile_px = _TILE_PX if tile_px is None else tile_px
    tile_ums = tile_ums or [tile_um]  # type: ignore[list-item]
    for um in tile_ums:
        check_tile(um, tile_px)
        if not as_stored:  # `tiles` has checked what it recorded
            check_resolution(plan.sections, um, tile_px, stored.get("on_low_res", "warn"), stacklevel=5)
    return [float(um) for um in tile_ums], int(tile_px)


def _side_by_side(
    plan: TilePlan, encoder: ImageEncoder, tile_ums: list[float], tile_px: int, *, whole: bool, **options: Any
) -> np.ndarray:
    """Features of each size; a row whose first tile is cut is NaN where ``whole``, the other sizes are padded."""
    first = _features(plan, encoder, tile_ums[0], tile_px, whole=whole, **options)
    if len(tile_ums) == 1:
        return first
    others = [_features(plan, encoder, um, tile_px, whole=False, **options) for um in tile_ums[1:]]
    out = np.concatenate([first, *others], axis=1)
    if whole:
        out[np.isnan(first).all(axis=1)] = np.nan
    return out


def _features(
    plan: TilePlan,
    encoder: ImageEncoder,
    tile_um: float,
    tile_px: int,
    *,
    whole: bool,
    batch_size: int,
    device: str | None,
) -> np.ndarray:
    out = None
    pieces = plan.read(tile_um, tile_px, whole=whole)
    with closing(prefetch(batches(pieces, batch_size))) as ready:
        for rows, tiles in _with_bar(ready, plan, f"embedding tiles of {tile_um:g} um ({encoder.spec.name})"):
            features = np.asarray(encoder.encode(tiles, mpp=tile_um / tile_px, device=device), dtype=np.float32)
            if features.ndim != 2 or len(features) != len(rows):
                raise ValueError(
                    f"Encoder {encoder.spec.name!r} returned shape {features.shape} for {len(rows)} tiles; expected "
                    f"({len(rows)}, d)."
                )
            if out is None:
                out = np.full((plan.table.n_obs, features.shape[1]), np.nan, np.float32)
            out[rows] = features
    if out is None:
        raise ValueError(
            f"No tile of {tile_um:g} um lies inside its image. Take smaller tiles with tile_um=…, or fill them up with "
            "border='pad'."
        )
    return out


def _with_bar(items: Iterable[tuple[np.ndarray, np.ndarray]], plan: TilePlan, desc: str) -> Any:
    with progress(total=int((~plan.off).sum()), desc=desc, unit="tile") as bar:
        for rows, tiles in items:
            yield rows, tiles
            bar.update(len(rows))


def _blank_tiles(shape: tuple[int, ...]) -> np.ndarray:
    if int(np.prod(shape)) <= _IN_MEMORY_BYTES:
        return np.empty(shape, np.uint8)
    from tempfile import TemporaryFile

    # the map keeps the unnamed file alive, and the system removes it with the map
    with TemporaryFile(prefix="spatialwhisperer-tiles-") as file:
        return np.memmap(file, dtype=np.uint8, mode="w+", shape=shape)
