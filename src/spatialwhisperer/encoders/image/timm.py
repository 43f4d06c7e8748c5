"""Networks of timm as image encoders."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatialwhisperer._messages import import_torch_stack
from spatialwhisperer.encoders.image.base import IMAGENET_MEAN, IMAGENET_STD
from spatialwhisperer.encoders.image.network import ModuleEncoder
from spatialwhisperer.encoders.image.weights import load_weights, weight_file
from spatialwhisperer.encoders.recipe import EncoderIdentity
from spatialwhisperer.encoders.registry import opens_other_names, register_encoder, registered
from spatialwhisperer.encoders.spec import EncoderSpec
from spatialwhisperer.settings import settings

if TYPE_CHECKING:
    import torch

# architecture of UNI2-h as its authors publish it for timm; layers are named here and looked up when it is built
_UNI2 = {
    "img_size": 224,
    "patch_size": 14,
    "depth": 24,
    "num_heads": 24,
    "init_values": 1e-5,
    "embed_dim": 1536,
    "mlp_ratio": 2.66667 * 2,
    "no_embed_class": True,
    "reg_tokens": 8,
    "dynamic_img_size": True,
}


_HALF = (0.5, 0.5, 0.5)


def _imagenet(
    name: str, dim: int, citation: str, *, mean: tuple = IMAGENET_MEAN, std: tuple = IMAGENET_STD
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
    )


@opens_other_names("image")
@register_encoder(
    _imagenet("resnet18", 512, "He et al. 2016, CVPR"),
    _imagenet("resnet50", 2048, "He et al. 2016, CVPR"),
    _imagenet("densenet121", 1024, "Huang et al. 2017, CVPR"),
    _imagenet("vit_small_patch16_224", 384, "Dosovitskiy et al. 2021, ICLR", mean=_HALF, std=_HALF),
    _imagenet("vit_small_patch16_224.dino", 384, "Caron et al. 2021, ICCV"),
    EncoderSpec(
        "uni2-h",
        "image",
        1536,
        input_px=224,
        mpp=0.5,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        licence="CC-BY-NC-ND-4.0",
        commercial=False,
        gated=True,
        url="https://huggingface.co/MahmoodLab/UNI2-h",
        citation="Chen et al. 2024, Nat Med 30:850",
    ),
    EncoderSpec(
        "h-optimus-0",
        "image",
        1536,
        input_px=224,
        mpp=0.5,
        mean=(0.707223, 0.578729, 0.703617),
        std=(0.211883, 0.230117, 0.177517),
        licence="apache-2.0",
        commercial=True,
        url="https://huggingface.co/bioptimus/H-optimus-0",
        citation="Saillard et al. 2024, H-optimus-0",
    ),
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

    def __init__(self, name: str, *, weights: str | Path | None = None, pretrained: bool = True) -> None:
        spec = _facts(name)
        file = None if weights is None else weight_file(weights)
        network: Any = _build(spec, pretrained and file is None)
        if file is not None:
            load_weights(network, file)
        self._file, self._pretrained = file, pretrained
        data = import_torch_stack("timm").data.resolve_model_data_config(network)
        super().__init__(
            network.eval().requires_grad_(False),
            replace(
                spec,
                dim=getattr(network, "head_hidden_size", network.num_features),
                input_px=spec.input_px or data["input_size"][-1],
                mean=spec.mean or tuple(data["mean"]),
                std=spec.std or tuple(data["std"]),
            ),
        )

    @classmethod
    def open(cls, name: str, *, weights: str | Path | None = None, pretrained: bool = True) -> TimmEncoder:
        """Build the network of a name with its weights."""
        return cls(name, weights=weights, pretrained=pretrained)

    @classmethod
    def known(cls, name: str) -> EncoderSpec | None:
        """Return the facts that timm has about a model id."""
        return _timm_spec(name)

    @classmethod
    def safe_name(cls, name: str) -> bool:
        """Whether timm has a model of that id. Addresses on the hub are not safe, because their content may change."""
        return not name.startswith("hf-hub:") and _timm_spec(name) is not None

    @classmethod
    def is_here(cls, name: str) -> bool:
        """Whether the published weights have been downloaded before."""
        from huggingface_hub import constants

        # timm is not imported to look into a cache that is not there
        return Path(constants.HF_HUB_CACHE).is_dir() and _cached(_recipe(_facts(name), True)[0]) is not None

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
        return super().identity if known is None else known


def _facts(name: str) -> EncoderSpec:
    spec = registered(name, "image") or _timm_spec(name)
    if spec is None:
        raise ValueError(f"timm has no model {name!r}; sw.models.list_encoders('image') lists what is registered.")
    return spec


def _revision(name: str) -> str | None:
    """Tag of the published weights that timm takes for a model id; ``None`` for models on the hub."""
    if registered(name, "image") is not None and _facts(name).mpp is not None or name.startswith("hf-hub:"):
        return None
    config = import_torch_stack("timm").get_pretrained_cfg(name, allow_unregistered=False)
    return None if config is None else str(config.tag or config.hf_hub_id or "")


def _build(spec: EncoderSpec, pretrained: bool) -> torch.nn.Module:
    """Build the network of an entry, with its published weights or without."""
    timm = import_torch_stack("timm")
    name, options = _recipe(spec, pretrained)
    if not pretrained:
        return timm.create_model(name, pretrained=False, num_classes=0, **options)
    if settings.offline:
        file = _cached(name)
        if file is None:
            raise FileNotFoundError(
                f"Encoder {spec.name!r} needs weights, none are cached, and the settings say offline. {_local(spec)}, "
                "take encoder='stain_texture', which has no weights, or set sw.settings.offline = False."
            )
        network = timm.create_model(_recipe(spec, False)[0], pretrained=False, num_classes=0, **_recipe(spec, False)[1])
        load_weights(network, file)
        return network
    try:
        return timm.create_model(name, pretrained=True, num_classes=0, **options)
    except (OSError, RuntimeError) as error:
        request = f"Request access at {spec.url} and log in with `hf auth login`. " if spec.gated else ""
        raise FileNotFoundError(
            f"The weights of {spec.name!r} (licence: {spec.licence}) could not be downloaded: {_first_line(error)} "
            f"{request}{_local(spec)}."
        ) from error


def _cached(name: str) -> Path | None:
    """Published weights of a timm name where they have been downloaded before."""
    from huggingface_hub import try_to_load_from_cache

    config = None if name.startswith("hf-hub:") else import_torch_stack("timm").get_pretrained_cfg(name)
    repository = name.removeprefix("hf-hub:") if config is None else config.hf_hub_id
    if not repository:
        return None
    file = try_to_load_from_cache(repository, "model.safetensors")
    return Path(file) if isinstance(file, str) else None


def _recipe(spec: EncoderSpec, pretrained: bool) -> tuple[str, dict[str, Any]]:
    """Name and options for timm.create_model."""
    if spec.name == "uni2-h":
        import torch

        layers = import_torch_stack("timm").layers
        options = _UNI2 | {"mlp_layer": layers.SwiGLUPacked, "act_layer": torch.nn.SiLU}
        return ("hf-hub:MahmoodLab/UNI2-h" if pretrained else "vit_giant_patch14_224"), options
    if spec.name == "h-optimus-0":
        options = {"init_values": 1e-5, "dynamic_img_size": False}
        if pretrained:
            return "hf-hub:bioptimus/H-optimus-0", options
        return "vit_giant_patch14_reg4_dinov2", options | {"img_size": 224, "global_pool": "token"}
    return spec.name, {}


def _timm_spec(name: str) -> EncoderSpec | None:
    """Facts that timm has about a model id, without building or downloading it; None where timm does not know it."""
    if name.startswith("hf-hub:"):
        return EncoderSpec(name, "image", None, url="https://huggingface.co/" + name.removeprefix("hf-hub:"))
    timm = import_torch_stack("timm")
    if not timm.is_model(name):
        return None
    config = timm.get_pretrained_cfg(name, allow_unregistered=False)
    if config is None or not config.input_size:
        return EncoderSpec(name, "image", None)
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
        url="https://huggingface.co/" + config.hf_hub_id if config.hf_hub_id else "",
    )


def _local(spec: EncoderSpec) -> str:
    return f"With a local copy: sw.models.open_encoder({spec.name!r}, 'image', weights='folder/with/model.safetensors')"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
