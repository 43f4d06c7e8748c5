"""Base class of image encoders."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from spatialwhisperer._annotations import is_number, numbers
from spatialwhisperer.encoders.base import Encoder
from spatialwhisperer.encoders.digests import object_digest
from spatialwhisperer.encoders.outputs import called, is_foreign
from spatialwhisperer.encoders.recipe import EncoderIdentity

if TYPE_CHECKING:
    from spatialwhisperer.encoders.spec import EncoderSpec

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ImageEncoder(Encoder):
    """Computes features of H&E tiles.

    Attributes
    ----------
    looks_at_image
        Whether the encoder looks at a whole image before it encodes tiles of it, by a method ``on_image``.
    in_batches
        Whether ``encode`` takes any number of tiles in bounded memory, batch by batch. On a GPU it then gets many batches at a time.
    look
        What the image looked like: means of some numbers over its tissue, then their standard deviations. It is recorded beside the
        features, and tells whether an image is like those of the training where the features themselves do not. Empty where nothing
        was seen.
    """

    looks_at_image: ClassVar[bool] = False
    in_batches: ClassVar[bool] = False
    look: tuple[float, ...] = ()

    def on_image(self, sample: np.ndarray, *, mpp: float) -> ImageEncoder:  # noqa: ARG002
        """Return the encoder for tiles of one image, after a look at the whole of it.

        Parameters
        ----------
        sample
            Tiles that cover the image evenly, whatever rows are annotated, uint8 (n, 3, p, p).
        mpp
            Their microns per pixel.
        """
        return self

    def columns(self, features: np.ndarray) -> dict[str, np.ndarray]:  # noqa: ARG002
        """Columns of ``.obs`` that people read, from the features (n, d) of rows; by default there are none."""
        return {}

    @abstractmethod
    def encode(self, inputs: np.ndarray, *, mpp: float, device: str | None = None) -> np.ndarray:
        """Compute features of tiles; row i depends on tile i, and on the image that `on_image` has seen.

        Parameters
        ----------
        inputs
            uint8 tiles (n, 3, p, p) RGB.
        mpp
            Microns per pixel of the tiles.
        device
            Torch device; ``None`` takes ``settings.device``.

        Returns
        -------
        float32 (n, dim).
        """


class GivenEncoder(ImageEncoder):
    """Wraps an object that has ``spec`` and ``encode``, maybe ``on_image`` and ``columns``, and derives from no class of this package."""

    def __init__(self, given: Any) -> None:
        self.given = given
        self.spec: EncoderSpec = given.spec

    @property
    def looks_at_image(self) -> bool:  # type: ignore[override]
        """Whether the object has a method ``on_image``."""
        return hasattr(self.given, "on_image")

    def on_image(self, sample: np.ndarray, *, mpp: float) -> GivenEncoder:
        """Call the method of the object, and wrap what it returns."""
        return GivenEncoder(self.given.on_image(sample, mpp=mpp))

    def columns(self, features: np.ndarray) -> dict[str, np.ndarray]:
        """Call the method of the object where it has one."""
        return self.given.columns(features) if hasattr(self.given, "columns") else {}

    @property
    def identity(self) -> EncoderIdentity:
        """Name, and a digest of the object."""
        return EncoderIdentity(self.spec.name, digest=object_digest(self.given))

    def encode(self, inputs: np.ndarray, *, mpp: float, device: str | None = None) -> np.ndarray:
        """Call the method of the object."""
        return np.asarray(self.given.encode(inputs, mpp=mpp, device=device))


def on_image(encoder: ImageEncoder, sample: np.ndarray, *, mpp: float) -> ImageEncoder:
    """Let an encoder look at an image, whoever wrote it.

    Raises
    ------
    ValueError
        If that fails.
    TypeError
        If it returns no encoder.
    """
    if not is_foreign(encoder):
        return encoder.on_image(sample, mpp=mpp)
    name = encoder.spec.name
    bound: Any = called(name, "on_image", encoder.on_image, sample.copy(), mpp=mpp)
    given = getattr(bound, "given", bound)
    if not (hasattr(given, "spec") and hasattr(given, "encode")):
        raise TypeError(f"on_image of encoder {name!r} must return an encoder, not {type(given).__name__}.")
    return bound


def columns_of(encoder: ImageEncoder, features: np.ndarray) -> dict[str, np.ndarray]:
    """Columns of ``.obs`` that an encoder computes from its features (n, d), whoever wrote it.

    Raises
    ------
    ValueError
        If that fails, or a column has another length.
    TypeError
        If they are no dictionary.
    """
    if not is_foreign(encoder):
        return encoder.columns(features)
    name = encoder.spec.name
    found = called(name, "columns", encoder.columns, features.copy())
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise TypeError(f"columns of encoder {name!r} must return a dictionary of columns, not {type(found).__name__}.")
    out = {key: np.asarray(values) for key, values in found.items()}
    for key, values in out.items():
        if values.shape != (len(features),):
            raise ValueError(f"Column {key!r} of encoder {name!r} has shape {values.shape} for {len(features)} rows.")
    return out


def check_tiles(tiles: np.ndarray, mpp: float, *, smallest: int = 1) -> np.ndarray:
    """Return tiles as a uint8 array (n, 3, p, p).

    Raises
    ------
    TypeError
        If they are not uint8.
    ValueError
        If they have another shape, are smaller than ``smallest``, or `mpp` is not positive.
    """
    tiles = numbers("tiles", tiles)
    if tiles.dtype != np.uint8:
        raise TypeError(
            f"Tiles must be uint8 intensities of 0 to 255, not {tiles.dtype}. "
            "For floats in [0, 1] pass np.rint(tiles * 255).astype('uint8')."
        )
    if tiles.ndim != 4 or tiles.shape[1] != 3 or tiles.shape[2] != tiles.shape[3]:
        hint = " Channels come first: tiles.transpose(0, 3, 1, 2)." if tiles.ndim == 4 and tiles.shape[-1] == 3 else ""
        raise ValueError(f"Tiles must have the shape (n, 3, p, p), not {tiles.shape}.{hint}")
    if tiles.shape[-1] < smallest:
        raise ValueError(
            f"This encoder needs tiles of at least {smallest} px, not {tiles.shape[-1]} px; cut larger ones."
        )
    if not is_number(mpp) or not (np.isfinite(mpp) and mpp > 0):
        raise ValueError(f"mpp is microns per pixel and must be positive, not {mpp!r}.")
    return tiles
