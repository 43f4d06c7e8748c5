"""What all rows of the ablation are trained on; image features are computed once for each encoder and size."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

import spatialwhisperer as sw
from spatialwhisperer._access.slide import Slide
from spatialwhisperer.encoders.catalogue import get_spec
from spatialwhisperer.encoders.image.stain_texture import StainTextureEncoder
from spatialwhisperer.encoders.resolve import text_encoder
from spatialwhisperer.encoders.text.base import TextEncoder
from spatialwhisperer.pp.features.tile_sizes import coarse_sections
from spatialwhisperer.protocols.default_model.recipe import TrainingRecipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer.encoders.image.base import ImageEncoder
    from spatialwhisperer.encoders.recipe import EncoderIdentity
    from spatialwhisperer.protocols.ablation.variants import Images
    from spatialwhisperer.protocols.default_model.recipe import TrainingData


class AsStained(StainTextureEncoder):
    """Stain and texture statistics of tiles whose stains are left as they are."""

    looks_at_image = False


class Remembered(TextEncoder):
    """The text encoder of the presets, which computes each text once for all rows."""

    def __init__(self) -> None:
        self.encoder = text_encoder()
        self.spec = self.encoder.spec
        self._rows: dict[str, np.ndarray] = {}

    @property
    def identity(self) -> EncoderIdentity:
        """That of the text encoder."""
        return self.encoder.identity

    def encode(self, inputs: Sequence[str], *, batch_size: int | None = None, device: str | None = None) -> np.ndarray:
        """Compute features of texts that are new, and look the others up."""
        new = [text for text in dict.fromkeys(inputs) if text not in self._rows]
        if new:
            self._rows |= zip(new, self.encoder.encode(new, batch_size=batch_size, device=device), strict=True)
        return np.stack([self._rows[text] for text in inputs])


@dataclass
class Sections:
    """Sections with an image, and their image features.

    Attributes
    ----------
    data
        What the recipe is trained on.
    tables
        Tables of the sections with an image, which hold the features that were asked for.
    texts
        Encoder of the captions, where it is frozen.
    """

    data: TrainingData
    tables: dict[str, AnnData] = field(init=False)
    texts: TextEncoder = field(init=False)
    _computed: dict[tuple[str, str, float | None], np.ndarray] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.texts = Remembered()
        self.tables = {name: _table_alone(section) for name, section in self.data.images.items()}

    def with_features(self, images: Images) -> str:
        """Put features into all tables, and return their key in ``.obsm``."""
        key = f"X_{images.encoder}_{'_'.join(f'{um:g}' for um in images.tile_um)}".replace(" ", "_")
        for name, table in self.tables.items():
            if key not in table.obsm:
                sizes: tuple[float | None, ...] = images.tile_um or (None,)
                table.obsm[key] = np.hstack([self._features(name, images.encoder, um) for um in sizes])
        return key

    def _features(self, name: str, encoder: str, um: float | None) -> np.ndarray:
        if (name, encoder, um) not in self._computed:
            chosen: str | ImageEncoder = AsStained() if encoder == "as stained" else encoder
            px = None if um is None else TrainingRecipe().tile_px
            found = sw.pp.embed_images(self.data.images[name], encoder=chosen, tile_um=um, tile_px=px, inplace=False)
            if found is None:
                raise TypeError("embed_images(inplace=False) returns the features.")
            self._computed[name, encoder, um] = found
        return self._computed[name, encoder, um]

    def too_coarse(self, images: Images) -> str | None:
        """Why an encoder cannot read the image of a section; ``None`` where it can read all."""
        if images.encoder == "as stained":
            return None
        spec = get_spec(images.encoder, "image")
        for section in self.data.images.values():
            for name, mpp in coarse_sections(Slide.open(section).scaled(), spec).items():
                return f"{name} has {mpp:.3g} µm per pixel, and {spec.name} needs {spec.coarsest_mpp:g} or finer"
        return None


def _table_alone(section: SpatialData) -> AnnData:
    """The table without its section, so that images are not read again."""
    table = section["table"].copy()
    table.uns.pop("spatialdata_attrs")
    return table
