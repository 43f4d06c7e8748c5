"""Towers that learn together with the heads: raw tiles, counts or captions in, features out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from spatialwhisperer._messages import require

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class ImageTower(nn.Module):
    """An image network over uint8 tiles.

    Parameters
    ----------
    network
        Takes normalised float tiles (n, 3, p, p), returns (n, d).
    mean, std
        Of RGB in [0, 1].
    """

    def __init__(
        self, network: nn.Module, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean or _IMAGENET[0]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std or _IMAGENET[1]).view(1, 3, 1, 1), persistent=False)

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        """Features of uint8 tiles (n, 3, p, p); shape (n, d)."""
        return self.network((tiles.float() / 255 - self.mean) / self.std)

    @staticmethod
    def collate(tiles: np.ndarray) -> torch.Tensor:
        """Tiles as a tensor."""
        return torch.from_numpy(np.ascontiguousarray(tiles))


class GeneTower(nn.Module):
    """The network of a fitted gene encoder over counts."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, counts: torch.Tensor) -> torch.Tensor:
        """Latent means of counts (n, g); shape (n, d)."""
        return self.network(counts)

    @staticmethod
    def collate(counts: Any) -> torch.Tensor:
        """Counts as a dense tensor."""
        dense = counts.toarray() if hasattr(counts, "toarray") else counts
        return torch.from_numpy(np.asarray(dense, dtype=np.float32))


class TextTower(nn.Module):
    """A Hugging Face text model, mean-pooled over the tokens."""

    def __init__(self, network: nn.Module, tokenizer: Any, max_length: int = 128) -> None:
        super().__init__()
        self.network = network
        self.tokenizer = tokenizer
        self.max_length = max_length

    def forward(self, tokens: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Mean of the token states where the attention mask is set; shape (n, d)."""
        hidden = self.network(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        return (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp_min(1)

    def collate(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Captions as padded token tensors."""
        return dict(
            self.tokenizer(list(texts), padding=True, truncation=True, max_length=self.max_length, return_tensors="pt")
        )

    def save_files(self, folder: Path) -> None:
        """Write what rebuilding needs besides the weights: the configuration and the tokenizer."""
        self.network.config.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def make_image_tower(encoder: str | nn.Module, *, pretrained: bool) -> tuple[nn.Module, dict[str, Any], int, int]:
    """Build an image tower.

    Returns
    -------
    The tower, the plain values that rebuild it, its feature dimension and its input edge in pixels (0: any).
    """
    if isinstance(encoder, nn.Module):
        return ImageTower(encoder), {"kind": "module"}, _probe(encoder), 0
    from spatialwhisperer.encoders.image.timm import image_encoder

    built = image_encoder(encoder, pretrained=pretrained)
    network = built.module.requires_grad_(True)
    tower = ImageTower(network, built.spec.mean, built.spec.std)
    return tower, {"kind": "timm", "name": encoder}, int(built.spec.dim or 0), int(built.spec.input_px or 0)


def _probe(network: nn.Module) -> int:
    """Feature dimension of a caller's own network, from one blank tile."""
    was = network.training
    with torch.no_grad():
        out = network.eval()(torch.zeros(1, 3, 224, 224, device=next(network.parameters()).device))
    network.train(was)
    if out.ndim != 2:
        raise ValueError(
            f"An image network must return a matrix (n, d) for tiles (n, 3, p, p); found {tuple(out.shape)}."
        )
    return int(out.shape[1])


def make_text_tower(source: str, *, pretrained: bool = True) -> tuple[nn.Module, dict[str, Any], int]:
    """Build a text tower from a Hugging Face id or a local folder; with its plain values and its dimension."""
    transformers = require("transformers", extra="text")
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    if pretrained:
        network = transformers.AutoModel.from_pretrained(source, use_safetensors=True)
    else:
        network = transformers.AutoModel.from_config(transformers.AutoConfig.from_pretrained(source))
    return TextTower(network, tokenizer), {"kind": "huggingface"}, int(network.config.hidden_size)


def rebuild_towers(config: Mapping[str, Any], folder: Path, given: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Towers of a stored model with fresh weights, to be filled from its weight file.

    Raises
    ------
    ValueError
        If a tower was the caller's own module and is not given.
    """
    from spatialwhisperer.encoders.gene.all import load_gene_encoder

    towers: dict[str, nn.Module] = {}
    for modality, how in config.get("towers", {}).items():
        if modality in given:
            module = given[modality]
            towers[modality] = module if hasattr(module, "collate") else ImageTower(module)
        elif how["kind"] == "timm":
            towers[modality] = make_image_tower(how["name"], pretrained=False)[0]
        elif how["kind"] == "huggingface":
            towers[modality] = make_text_tower(str(Path(folder) / "text_tower"), pretrained=False)[0]
        elif how["kind"] == "gene_encoder":
            towers[modality] = GeneTower(load_gene_encoder(Path(folder) / "gene_encoder").module())
        else:
            raise ValueError(
                f"The {modality} tower of this model was a module of the caller's. Pass it: "
                f"Whisperer.load(folder, towers={{{modality!r}: module}})."
            )
    return towers
