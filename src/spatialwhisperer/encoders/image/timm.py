"""Frozen image encoders on arrays: uint8 tiles in, float32 features out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from spatialwhisperer._messages import found, import_torch_stack
from spatialwhisperer.encoders.image.tile_input import check_tiles
from spatialwhisperer.encoders.registry import IMAGENET_MEAN, IMAGENET_STD, EncoderSpec, get_spec

if TYPE_CHECKING:
    import torch

_PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}

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


@runtime_checkable
class ImageEncoder(Protocol):
    """What every image encoder offers; an object of your own with these two members is taken as it is.

    Attributes
    ----------
    spec
        Facts about the encoder; its name names the slot of the features.
    """

    spec: EncoderSpec

    def encode(self, tiles: np.ndarray, *, mpp: float, device: str | None = None) -> np.ndarray:
        """Turn uint8 tiles (n, 3, p, p) at `mpp` microns per pixel into float32 features (n, dim), row by row."""
        ...


class ModuleEncoder:
    """Any torch module that takes (n, 3, h, w) normalised floats and returns (n, d), as a frozen encoder.

    Tiles are resized to the module's input edge where the facts name one, scaled to [0, 1] and normalised. The module is put
    into evaluation mode for the call and back afterwards. On CUDA it runs under bfloat16 autocast.

    Parameters
    ----------
    module
        The network.
    spec
        Facts about it: input edge, mean, deviation, name.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from spatialwhisperer.models import EncoderSpec
    >>> from spatialwhisperer.encoders.image.timm import ModuleEncoder
    >>> net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
    >>> tiles = np.zeros((4, 3, 32, 32), np.uint8)
    >>> ModuleEncoder(net, EncoderSpec("pooled", "image", 12)).encode(tiles, mpp=0.5).shape
    (4, 12)
    """

    def __init__(self, module: torch.nn.Module, spec: EncoderSpec) -> None:
        self.module = module
        self.spec = spec

    def encode(self, tiles: np.ndarray, *, mpp: float, device: str | None = None) -> np.ndarray:
        """Compute the features of tiles.

        Parameters
        ----------
        tiles
            uint8 (n, 3, p, p) RGB.
        mpp
            Microns per pixel of the tiles. Checked, and otherwise unused: a network sees pixels, so tiles are cut at the
            resolution that the encoder was trained at.
        device
            Torch device; ``None`` takes that of the settings.

        Returns
        -------
        float32 (n, dim); row i depends on tile i alone.

        Raises
        ------
        TypeError
            Tiles are not uint8.
        ValueError
            Tiles have another shape, `mpp` is not positive, or the module does not return one row per tile.
        """
        import torch

        from spatialwhisperer.settings import settings

        tiles = check_tiles(tiles, mpp)
        if len(tiles) == 0 and self.spec.dim is not None:
            return np.empty((0, self.spec.dim), np.float32)
        where = torch.device(settings.resolve_device(device))
        was_training = [m for m in self.module.modules() if m.training]
        self.module.eval().to(where)
        try:
            with torch.inference_mode():
                parts = [
                    self._forward(tiles[start : start + settings.batch_size], where)
                    for start in range(0, max(len(tiles), 1), settings.batch_size)
                ]
        finally:
            for part in was_training:
                part.training = True
        return np.concatenate(parts)

    def _forward(self, tiles: np.ndarray, where: torch.device) -> np.ndarray:
        import torch

        x = self._prepare(torch.from_numpy(np.ascontiguousarray(tiles)).to(where))
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=where.type == "cuda"):
            y = self.module(x)
        if not isinstance(y, torch.Tensor) or y.ndim != 2 or len(y) != len(x):
            what = tuple(y.shape) if isinstance(y, torch.Tensor) else type(y).__name__
            raise ValueError(
                f"Encoder {self.spec.name!r} must return one row of features per tile, shape ({len(x)}, d), not {what}. "
                "Add pooling and flattening to the module."
            )
        return y.float().cpu().numpy()

    def _prepare(self, tiles: torch.Tensor) -> torch.Tensor:
        """Resize uint8 tiles where needed and normalise them."""
        import torch

        edge = self.spec.input_px
        if edge is not None and tiles.shape[-1] != edge:
            tiles = torch.nn.functional.interpolate(
                tiles, size=(edge, edge), mode="bilinear", align_corners=False, antialias=True
            )
        x = tiles.float() / 255
        if self.spec.mean is None:
            return x
        mean, std = (torch.tensor(v, device=x.device).view(1, 3, 1, 1) for v in (self.spec.mean, self.spec.std))
        return (x - mean) / std


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

    def __init__(self, name: str, *, weights: str | Path | None = None, pretrained: bool = True) -> None:
        spec = get_spec(name, "image")
        file = None if weights is None else _weight_file(weights)
        network = _build(spec, pretrained and file is None)
        if file is not None:
            _load(network, file)
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


def image_encoder(
    encoder: str | torch.nn.Module | ImageEncoder, *, weights: str | Path | None = None, pretrained: bool = True
) -> ImageEncoder:
    """Build a frozen image encoder.

    Parameters
    ----------
    encoder
        ``"stain_texture"`` (no weights), another registered name, any timm model id, ``"hf-hub:owner/model"``, a torch module
        that takes (n, 3, h, w) ImageNet-normalised floats and returns (n, d), or an object that is an encoder already. Give a
        module its own facts with `spatialwhisperer.encoders.image.timm.ModuleEncoder`.
    weights
        A ``.safetensors`` file, or a folder with exactly one, for a timm model. Pickled files are refused.
    pretrained
        Download the published weights of a timm model where `weights` is not given.

    Returns
    -------
    An encoder with ``.spec`` and ``.encode(tiles, mpp=…)``.

    Raises
    ------
    ValueError
        There is no such encoder, `weights` is given for an encoder that takes none, or the weights do not fit.
    TypeError
        `encoder` is none of the above.
    FileNotFoundError
        The weights are not there and cannot be downloaded; the message says where to ask for them and how to name a local
        copy.

    Examples
    --------
    >>> import numpy as np, spatialwhisperer as sw
    >>> encoder = sw.models.image_encoder("stain_texture")
    >>> encoder.encode(np.zeros((2, 3, 32, 32), np.uint8), mpp=1.0).shape == (2, encoder.spec.dim)
    True
    """
    if isinstance(encoder, str) and encoder != "stain_texture":
        return TimmEncoder(encoder, weights=weights, pretrained=pretrained)
    if weights is not None:
        raise ValueError(
            f"weights are for timm models; {encoder if isinstance(encoder, str) else type(encoder).__name__} takes none."
        )
    if isinstance(encoder, str):
        from spatialwhisperer.encoders.image.stain_texture import StainTextureEncoder

        return StainTextureEncoder()
    if isinstance(encoder, ImageEncoder) and not isinstance(encoder, type):
        return encoder
    if _is_module(encoder):
        name = type(encoder).__name__
        return ModuleEncoder(encoder, EncoderSpec(name, "image", None, mean=IMAGENET_MEAN, std=IMAGENET_STD))
    raise TypeError(
        "encoder must be a name, a torch module, or an object with .spec and .encode(tiles, mpp=…), "
        f"not {type(encoder).__name__}."
    )


def _is_module(value: Any) -> bool:
    import torch

    return isinstance(value, torch.nn.Module)


def _weight_file(weights: str | Path) -> Path:
    """Find the one safetensors file that `weights` names."""
    path = Path(weights).expanduser()
    if path.is_dir():
        files = sorted(path.glob("*.safetensors"))
        if len(files) == 1:
            return files[0]
        pickles = [f.name for f in path.iterdir() if f.suffix in _PICKLES]
        there = found(f.name for f in files) if files else f"no .safetensors file, but {found(pickles)}"
        raise ValueError(
            f"{path} must hold exactly one .safetensors file; it has {there}. {_CONVERT if not files else ''}"
        )
    if path.suffix in _PICKLES:
        raise ValueError(f"{path.name} is a pickle, and opening one runs whatever code it holds. {_CONVERT}")
    if not path.is_file():
        raise FileNotFoundError(f"There are no weights at {path}.")
    if path.suffix != ".safetensors":
        raise ValueError(f"weights must be a .safetensors file, not {path.name}.")
    return path


_CONVERT = "Convert a file that you trust once: safetensors.torch.save_file(torch.load(file, weights_only=True), 'model.safetensors')."


def _build(spec: EncoderSpec, pretrained: bool) -> torch.nn.Module:
    """Build the network of an entry, with its published weights or without."""
    timm = import_torch_stack("timm")
    from spatialwhisperer.settings import settings

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
        _load(network, file)
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


def _load(network: torch.nn.Module, file: Path) -> None:
    """Load a safetensors file; a classifier in it is passed over, anything else must fit exactly."""
    from safetensors.torch import load_file

    state = load_file(file)
    own = network.state_dict()
    head = {
        "head.weight",
        "head.bias",
        "fc.weight",
        "fc.bias",
        "classifier.weight",
        "classifier.bias",
        "head.fc.weight",
        "head.fc.bias",
    }
    missing = sorted(own.keys() - state.keys())
    extra = sorted(state.keys() - own.keys() - head)
    misfit = sorted(k for k in own.keys() & state.keys() if own[k].shape != state[k].shape)
    if missing or extra or misfit:
        raise ValueError(
            f"{file.name} does not fit the network. Missing: {found(missing, 4)}. Not in the network: {found(extra, 4)}. "
            f"Of another shape: {found(misfit, 4)}."
        )
    network.load_state_dict({k: state[k] for k in own})


def _local(spec: EncoderSpec) -> str:
    return f"With a local copy: image_encoder({spec.name!r}, weights='folder/with/model.safetensors')"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
