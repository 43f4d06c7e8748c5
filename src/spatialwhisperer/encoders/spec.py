"""Facts about an encoder that are known before it is opened: dimensions, resolution, normalisation, licence."""

from __future__ import annotations

from dataclasses import dataclass

from spatialwhisperer._checks.checked import checked_fields
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
    windows_um
        Edges of the windows inside a tile that the encoder describes, in microns. Such an encoder takes tiles of ``tile_um`` and
        ``input_px`` alone, whatever sizes were recorded.
    coarsest_mpp
        Microns per pixel of the coarsest images that the encoder can describe; ``None`` where any will do.
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
    loader
        How the network is opened: "timm", "transformers", "open_clip", or "custom" (neither). Empty where there is no network.
    pooling
        How the tokens of a network become one row: "cls" (the class token), "cls+mean" (the class token, then the mean of the patch
        tokens, registers left out), "mean" (of tokens or positions), "pooler" (the network's own pooler), "projection" (into the space
        that images and texts share), "attention" or "average" (over positions), or "average before the last ReLU". Empty where the
        network itself returns one row.

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
    windows_um: tuple[float, ...] = ()
    coarsest_mpp: float | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    licence: str = "unknown"
    commercial: bool | None = None
    gated: bool = False
    url: str = ""
    citation: str = ""
    loader: str = ""
    pooling: str = ""

    def __post_init__(self) -> None:
        get_modality(self.modality)
        if not self.name:
            raise ValueError("An encoder needs a name.")
        if (self.mean is None) != (self.std is None):
            raise ValueError(f"Encoder {self.name!r} gives one of mean and std; give both, or neither.")
        if self.windows_um and (self.tile_um is None or self.input_px is None or max(self.windows_um) > self.tile_um):
            raise ValueError(f"Encoder {self.name!r} describes windows: give the tile_um and input_px that hold them.")
