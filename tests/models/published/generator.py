"""Writes a checkpoint of the layout of the published one, with random weights, pickled under the original names of the classes."""

from __future__ import annotations

import sys
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CLASSES = {
    "cellwhisperer.jointemb.config": ("TranscriptomeTextDualEncoderConfig",),
    "cellwhisperer.jointemb.uni_model": ("UNIConfig",),
    "cellwhisperer.jointemb.geneformer_model": ("GeneformerConfig",),
    "cellwhisperer.jointemb.loss.config": ("LossConfig",),
}
BLOCKS = {"gene": "transcriptome_block", "text": "text_block", "image": "image_block"}


@dataclass(frozen=True)
class Sizes:
    """Sizes of a checkpoint; no layers write one whose text tower was locked."""

    u: int = 32
    gene: int = 512
    image: int = 1536
    text: int = 128
    layers: int = 2
    inner: int = 96
    positions: int = 40
    vocabulary: int = 40


FULL = Sizes(u=2048, text=768, layers=0)


class _Block(nn.Module):
    def __init__(self, d: int, u: int) -> None:
        super().__init__()
        self.feature_nonlinear = nn.Sequential(
            nn.Linear(d, u, bias=False), nn.BatchNorm1d(u), nn.ReLU(), nn.Linear(u, u)
        )
        self.feature_shortcut = nn.Linear(d, u)
        self.feature_block_ln = nn.LayerNorm(u)


def new_bert(sizes: Sizes) -> Any:
    from transformers import BertConfig, BertModel

    config: Any = {
        "vocab_size": sizes.vocabulary,
        "hidden_size": sizes.text,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.text // 64,
        "intermediate_size": sizes.inner,
        "max_position_embeddings": sizes.positions,
    }
    return BertModel(BertConfig(**config))


def state_dict(sizes: Sizes, seed: int = 0) -> OrderedDict[str, torch.Tensor]:
    """Random weights by their published names; batch norms have seen data."""
    out: OrderedDict[str, torch.Tensor] = OrderedDict()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if sizes.layers:
            bert = new_bert(sizes).state_dict()
            out |= {
                f"model.text_model.{name}": v + 0.05 * torch.randn_like(v)
                for name, v in bert.items()
                if v.is_floating_point()
            }
        for modality, block in BLOCKS.items():
            made = _Block(getattr(sizes, modality), sizes.u)
            norm = made.feature_nonlinear[1]
            norm.running_mean.normal_()  # type: ignore[operator]
            norm.running_var.uniform_(0.5, 2)  # type: ignore[operator]
            norm.num_batches_tracked.fill_(14_624)  # type: ignore[operator]
            for name, value in made.state_dict().items():
                moved = value + 0.1 * torch.randn_like(value) if name.endswith("bias") else value
                out[f"model.discriminator.{block}.{name}"] = moved
        out["model.discriminator.temperature"] = torch.tensor(2.9)
    return out


def towers() -> dict[str, torch.Tensor]:
    """Frozen towers as a full checkpoint holds them: a small ViT of timm and a small Geneformer."""
    import timm
    from transformers import BertConfig, BertForMaskedLM

    with torch.random.fork_rng():
        torch.manual_seed(1)
        image = timm.create_model("vit_tiny_patch16_224", depth=1, num_classes=0)
        config: Any = {
            "vocab_size": 10,
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 8,
        }
        gene = BertForMaskedLM(BertConfig(**config))
    out = {f"model.image_model.model.{name}": value for name, value in image.state_dict().items()}
    return out | {f"model.transcriptome_model.geneformer_model.{name}": v for name, v in gene.state_dict().items()}


@contextmanager
def original_classes() -> Iterator[dict[str, type]]:
    """Classes of the published code under their names, for the length of the block: a pickle states where a class is defined."""
    names = {".".join(name.split(".")[: i + 1]) for name in _CLASSES for i in range(name.count(".") + 1)}
    made: dict[str, type] = {}
    for name in names:
        sys.modules[name] = ModuleType(name)
    for module, classes in _CLASSES.items():
        for one in classes:
            made[one] = type(one, (), {"__module__": module})
            setattr(sys.modules[module], one, made[one])
    try:
        yield made
    finally:
        for name in names:
            del sys.modules[name]


def write_checkpoint(path: Path, state: Any, *, projection_dim: int = 512, **others: Any) -> Path:
    """Save weights as the training code does. The stated dimension is wrong on purpose: the published pages disagree about it."""
    from transformers import BertConfig

    with original_classes() as classes:

        def configuration(name: str, **values: Any) -> Any:
            made = classes[name]()
            vars(made).update(values)
            return made

        hyper = {
            "model_config": configuration(
                "TranscriptomeTextDualEncoderConfig",
                projection_dim=projection_dim,
                locking_mode="LUL",
                image_config=configuration("UNIConfig", views={"context": 224, "cell": 56}, embed_dim=1536),
                transcriptome_config=configuration("GeneformerConfig", emb_layer=-1, hidden_size=512),
                text_config=BertConfig(),
            ),
            "loss_config": configuration("LossConfig", clip_lambda=1.0, sample_weighting=False, names={"a", "b"}),
            "learning_rate": 1e-5,
            "max_epochs": 4,
            "frozen_warmup": None,
            "folder": path.parent,
            "precision": torch.float32,
        }
        whole = {
            "epoch": 3,
            "global_step": 14_624,
            "pytorch-lightning_version": "2.1.0",
            "state_dict": state,
            "loops": {"fit_loop": {"state_dict": {}}},
            "callbacks": {},
            "hparams_name": "kwargs",
            "hyper_parameters": hyper,
            **others,
        }
        torch.save(whole, path)
    return path
