"""Torch modules as image encoders."""

from __future__ import annotations

import copy
import math
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from spatialwhisperer._compute.precision import precision
from spatialwhisperer._settings import settings
from spatialwhisperer.encoders.digests import module_digest
from spatialwhisperer.encoders.image.base import ImageEncoder, check_tiles
from spatialwhisperer.encoders.recipe import EncoderIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

    from spatialwhisperer._compute.batched import Computing
    from spatialwhisperer.encoders.spec import EncoderSpec


class ModuleEncoder(ImageEncoder):
    """Any torch module that takes (n, 3, h, w) normalised floats and returns (n, d), as a frozen encoder.

    Tiles are resized to the module's input edge where the facts name one, scaled to [0, 1] and normalised. The module is put
    into evaluation mode for the call and back afterwards. It stays on its device: on another one a copy computes. On CUDA, and for the
    networks of libraries on processors with instructions for bfloat16, it runs under bfloat16 autocast (``settings.precision``).

    Parameters
    ----------
    module
        The network.
    spec
        Facts about it: name, input edge in pixels, mean and standard deviation of R, G, B.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from spatialwhisperer.models import EncoderSpec
    >>> from spatialwhisperer.encoders.image.networks.module import ModuleEncoder
    >>> net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
    >>> tiles = np.zeros((4, 3, 32, 32), np.uint8)
    >>> ModuleEncoder(net, EncoderSpec("pooled", "image", 12)).encode(tiles, mpp=0.5).shape
    (4, 12)
    """

    in_batches = True
    channels_last: ClassVar[bool] = False
    """Whether tiles are laid out as convolutions read them fastest, which a network that reshapes by ``view`` refuses."""

    def __init__(self, module: torch.nn.Module, spec: EncoderSpec) -> None:
        self.network = module
        self.spec = spec

    @property
    def identity(self) -> EncoderIdentity:
        """Name, and a digest of weights, code and normalisation."""
        facts = {"mean": self.spec.mean, "std": self.spec.std, "input_px": self.spec.input_px}
        return EncoderIdentity(self.spec.name, digest=module_digest(self.network, facts))

    def encode(self, inputs: np.ndarray, *, mpp: float, device: str | None = None) -> np.ndarray:
        """Compute the features of tiles.

        Parameters
        ----------
        inputs
            uint8 tiles (n, 3, p, p) RGB.
        mpp
            Microns per pixel of the tiles. Checked, and otherwise unused: a network sees pixels, so tiles are cut at the
            resolution that the encoder was trained at.
        device
            Torch device; ``None`` takes that of the settings. For "cuda" each visible GPU computes batches of its own.

        Returns
        -------
        float32 (n, dim); row i depends on tile i alone.

        Raises
        ------
        TypeError
            Tiles are not uint8.
        ValueError
            Tiles have another shape, `mpp` is not positive, or the module does not return one row per tile.
        RuntimeError
            ``settings.compile`` is on, and the module cannot be compiled.
        """
        from spatialwhisperer._compute.batched import batch_rows, by_batches
        from spatialwhisperer._compute.devices import devices_of

        tiles = check_tiles(inputs, mpp)
        if len(tiles) == 0 and self.spec.dim is not None:
            return np.empty((0, self.spec.dim), np.float32)
        rows, devices = batch_rows(), devices_of(settings.resolve_device(device))
        with ExitStack() as stack:
            # a device without a batch needs no copy of the network
            busy = devices[: max(1, math.ceil(len(tiles) / rows))]
            return by_batches(tiles, rows, [stack.enter_context(self._on(device, rows)) for device in busy])

    @contextmanager
    def _on(self, device: torch.device, rows: int) -> Iterator[Computing]:
        """Features of batches of so many uint8 tiles on a device, where the network is or a copy of it."""
        import torch

        from spatialwhisperer._compute.batched import Computing
        from spatialwhisperer._compute.compiled import compiled_where_asked
        from spatialwhisperer._compute.devices import ready
        from spatialwhisperer.encoders.image.networks.openvino import computed_by_openvino
        from spatialwhisperer.encoders.image.networks.tile_network import TileNetwork

        with ready(self.network, str(device)) as own:
            if self.channels_last and own is not self.network:
                own.to(memory_format=torch.channels_last)
            name, in_openvino = f"Encoder {self.spec.name!r}", self._is_for_openvino(device)
            network = computed_by_openvino(own, name) if in_openvino else compiled_where_asked(own, rows, name)
            channels_last = self.channels_last and not in_openvino
            tiles = TileNetwork(own, self.spec, self.spec.input_px, channels_last=channels_last).eval()
            yield Computing(device, lambda batch: self._features(batch, tiles.prepared, network))

    def _is_for_openvino(self, device: torch.device) -> bool:
        return settings.backend == "openvino" and device.type == "cpu" and self.library != ImageEncoder.library

    def _features(
        self,
        batch: torch.Tensor,
        prepared: Callable[[torch.Tensor], torch.Tensor],
        network: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        import torch

        # a module of somebody's own may not compute in bfloat16 on a processor
        lowered = self.library != ImageEncoder.library or batch.device.type == "cuda"
        with precision(batch.device) if lowered else nullcontext():
            y: Any = network(prepared(batch))
        if not isinstance(y, torch.Tensor) or y.ndim != 2 or len(y) != len(batch):
            what = tuple(y.shape) if isinstance(y, torch.Tensor) else type(y).__name__
            raise ValueError(
                f"Encoder {self.spec.name!r} must return one row of features per tile, shape ({len(batch)}, d), not {what}. "
                "Add pooling and flattening to the module."
            )
        return y

    def module(self) -> torch.nn.Module:
        """Return a copy of the network that takes uint8 tiles, resizes and normalises them as `encode` does.

        Where some parameters of a caller's module are frozen, these stay frozen.
        """
        from spatialwhisperer.encoders.image.networks.tile_network import TileNetwork

        network = copy.deepcopy(self.network)
        # all of them are frozen by this package, or by somebody who computes with the module as it is
        if self.library != ImageEncoder.library or not any(p.requires_grad for p in network.parameters()):
            network.requires_grad_(True)
        return TileNetwork(network, self.spec, self.spec.input_px)
