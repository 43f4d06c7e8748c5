"""Models of open_clip as image encoders."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from spatialwhisperer.encoders.image._published.folder import Built, FolderEncoder
from spatialwhisperer.encoders.image_text import open_clip as models
from spatialwhisperer.encoders.published.table import row_of, specs
from spatialwhisperer.encoders.registry import opens_other_names, register_encoder

if TYPE_CHECKING:
    from pathlib import Path

    from spatialwhisperer.encoders import hub
    from spatialwhisperer.encoders.spec import EncoderSpec


@opens_other_names("image")
@register_encoder(*specs("open_clip"))
class OpenClipEncoder(FolderEncoder):
    """The image tower of a model of open_clip, as a frozen encoder: a registered name, or ``"open_clip:owner/model"``.

    A row is the projection of a tile into the space that images and texts share, not scaled to unit length.

    Examples
    --------
    >>> from spatialwhisperer.encoders.image.open_clip import OpenClipEncoder
    >>> OpenClipEncoder.known("open_clip:owner/model").loader
    'open_clip'
    """

    library = "open_clip"
    prefix: ClassVar[str] = "open_clip:"
    wanted: ClassVar[hub.Wanted] = models.WANTED

    @classmethod
    def build(cls, folder: Path, spec: EncoderSpec, *, pretrained: bool) -> Built:
        """Build the image tower of the model in a folder."""
        row = row_of(spec.name)
        model = models.read(
            folder, cls.files_of(spec.name), architecture=row.architecture if row else "", pretrained=pretrained
        )
        return Built(model.image, model.dim, "projection", model.input_px, model.mean, model.std)
