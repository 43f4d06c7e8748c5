"""Weights of timm networks: a file with the classifier of any network, or with the names of an earlier version of timm."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from spatialwhisperer._messages import import_torch_stack, listing
from spatialwhisperer._random import untouched_rng
from spatialwhisperer.encoders.image.weights import misfit, read_state, refusal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

_LAYERS = ("mlp_layer", "act_layer")
# a configuration from a repository may name a file or an address, which must not be opened
_NO_SOURCE = {
    "source": "",
    "url": "",
    "file": None,
    "hf_hub_id": None,
    "hf_hub_filename": None,
    "custom_load": False,
}


@dataclass(frozen=True)
class Architecture:
    """A network of timm with its classifier.

    Attributes
    ----------
    name
        Model id of timm.
    options
        Arguments of the network.
    config
        What a repository states beside them; ``None`` takes what timm has for the id.
    num_classes
        Classes of the published weights; ``None`` takes what the configuration says.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] | None = None
    num_classes: int | None = None

    def load(self, network: torch.nn.Module, file: Path, *, resized: bool = False) -> None:
        """Load the weights in a file into this network without its classifier.

        Parameters
        ----------
        network
            The network.
        file
            The file.
        resized
            Whether timm may resize tensors, such as the embeddings of positions, to those of the network.

        Raises
        ------
        ValueError
            If anything but a classifier does not fit exactly, also after timm has renamed what it renames.
        """
        state: Mapping[str, torch.Tensor] = read_state(file)
        own = network.state_dict()
        problem = misfit(state, own)
        if problem and misfit(state, own, self._build(None).state_dict().keys()):
            if not resized and any(state[n].numel() != own[n].numel() for n in own.keys() & state.keys()):
                raise refusal(file, problem)
            try:
                state = self._converted(state, own)
            # what stands in a file that does not belong to the network decides which error timm ends with
            except Exception as error:
                raise refusal(file, problem) from error
        network.load_state_dict({name: state[name] for name in own})

    def _converted(
        self, state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]
    ) -> Mapping[str, torch.Tensor]:
        """Weights with the names and shapes of today's timm."""
        import torch

        # timm leaves out what is missing for some networks: what no mark reaches would be random
        marks = {n: torch.full_like(v, torch.nan) if v.is_floating_point() else v for n, v in state.items()}
        marked, converted = self._build(marks).state_dict(), self._build(dict(state)).state_dict()
        random = [n for n, v in own.items() if v.is_floating_point() and not marked[n].isnan().any()]
        if random or misfit(converted, own, converted.keys()):
            raise ValueError(f"Missing: {listing(random, 4)}.")
        return converted

    def _build(self, state: Mapping[str, torch.Tensor] | None) -> torch.nn.Module:
        """Build the network at random, or as timm loads these weights into it."""
        overlay: dict[str, Any] = {} if self.num_classes is None else {"num_classes": self.num_classes}
        if state is not None:
            overlay |= {**_NO_SOURCE, "state_dict": state}
        with untouched_rng():
            return import_torch_stack("timm").create_model(
                self.name,
                pretrained=state is not None,
                pretrained_cfg=None if self.config is None else dict(self.config),
                pretrained_cfg_overlay=overlay,
                **with_layers(self.options),
            )


def with_layers(options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a network, with the classes of the layers that they name."""
    return {key: _layer(value) if key in _LAYERS else value for key, value in options.items()}


def _layer(name: Any) -> Any:
    import torch

    if not isinstance(name, str):
        return name
    return getattr(import_torch_stack("timm").layers, name, None) or getattr(torch.nn, name, None) or name
