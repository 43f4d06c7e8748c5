"""Published models of images and texts as models of this package, to stand beside ours in an annotation."""

from __future__ import annotations

from pathlib import Path

from spatialwhisperer._checks.checked import checked
from spatialwhisperer._messages import inform, listing
from spatialwhisperer.encoders.catalogue import open_encoder
from spatialwhisperer.encoders.recipe import FeatureRecipe
from spatialwhisperer.models.configuration.model import HeadConfig, ModalityConfig, ModelConfig
from spatialwhisperer.models.published.names import image_text_names
from spatialwhisperer.models.whisperer import Whisperer

_USUAL_MPP = 0.5
_OWN_PACKAGE = (
    "it takes the network and the tokenizer of its authors' own package, which is not among those that are used here. Its image encoder "
    "is here: sw.models.open_encoder({name!r}, 'image')"
)
IMAGE_ONLY = {"conch": _OWN_PACKAGE, "musk": _OWN_PACKAGE}
"""Models of images and texts whose text encoder is not supported, and why."""


@checked
def image_text_model(name: str, *, weights: str | Path | None = None, tile_um: float | None = None) -> Whisperer:
    """Open a published model of images and texts: its encoders, and no heads.

    Each call reads the files. To annotate several sections, open the model once and pass it.

    The model reads no counts and predicts no expression. Scores are the cosines between its rows of images and of texts, and their
    temperature is that of its training.

    Parameters
    ----------
    name
        "keep", "plip", "quiltnet-b32", "biomedclip" or "omiclip".
    weights
        Folder with its files, instead of a download.
    tile_um
        Edge of a tile in microns; ``None`` takes that of its training, or 0.5 microns per pixel where that is not known.

    Raises
    ------
    FileNotFoundError
        If the files are not there and cannot be fetched.
    ImportError
        If the library that builds it is not installed.
    ValueError
        If there is no such model, or the folder holds another one.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sw.models.get_spec("keep", "text").licence
    'mit'
    """
    if name in IMAGE_ONLY:
        reason = IMAGE_ONLY[name].format(name=name)
        raise ValueError(
            f"The text encoder of {name!r} is not supported: {reason}. There are {listing(image_text_names())}."
        )
    if name not in image_text_names():
        raise ValueError(
            f"There is no published model of images and texts {name!r}; there are {listing(image_text_names())}."
        )
    return _opened(name, None if weights is None else Path(weights), tile_um)


def _opened(name: str, weights: Path | None, tile_um: float | None) -> Whisperer:
    try:
        image, text = (open_encoder(name, modality, weights=weights) for modality in ("image", "text"))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error} A folder with the files of both encoders: sw.models.image_text_model({name!r}, weights='folder')."
        ) from error
    spec, px = image.spec, int(image.spec.input_px or 224)
    size = tile_um or spec.tile_um or (px * spec.mpp if spec.mpp else None)
    if size is None:
        size = px * _USUAL_MPP
        inform(
            f"the resolution that {name!r} was trained at is not known; tiles are {size:g} µm wide. Pass tile_um=… for another one."
        )
    dim = int(image.spec.dim or 0)
    if dim != text.spec.dim:
        raise ValueError(
            f"The towers of {name!r} have different widths, {dim} and {text.spec.dim}: the files are of another model."
        )
    modalities = {
        "image": _as_it_is(FeatureRecipe(image.identity, tile_um=(size,), tile_px=px), dim),
        "text": _as_it_is(FeatureRecipe(text.identity), dim),
    }
    scale = float(getattr(text, "scale", 1 / 0.07))
    config = ModelConfig(projection_dim=dim, modalities=modalities, temperature=1 / scale)
    return Whisperer(config, encoders={"image": image, "text": text}).eval()


def _as_it_is(recipe: FeatureRecipe, dim: int) -> ModalityConfig:
    return ModalityConfig(features=recipe, feature_dim=dim, head=HeadConfig("none", dim))
