"""Models of real library classes at tiny size with random weights, as repositories of the hub hold them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

PX, MEAN, STD = 32, (0.7, 0.58, 0.7), (0.21, 0.23, 0.18)
VIT: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": PX,
    "patch_size": 8,
}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "fat", "cell", "cells", "t", "a", "of", "many", "tumour"]


def transformers_repository(folder: Path, kind: str) -> Any:
    """A vision model, or CLIP."""
    transformers = pytest.importorskip("transformers")
    size = VIT
    if kind == "clip":
        text = {
            **size,
            "vocab_size": len(WORDS),
            "eos_token_id": 3,
            "max_position_embeddings": 12,
            "projection_dim": 20,
        }
        config = transformers.CLIPConfig(
            text_config=text, vision_config={**size, "projection_dim": 20}, projection_dim=20
        )
        network = transformers.CLIPModel(config)
    elif kind == "resnet":
        config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic")
        network = transformers.ResNetModel(config)
    else:
        make = {"vit": "ViT", "dinov2": "Dinov2", "registers": "Dinov2WithRegisters"}[kind]
        network = getattr(transformers, f"{make}Model")(getattr(transformers, f"{make}Config")(**size))
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "image_mean": MEAN,
                "image_std": STD,
                "crop_size": {"height": PX, "width": PX},
                "size": {"shortest_edge": 40},
            }
        )
    )
    return network.eval()


def open_clip_repository(folder: Path, *, built: dict[str, Any] | None = None, **changes: Any) -> Any:
    """A model of open_clip; ``built`` is the configuration of its text tower as it is built here, where that differs."""
    open_clip = pytest.importorskip("open_clip")
    from safetensors.torch import save_file

    tower = {"layers": 2, "width": 64, "head_width": 32}
    stated = {
        "model_cfg": {
            "embed_dim": 20,
            "vision_cfg": {**tower, "image_size": PX, "patch_size": 8},
            "text_cfg": {"layers": 2, "width": 32, "heads": 2, "context_length": 16, "vocab_size": 49408},
            **changes,
        },
        "preprocess_cfg": {"mean": MEAN, "std": STD},
    }
    file = folder / "open_clip_config.json"
    own = stated if built is None else {**stated, "model_cfg": {**stated["model_cfg"], "text_cfg": built}}
    file.write_text(json.dumps(own))
    network = open_clip.create_model(f"local-dir:{folder}", pretrained_hf=False, load_weights=False)
    file.write_text(json.dumps(stated))
    save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    return network.eval()


def keep_repository(folder: Path) -> Any:
    """KEEP with the names that its authors gave to the layers."""
    pytest.importorskip("transformers")
    from safetensors.torch import save_file

    from spatialwhisperer.encoders.image_text.keep import Keep

    vision = {
        "architecture": "vit_tiny_patch16_224",
        "img_size": PX,
        "patch_size": 8,
        "init_values": 0.5,
        "embed_dim": 24,
        "depth": 2,
        "num_heads": 2,
    }
    text = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "vocab_size": len(WORDS),
        "max_position_embeddings": 24,
    }
    network = Keep(vision, text, 16)
    state = {
        n.replace("ls1.gamma", "ls1.weight").replace("ls2.gamma", "ls2.weight"): v
        for n, v in network.state_dict().items()
    }
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(
        json.dumps({"vision_config": vision, "text_config": text, "projection_dim": 16})
    )
    return network.eval()


def bert_tokenizer(folder: Path) -> None:
    """Words as tokens."""
    from transformers import BertTokenizerFast  # type: ignore[attr-defined]

    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
