"""KEEP as an image encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from spatialwhisperer.encoders import hub
from spatialwhisperer.encoders.image._published.folder import Built, FolderEncoder
from spatialwhisperer.encoders.image.base import IMAGENET_MEAN, IMAGENET_STD
from spatialwhisperer.encoders.published.table import specs
from spatialwhisperer.encoders.registry import register_encoder

if TYPE_CHECKING:
    from pathlib import Path

    from spatialwhisperer.encoders.spec import EncoderSpec


@register_encoder(*specs("custom"))
class KeepEncoder(FolderEncoder):
    """The image tower of KEEP, as a frozen encoder; a row has unit length.

    Examples
    --------
    >>> from spatialwhisperer.encoders.image.keep import KeepEncoder
    >>> KeepEncoder.spec.dim
    768
    """

    library = "transformers"
    # with the files of the tokenizer, so that the text tower finds them
    wanted: ClassVar[hub.Wanted] = hub.Wanted(others=("*.json", "vocab.txt"))

    @classmethod
    def build(cls, folder: Path, spec: EncoderSpec, *, pretrained: bool) -> Built:
        """Build the image tower."""
        from spatialwhisperer.encoders.image_text.keep import KeepImage, read

        keep = read(folder, pretrained=pretrained)
        dim = int(keep.visual_head[-1].out_features)  # type: ignore[arg-type]
        px = int(keep.visual.patch_embed.img_size[0])
        return Built(KeepImage(keep), dim, spec.pooling, px, IMAGENET_MEAN, IMAGENET_STD)
