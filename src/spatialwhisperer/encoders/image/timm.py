"""Networks of timm as image encoders."""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from spatialwhisperer._messages import import_torch_stack
from spatialwhisperer._random import untouched_rng
from spatialwhisperer.encoders.hub import HUB
from spatialwhisperer.encoders.image._published.timm_source import HUB_PREFIX, Source
from spatialwhisperer.encoders.image.base import IMAGENET_MEAN, IMAGENET_STD
from spatialwhisperer.encoders.image.networks.module import ModuleEncoder
from spatialwhisperer.encoders.image.weights import weight_file
from spatialwhisperer.encoders.published.table import row_of, specs
from spatialwhisperer.encoders.recipe import EncoderIdentity
from spatialwhisperer.encoders.registry import opens_other_names, register_encoder, registered
from spatialwhisperer.encoders.spec import EncoderSpec

if TYPE_CHECKING:
    from pathlib import Path

_HALF = (0.5, 0.5, 0.5)
_BEFORE_RELU = "average before the last ReLU"


def _imagenet(
    name: str, dim: int, citation: str, pooling: str, *, mean: tuple = IMAGENET_MEAN, std: tuple = IMAGENET_STD
) -> EncoderSpec:
    """Build the entry of an ungated ImageNet model of timm; the values are those of timm's own configuration."""
    return EncoderSpec(
        name,
        "image",
        dim,
        input_px=224,
        mean=mean,
        std=std,
        licence="apache-2.0",
        commercial=True,
        url="https://github.com/huggingface/pytorch-image-models",
        citation=citation,
        loader="timm",
        pooling=pooling,
    )


@opens_other_names("image")
@register_encoder(
    _imagenet("resnet18", 512, "He et al. 2016, CVPR", "average"),
    _imagenet("resnet50", 2048, "He et al. 2016, CVPR", "average"),
    _imagenet("densenet121", 1024, "Huang et al. 2017, CVPR", "average"),
    # as mclSTExp takes it
    _imagenet("densenet121.tv_in1k", 1024, "Huang et al. 2017, CVPR", _BEFORE_RELU),
    _imagenet("vit_small_patch16_224", 384, "Dosovitskiy et al. 2021, ICLR", "cls", mean=_HALF, std=_HALF),
    _imagenet("vit_small_patch16_224.dino", 384, "Caron et al. 2021, ICCV", "cls"),
    *specs("timm"),
)
class TimmEncoder(ModuleEncoder):
    """A timm model without its classifier, as a frozen encoder.

    Parameters
    ----------
    name
        Registered name, timm model id or ``"hf-hub:owner/model"``.
    weights
        A ``.safetensors`` file, or a folder with exactly one; loaded instead of the published weights.
    pretrained
        Download the published weights where `weights` is not given; off leaves the network at random.
    revision
        Commit, tag or branch of a repository on the hub; ``None`` takes what the cache holds, else the latest.

    Raises
    ------
    ValueError
        There is no such encoder; the weights are a pickle or do not fit the network.
    FileNotFoundError
        `weights` does not exist, or the published weights cannot be had: gated, or the settings say offline.

    Examples
    --------
    >>> import numpy as np
    >>> from spatialwhisperer.encoders.image.timm import TimmEncoder
    >>> TimmEncoder("resnet18", pretrained=False).encode(np.zeros((1, 3, 64, 64), np.uint8), mpp=0.5).shape
    (1, 512)
    """

    library = "timm"
    channels_last = True

    def __init__(
        self, name: str, *, weights: str | Path | None = None, pretrained: bool = True, revision: str | None = None
    ) -> None:
        spec = _facts(name)
        file = None if weights is None else weight_file(weights)
        source = Source(spec, pretrained=pretrained and file is None, revision=revision)
        if revision is not None and not source.repository:
            raise ValueError(
                f"revision is for encoders from the hub; the weights of {name!r} come with its name: a model id of timm names "
                "its version, as in 'resnet18.a1_in1k'."
            )
        # initial weights are drawn before the stored ones take their place
        with untouched_rng() if pretrained or file is not None else nullcontext():
            network: Any = source.network()
        if file is not None:
            source.load(network, file)
        self._file, self._pretrained = file, pretrained
        self.commit, self._pinned = source.commit, revision is not None
        data = import_torch_stack("timm").data.resolve_model_data_config(network)
        dim = getattr(network, "head_hidden_size", network.num_features)
        if spec.pooling == _BEFORE_RELU:
            from torch import nn

            network.features.norm5.act = nn.Identity()
        if spec.pooling in ("cls+mean", "mean"):
            from spatialwhisperer.encoders.image._published.pooling import TimmTokens

            network = TimmTokens(network, spec.pooling)
            dim *= 1 + (spec.pooling == "cls+mean")
        super().__init__(
            network.eval().requires_grad_(False),
            replace(
                spec,
                dim=dim,
                input_px=spec.input_px or data["input_size"][-1],
                mean=spec.mean or tuple(data["mean"]),
                std=spec.std or tuple(data["std"]),
            ),
        )

    @classmethod
    def open(
        cls, name: str, *, weights: str | Path | None = None, pretrained: bool = True, revision: str | None = None
    ) -> TimmEncoder:
        """Build the network of a name with its weights."""
        return cls(name, weights=weights, pretrained=pretrained, revision=revision)

    @classmethod
    def known(cls, name: str) -> EncoderSpec | None:
        """Return the facts that timm has about a model id."""
        return _timm_spec(name)

    @classmethod
    def safe_name(cls, name: str) -> bool:
        """Whether timm has a model of that id. Addresses on the hub are not safe, because their content may change."""
        return not name.startswith(HUB_PREFIX) and _timm_spec(name) is not None

    @classmethod
    def is_here(cls, name: str) -> bool:
        """Whether the published weights have been downloaded before."""
        return Source(_facts(name), pretrained=True).is_here()

    @classmethod
    def suggestions(cls) -> list[str]:
        """List the model ids of timm."""
        return list(import_torch_stack("timm").list_models())

    @classmethod
    def identify(
        cls, name: str, *, weights: str | Path | None = None, pretrained: bool = True
    ) -> EncoderIdentity | None:
        """Return the revision of published weights or the digest of a local file; ``None`` for random weights."""
        if weights is not None:
            with weight_file(weights).open("rb") as file:
                return EncoderIdentity(name, digest=hashlib.file_digest(file, "sha256").hexdigest())
        return EncoderIdentity(name, revision=_revision(name)) if pretrained else None

    @property
    def identity(self) -> EncoderIdentity:
        """Name with the revision of published weights, or with the digest of other weights."""
        known = self.identify(self.spec.name, weights=self._file, pretrained=self._pretrained)
        if known is None:
            return super().identity
        return replace(known, revision=self.commit) if self._pinned else known


def _facts(name: str) -> EncoderSpec:
    spec = registered(name, "image") or _timm_spec(name)
    if spec is None:
        raise ValueError(f"timm has no model {name!r}; sw.models.list_encoders('image') lists what is registered.")
    return spec


def _revision(name: str) -> str | None:
    """Tag of the published weights that timm takes for a model id; ``None`` for models on the hub."""
    if row_of(name) is not None or name.startswith(HUB_PREFIX):
        return None
    config = import_torch_stack("timm").get_pretrained_cfg(name, allow_unregistered=False)
    return None if config is None else str(config.tag or config.hf_hub_id or "")


def _timm_spec(name: str) -> EncoderSpec | None:
    """Facts that timm has about a model id, without building or downloading it; None where timm does not know it."""
    if name.startswith(HUB_PREFIX):
        return EncoderSpec(name, "image", None, url=HUB + name.removeprefix(HUB_PREFIX), loader="timm")
    timm = import_torch_stack("timm")
    if not timm.is_model(name):
        return None
    config = timm.get_pretrained_cfg(name, allow_unregistered=False)
    if config is None or not config.input_size:
        return EncoderSpec(name, "image", None, loader="timm")
    licence = config.license or "unknown"
    return EncoderSpec(
        name,
        "image",
        None,
        input_px=config.input_size[-1],
        mean=tuple(config.mean),
        std=tuple(config.std),
        licence=licence,
        commercial={"apache-2.0": True, "mit": True, "bsd-3-clause": True}.get(
            licence, False if "-nc" in licence else None
        ),
        url=HUB + config.hf_hub_id if config.hf_hub_id else "",
        loader="timm",
    )
