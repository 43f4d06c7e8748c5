"""An ImageNet MobileNet from a file of 8-bit weights and a list of operations, as an image encoder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from spatialwhisperer.encoders.image.networks.module import ModuleEncoder
from spatialwhisperer.encoders.spec import EncoderSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from spatialwhisperer.encoders.image.base import ImageEncoder

DIMENSIONS = {"mobilenet_v1": 1024, "mobilenet_v2": 1280}


class MobileNet(nn.Module):
    """A network that runs the operations up to the pooled features.

    Parameters
    ----------
    path
        ``.npz`` with ``meta`` (JSON: operations and input scaling) and for each convolution its weights as bytes, their scale
        and zero point, and its bias.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        with np.load(path, allow_pickle=False) as stored:
            meta = json.loads(stored["meta"].tobytes())
            self.operations = [op for op in meta["ops"] if op["op"] in _STEPS]
            self.first, self.zero, self.scale = meta["input"], float(meta["in_zero"]), float(meta["in_scale"])
            for op in self.operations:
                if "k" in op:
                    self._add_weights(op, stored)

    def _add_weights(self, op: dict[str, Any], stored: Mapping[str, np.ndarray]) -> None:
        k = op["k"]
        scale, zero = stored[f"q{k}"]
        weight = (stored[f"w{k}"].astype(np.float32) - zero) * scale
        # stored as (out, h, w, in), depthwise as (1, h, w, channels)
        order = (3, 0, 1, 2) if op["op"].startswith("DEPTHWISE") else (0, 3, 1, 2)
        self.register_buffer(f"weight{k}", torch.from_numpy(np.ascontiguousarray(weight.transpose(order))))
        self.register_buffer(f"bias{k}", torch.from_numpy(stored[f"b{k}"].astype(np.float32)))

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        """Pooled features of RGB tiles in [0, 1], shape (n, 3, p, p)."""
        values = {self.first: (tiles * 255 - self.zero) * self.scale}
        for op in self.operations:
            values[op["y"]] = _STEPS[op["op"]](self, op, values)
            if op["op"] == "AVERAGE_POOL_2D":
                return values[op["y"]]
        raise ValueError("This network has no pooling layer.")

    def _convolve(self, op: dict[str, Any], values: dict[int, torch.Tensor]) -> torch.Tensor:
        x, weight = values[op["x"]], getattr(self, f"weight{op['k']}")
        if op["same"]:
            x = functional.pad(x, _padding(x.shape[2:], weight.shape[2:], op["stride"]))
        groups = weight.shape[0] if op["op"].startswith("DEPTHWISE") else 1
        y = functional.conv2d(x, weight, getattr(self, f"bias{op['k']}"), stride=op["stride"], groups=groups)
        return y.clamp(op["lo"], op["hi"])

    def _add(self, op: dict[str, Any], values: dict[int, torch.Tensor]) -> torch.Tensor:
        return (values[op["x"]] + values[op["x2"]]).clamp(op["lo"], op["hi"])

    def _pool(self, op: dict[str, Any], values: dict[int, torch.Tensor]) -> torch.Tensor:
        return values[op["x"]].mean(dim=(2, 3))


def _padding(size: Sequence[int], kernel: Sequence[int], stride: int) -> list[int]:
    """Padding at left, right, top and bottom after which a convolution returns size / stride; the odd pixel is at the end."""
    need = [max((-(-s // stride) - 1) * stride + k - s, 0) for s, k in zip(size, kernel, strict=True)]
    return [need[1] // 2, need[1] - need[1] // 2, need[0] // 2, need[0] - need[0] // 2]


_STEPS = {
    "CONV_2D": MobileNet._convolve,
    "DEPTHWISE_CONV_2D": MobileNet._convolve,
    "ADD": MobileNet._add,
    "AVERAGE_POOL_2D": MobileNet._pool,
}


def mobilenet(path: Path) -> ImageEncoder:
    """The network of a file ``<name>_imagenet….npz`` as an image encoder."""
    name = path.name.split("_imagenet")[0]
    spec = EncoderSpec(
        name,
        "image",
        DIMENSIONS[name],
        input_px=224,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        licence="apache-2.0",
        commercial=True,
    )
    return ModuleEncoder(MobileNet(path), spec)
