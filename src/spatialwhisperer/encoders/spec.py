"""Facts about an encoder that are known before it is opened: dimensions, resolution, normalisation, licence."""

from __future__ import annotations

from dataclasses import dataclass

from spatialwhisperer._checks import checked_fields
from spatialwhisperer._modalities import get_modality


@checked_fields
@dataclass(frozen=True)
class EncoderSpec:
    """Facts about an encoder that are known before anything is downloaded.

    Attributes
    ----------
    name
        Name of the encoder; it also names the key of the features in ``.obsm``.
    modality
        Name of a modality: ``"image"``, ``"gene"``, ``"text"``, ….
    dim
        Number of features; ``None`` where it is known only after the encoder was opened.
    input_px
        Edge of the tiles in pixels; ``None`` where any edge will do.
    mpp
        Microns per pixel of the tiles that the encoder was trained on.
    tile_um
        Default field of view, in microns.
    mean, std
        Normalisation of R, G, B in [0, 1].
    licence
        Licence of the weights.
    commercial
        Whether that licence allows commercial use; ``None`` where it is not known.
    gated
        Whether the weights have to be requested from their authors.
    url
        Where the encoder comes from.
    citation
        Paper to cite.

    Examples
    --------
    >>> from spatialwhisperer.models import EncoderSpec
    >>> EncoderSpec("mine", "image", 128, input_px=224).licence
    'unknown'
    """

    name: str
    modality: str
    dim: int | None
    input_px: int | None = None
    mpp: float | None = None
    tile_um: float | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    licence: str = "unknown"
    commercial: bool | None = None
    gated: bool = False
    url: str = ""
    citation: str = ""

    def __post_init__(self) -> None:
        get_modality(self.modality)
        if not self.name:
            raise ValueError("An encoder needs a name.")
        if (self.mean is None) != (self.std is None):
            raise ValueError(f"Encoder {self.name!r} gives one of mean and std; give both, or neither.")
