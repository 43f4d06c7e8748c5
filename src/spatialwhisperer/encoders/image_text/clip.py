"""CLIP and its relatives in transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spatialwhisperer.encoders import hub
from spatialwhisperer.encoders._transformers import SAFE, open_model, quiet
from spatialwhisperer.encoders.image_text.tower import Tower

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

WANTED = hub.Wanted(others=("*.json", "vocab.txt", "merges.txt", "*.model"))


def text_tower(folder: Path) -> Tower:
    """Text tower of a model of images and texts in a folder.

    Raises
    ------
    ValueError
        If the folder holds no such model.
    """
    from spatialwhisperer.encoders.image_text.networks import ProjectedText

    network = open_model(folder)
    if not hasattr(network, "text_model") or not hasattr(network, "text_projection"):
        raise ValueError(f"{folder} holds a {type(network).__name__}, which has no text tower with a projection.")
    return Tower(
        ProjectedText(network.text_model, network.text_projection),
        Tokens(folder, int(network.config.text_config.max_position_embeddings)),
        scale_of(network),
    )


class Tokens:
    """Turns texts into token ids and their attention mask, padded to the longest text."""

    def __init__(self, folder: Path, max_length: int) -> None:
        from transformers import AutoTokenizer

        try:
            with quiet():
                self.tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), **SAFE)
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise ValueError(
                f"{folder} holds no tokenizer that transformers can read ({hub.first_line(error)})."
            ) from error
        self.max_length = max_length

    def __call__(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Token ids and attention mask."""
        options = {"padding": True, "truncation": True, "max_length": self.max_length, "return_tensors": "pt"}
        out = self.tokenizer(list(texts), **options)
        return {key: out[key] for key in ("input_ids", "attention_mask")}


def scale_of(network: Any) -> float:
    """Factor of the cosines of a model, which is stored as its logarithm."""
    return float(network.logit_scale.detach().exp())
