"""How features are computed: which encoder, with which weights, on tiles of which size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spatialwhisperer._messages import joined
from spatialwhisperer._storage.schema import Stored
from spatialwhisperer.encoders.digests import unread_part

Border = Literal["pad", "nan"]


@dataclass(frozen=True)
class EncoderIdentity(Stored):
    """Identifies an encoder and its weights.

    Attributes
    ----------
    name
        Name of the encoder.
    revision
        Revision of published weights; ``None`` where there are none.
    digest
        SHA-256 of an encoder that its name does not define: of a local file, a fitted encoder, or a torch module. One that cannot be
        read completely has a digest that no other opening of it has.
    """

    name: str
    revision: str | None = None
    digest: str | None = None

    @property
    def by_name(self) -> bool:
        """Whether the name defines the encoder."""
        return self.digest is None

    @property
    def unread(self) -> str:
        """What of the encoder could not be read, so that it is never recognised; empty where all was read."""
        return unread_part(self.digest)


@dataclass(frozen=True)
class FeatureRecipe(Stored):
    """How the features of one modality are computed.

    Stored features are used only where their recipe is the one that is asked for.

    Attributes
    ----------
    encoder
        The encoder; ``None`` for features that were computed outside this package.
    key
        Key of the features in ``.obsm``; ``None`` where they are not stored.
    tile_um
        Edges of the tiles in microns; of several sizes the features are concatenated.
    tile_px
        Edge of a tile in pixels, as the encoder takes it.
    border
        How tiles that leave the image are treated: "pad" fills them up with white, "nan" makes their row NaN.
    native_px
        Whether a tile is ``tile_px`` pixels of the image as it is, whatever their size: around the pixel that holds the centre, without
        resampling. ``tile_um`` then says how far apart tiles of a grid lie.
    """

    encoder: EncoderIdentity | None
    key: str | None = None
    tile_um: tuple[float, ...] = ()
    tile_px: int | None = None
    border: Border = "pad"
    native_px: bool = False

    @property
    def name(self) -> str:
        """Name of the encoder, or of the key that holds the features."""
        return self.encoder.name if self.encoder is not None else str(self.key)

    @property
    def tiles(self) -> str:
        """The tiles, for a sentence."""
        border = "" if self.border == "pad" else " without those that leave the image"
        if self.native_px:
            return f"tiles of {self.tile_px} pixels of the image{border}"
        return f"tiles of {joined(self.tile_um)} µm in {self.tile_px} px{border}"

    def same_features(self, other: FeatureRecipe) -> bool:
        """Whether both recipes give the same features, wherever these are stored."""
        if self.encoder is None or other.encoder is None:
            return False
        mine, its = (
            (r.encoder, tuple(float(um) for um in r.tile_um), r.tile_px, r.border if r.tile_um else None, r.native_px)
            for r in (self, other)
        )
        return mine == its
