"""How features came about: which encoder, with which weights, on tiles of which size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spatialwhisperer._schema import Stored

Border = Literal["pad", "nan"]


@dataclass(frozen=True)
class EncoderIdentity(Stored):
    """What tells one encoder from another.

    Attributes
    ----------
    name
        Its name in the registry.
    revision
        Revision of published weights; ``None`` where there are none.
    digest
        SHA-256 of weights that did not come by name: a local file, or the parameters of a module of your own.
    """

    name: str
    revision: str | None = None
    digest: str | None = None

    @property
    def by_name(self) -> bool:
        """Whether the name is enough to open the encoder again."""
        return self.digest is None


@dataclass(frozen=True)
class FeatureRecipe(Stored):
    """How the features of one modality are made.

    Two arrays of features may stand for each other only where their recipes are equal.

    Attributes
    ----------
    encoder
        Which encoder; ``None`` for features that somebody else has computed.
    key
        Key in ``.obsm``; ``None`` where the features are not stored.
    tile_um
        Edges of the tiles in microns; the features of several sizes stand side by side.
    tile_px
        Edge of a tile in pixels, as it is given to the encoder.
    border
        What becomes of tiles that leave the image: filled up with white, or a row of NaN.
    """

    encoder: EncoderIdentity | None
    key: str | None = None
    tile_um: tuple[float, ...] = ()
    tile_px: int | None = None
    border: Border = "pad"

    @property
    def name(self) -> str:
        """Name of the encoder, or of the key that holds the features."""
        return self.encoder.name if self.encoder is not None else str(self.key)

    def same_features(self, other: FeatureRecipe) -> bool:
        """Whether both recipes give the same features, wherever these are stored."""
        if self.encoder is None or other.encoder is None:
            return False
        mine, its = (
            (r.encoder, tuple(float(um) for um in r.tile_um), r.tile_px, r.border if r.tile_um else None)
            for r in (self, other)
        )
        return mine == its
