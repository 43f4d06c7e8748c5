"""KEEP as an image encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from spatialwhisperer.encoders import hub
from spatialwhisperer.encoders.image._published.folder import Built, FolderEncoder
from spatialwhisperer.encoders.image._published.table import specs
from spatialwhisperer.encoders.image.base import IMAGENET_MEAN, IMAGENET_STD
from spatialwhisperer.encoders.registry import register_encoder

if TYPE_CHECKING:
    from pathlib import Path

    from spatialwhisperer.encoders.spec import EncoderSpec


@register_encoder(*specs("custom"))
class KeepEncoder(FolderEncoder):
    """The image side of KEEP, as a frozen encoder; a row has unit length.

    Examples
    --------
    >>> from spatialwhisperer.encoders.image.keep import KeepEncoder
    >>> KeepEncoder.spec.dim
    768
    """

    library = "transformers"
    wanted: ClassVar[hub.Wanted] = hub.Wanted(others=("*.json", "vocab.txt"))

    @classmethod
    def build(cls, folder: Path, spec: EncoderSpec, *, pretrained: bool) -> Built:
        """Build the image side."""
        from spatialwhisperer.encoders.image_text.keep import KeepImage, read

        keep = read(folder, pretrained=pretrained)
        dim = int(keep.visual_head[-1].out_features)  # type: ignore[arg-type]
        return Built(KeepImage(keep), dim, spec.pooling, None, IMAGENET_MEAN, IMAGENET_STD)
