"""Image features of each row, from a frozen image encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from spatialwhisperer._access.records import OffSlide
from spatialwhisperer._access.slide import Slide, SlideOptions
from spatialwhisperer._checks import check_batch_size, check_key_added, one_of
from spatialwhisperer.pp.features import choose_encoder, compute_image_features, image_recipe

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    import torch
    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer.encoders.image.base import ImageEncoder
    from spatialwhisperer.encoders.recipe import Border


def embed_images(
    data: AnnData | SpatialData,
    *,
    encoder: str | torch.nn.Module | ImageEncoder = "stain_texture",
    tile_um: float | Sequence[float] | None = None,
    tile_px: int | None = None,
    border: Border = "pad",
    off_slide: OffSlide | None = None,
    weights: str | Path | None = None,
    key_added: str | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    inplace: bool = True,
    **slide: Unpack[SlideOptions],
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
    check_key_added(key_added)
    check_batch_size(batch_size)
    if off_slide is not None:
        one_of("off_slide", off_slide, OffSlide)
    opened = Slide.open(data, **slide)
    choice = choose_encoder(encoder, weights=weights)
    recipe = image_recipe(opened, choice, tile_um=tile_um, tile_px=tile_px, border=border, key=key_added)
    features = compute_image_features(
        opened, recipe, choice.open(), off_slide=off_slide, batch_size=batch_size, device=device
    )
    if not inplace:
        return features.values
    opened.put(*features.results)
    return None
