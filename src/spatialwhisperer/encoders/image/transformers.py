"""Vision models of transformers as image encoders."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from spatialwhisperer._messages import require
from spatialwhisperer.encoders.image._published.folder import Built, FolderEncoder
from spatialwhisperer.encoders.image_text import clip
from spatialwhisperer.encoders.published.table import specs
from spatialwhisperer.encoders.registry import opens_other_names, register_encoder

if TYPE_CHECKING:
    from pathlib import Path

    from spatialwhisperer.encoders import hub
    from spatialwhisperer.encoders.spec import EncoderSpec


@opens_other_names("image")
@register_encoder(*specs("transformers"))
class TransformersEncoder(FolderEncoder):
    """A vision model of transformers, as a frozen encoder: a registered name, or ``"transformers:owner/model"``.

    No code from a repository is run. Tokens are pooled as the facts state. Where these state nothing, a model of images and texts gives
    its projection, a network with a class token that token, and any other one its own pooler output, or where it has none the mean of
    its tokens or positions. A masked autoencoder sees all patches.

    Examples
    --------
    >>> from spatialwhisperer.encoders.image.transformers import TransformersEncoder
    >>> TransformersEncoder.known("transformers:owner/model").url
    'https://huggingface.co/owner/model'
    """

    library = "transformers"
    prefix: ClassVar[str] = "transformers:"
    # with the files of the tokenizer, so that a text tower finds them
    wanted: ClassVar[hub.Wanted] = clip.WANTED

    @classmethod
    def build(cls, folder: Path, spec: EncoderSpec, *, pretrained: bool) -> Built:
        """Build the image tower of the model in a folder."""
        require("transformers", extra="text")
        from spatialwhisperer.encoders.image._published.transformers_source import build

        return build(folder, spec, pretrained=pretrained)
