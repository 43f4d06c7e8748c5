"""KEEP, a vision transformer beside a BERT; the network is built here, so that no code of its repository runs.

Source: Zhou et al. 2026, Cancer Cell; the layout of the weights is that of https://huggingface.co/Astaxanthin/KEEP.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from spatialwhisperer._messages import import_torch_stack, listing, require
from spatialwhisperer.encoders import hub
from spatialwhisperer.encoders.image.weights import read_state
from spatialwhisperer.encoders.image_text.clip import Tokens, scale_of
from spatialwhisperer.encoders.image_text.networks import PoolerText
from spatialwhisperer.encoders.image_text.tower import Tower

if TYPE_CHECKING:
    from pathlib import Path

WANTED = hub.Wanted(others=("*.json", "vocab.txt"))
_TEXT_TOKENS = 256
_VISION = ("img_size", "patch_size", "init_values")


class Keep(nn.Module):
    """Both towers of KEEP, and the logarithm of the factor of its cosines."""

    def __init__(self, vision: dict[str, Any], text: dict[str, Any], dim: int) -> None:
        super().__init__()
        timm, transformers = import_torch_stack("timm"), require("transformers", extra="text")
        architecture = vision.get("architecture", "vit_large_patch16_224")
        options = {key: vision[key] for key in (*_VISION, "embed_dim", "depth", "num_heads") if key in vision}
        self.visual = timm.create_model(architecture, pretrained=False, num_classes=0, **options)
        self.visual_head = nn.Sequential(nn.Linear(self.visual.num_features, dim), nn.GELU(), nn.Linear(dim, dim))
        self.text = transformers.BertModel(transformers.BertConfig(**text))
        self.logit_scale = nn.Parameter(torch.zeros([]))


class KeepImage(nn.Module):
    """Image tower of KEEP: rows of unit length."""

    def __init__(self, keep: Keep) -> None:
        super().__init__()
        self.visual, self.visual_head = keep.visual, keep.visual_head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features of normalised tiles (n, 3, p, p)."""
        return nn.functional.normalize(self.visual_head(self.visual(x)), dim=1)


def read(folder: Path, *, pretrained: bool = True) -> Keep:
    """Build KEEP from a folder with its configuration, and load its weights.

    Raises
    ------
    ValueError
        If the configuration is another one, or weights are missing or of another shape.
    """
    try:
        stated = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        network = Keep(dict(stated["vision_config"]), dict(stated["text_config"]), int(stated["projection_dim"]))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{folder} does not hold the configuration of KEEP ({hub.first_line(error)}).") from error
    if pretrained:
        _load(network, next(iter(sorted(folder.glob("*.safetensors"))), folder / "model.safetensors"))
    return network.eval()


def text_tower(folder: Path) -> Tower:
    """Text tower of KEEP in a folder: the pooler output of its BERT.

    Raises
    ------
    ValueError
        If the folder holds something else.
    """
    network = read(folder)
    tokens = Tokens(folder, min(_TEXT_TOKENS, int(network.text.config.max_position_embeddings)))
    return Tower(PoolerText(network.text), tokens, scale_of(network))


def _load(network: Keep, file: Path) -> None:
    # its authors gave the scale of a layer another name than timm
    state = {
        name.replace(".ls1.weight", ".ls1.gamma").replace(".ls2.weight", ".ls2.gamma"): v
        for name, v in read_state(file).items()
    }
    own = network.state_dict()
    # older versions of transformers store the positions
    wrong = sorted(
        name
        for name in (own.keys() | state.keys()) - {"text.embeddings.position_ids"}
        if name not in own or name not in state or own[name].shape != state[name].shape
    )
    if wrong:
        raise ValueError(f"{file.name} does not fit KEEP: check {listing(wrong, 4)}.")
    network.load_state_dict({name: state[name] for name in own})
