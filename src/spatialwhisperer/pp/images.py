"""Image features of each row, from a frozen image encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from spatialwhisperer._access.names import check_names
from spatialwhisperer._access.records import OffSlide
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.stores.several import SlidesOptions, opening, over_slides
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._checks.values import one_of
from spatialwhisperer._docs import shared
from spatialwhisperer.pp.features.encoder_choice import choose_encoder, fine_enough
from spatialwhisperer.pp.features.images import compute_image_features, image_recipe
from spatialwhisperer.pp.features.tile_sizes import check_own_sizes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    import torch
    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer.encoders.image.base import ImageEncoder
    from spatialwhisperer.encoders.recipe import Border


@shared
@over_slides
@checked
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
    **slides: Unpack[SlidesOptions],
) -> np.ndarray | None:
    """Compute the features of the H&E tile around each row with a frozen image encoder.

    What the call leaves open (tile size, scale, image) is taken from :func:`spatialwhisperer.pp.tiles` where that was called, else
    from the encoder and the object. Calling `tiles` first is not necessary.

    Parameters
    ----------
    %(data)s
        A list of slides is worked on one after another: objects, whose results are written in place, or paths of SpatialData stores
        (.zarr) and AnnData files (.h5ad), into which results are written. Each store holds its old table or its new one at any moment.
    encoder
        Name of an encoder (:func:`spatialwhisperer.models.list_encoders`), a torch module, or an encoder object. A module gets tiles that
        are normalised as ImageNet; one of timm as its ``pretrained_cfg`` says, resized to the edge it was built for. ``"nuclei"`` describes
        the nuclei in squares of 100, 154 and 300 µm around each row, and takes no other sizes; where an image is coarser than 0.75 µm per pixel,
        ``"stain_texture"`` is taken instead, and a line on stderr says so.
    tile_um
        Edge of a tile in microns, or several edges. The features of several sizes are joined column-wise in the order given.
        ``None`` takes the size that `tiles` recorded, else the one that the encoder was trained on.
    tile_px
        Edge of a tile in pixels, as the encoder gets it. ``None`` takes what `tiles` recorded, else what the encoder takes.
    border
        What to do with tiles that cross the edge of the image: ``"pad"`` fills them up with white, ``"nan"`` sets their rows to NaN.
        Of several sizes the first decides which rows are NaN; the others are always filled up.
    off_slide
        What to do with rows whose centre lies outside the image: ``"raise"`` an error, or set them to ``"nan"``. ``None`` takes what
        `tiles` recorded, else raises.
    weights
        File or folder with the weights of the encoder, instead of a download.
    key_added
        Key in ``.obsm``; ``None`` takes ``X_`` and the name of the encoder.
    %(batch_size)s
    %(device)s
    %(inplace)s
    %(slides)s

    Returns
    -------
    ``None``, or with ``inplace=False`` the features. In place it writes:

    ``.obsm[key_added]`` : :class:`numpy.ndarray` (dtype ``float32``)
        Features in the order of the table, shape (n, d); (n, sizes * d) for several sizes.
    ``.uns["spatialwhisperer"][key_added]`` : :class:`dict`
        Encoder, licence and tile sizes; scale and image of each section.

    The encoder ``"nuclei"`` also writes three columns to be read directly, of the square of 100 µm around each row, float32:

    ``.obs["sw_nuclei_per_mm2"]``
        Nuclei per mm². Evenly dark nuclei of more than 11 µm across count several times; :func:`spatialwhisperer.pp.nuclei` counts them
        once.
    ``.obs["sw_nucleus_median_area_um2"]``
        Their median area in µm², without the 0.5 µm that the mask of the encoder reaches beyond nuclei; NaN with fewer than three nuclei.
    ``.obs["sw_lymphocyte_like_fraction"]``
        Fraction of nuclei that are small (13 to 38 µm²) and round, as those of lymphocytes are; NaN with fewer than three nuclei. It is a
        hint of lymphocytes, not a cell type.

    Raises
    ------
    KeyError
        If there is no image, or an element that is named does not exist.
    TypeError
        If there is no argument of a name.
    ValueError
        If the scale is not known or stated in two ways that differ by more than 5 %, a size is not positive or repeated, no size is
        known, one is given to an encoder that takes no other sizes, a coordinate is NaN, or centres lie outside the image.
    RuntimeError
        If some of several slides failed. The others have their results.

    Notes
    -----
    Tiles are read from the coarsest level of the image pyramid that has eight pixels across a pixel of a tile. Each chunk of that
    level is decoded once per section and tile size. Without a pyramid, wide tiles are read at full resolution and then reduced;
    so are they where dask would compute the coarse levels from the finest one (an image in memory with ``scale_factors``).

    Examples
    --------
    >>> import anndata as ad
    >>> import numpy as np
    >>> import spatialwhisperer as sw
    >>> adata = ad.AnnData(np.zeros((2, 0), np.float32))
    >>> adata.obsm["spatial"] = np.array([[100.0, 100.0], [300.0, 200.0]])
    >>> image = np.random.default_rng(0).integers(0, 255, (400, 400, 3), dtype=np.uint8)
    >>> adata.uns["spatial"] = {"slide": {"images": {"fullres": image}, "scalefactors": {}}}
    >>> sw.pp.embed_images(adata, encoder="stain_texture", tile_um=56, tile_px=112, mpp=0.5)
    >>> adata.obsm["X_stain_texture"].shape
    (2, 158)
    """
    if off_slide is not None:
        one_of("off_slide", off_slide, OffSlide)
    opened = Slide.open(data, **opening(slides))
    check_names([opened])
    choice = choose_encoder(encoder, weights=weights)
    check_own_sizes(choice.spec, tile_um, tile_px)
    choice = fine_enough(choice, [opened])
    recipe = image_recipe(opened, choice, tile_um=tile_um, tile_px=tile_px, border=border, key=key_added)
    features = compute_image_features(
        opened, recipe, choice.open(), off_slide=off_slide, batch_size=batch_size, device=device
    )
    if not inplace:
        return features.values
    opened.put(*features.results)
    return None
