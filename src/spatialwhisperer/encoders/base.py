"""What every encoder offers: features of frozen weights, and a module with the same weights that may learn."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from spatialwhisperer.encoders.recipe import EncoderIdentity

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

    from spatialwhisperer._artifact import Artifact
    from spatialwhisperer.encoders.spec import EncoderSpec


class Encoder(ABC):
    """Inputs of one modality in, one row of features each out.

    An encoder of your own is a class with ``encode`` and, where it can be trained, ``module`` and ``collate``, under the
    decorator :func:`spatialwhisperer.models.register_encoder`.

    Attributes
    ----------
    spec
        Facts about the encoder; its name names the key of the features.
    """

    spec: EncoderSpec
    fits: ClassVar[bool] = False
    """Whether training fits it on the data, by a class method ``fit``."""

    @property
    def identity(self) -> EncoderIdentity:
        """What tells this encoder from another one of the same name."""
        return EncoderIdentity(self.spec.name)

    @abstractmethod
    def encode(self, inputs: Any, **options: Any) -> np.ndarray:
        """Features of the inputs, float32 (n, d); row i depends on input i alone."""

    def module(self) -> torch.nn.Module:
        """Return a torch module with a copy of the weights, from what `collate` returns to features (n, d).

        Raises
        ------
        ValueError
            If the encoder has no weights.
        """
        raise ValueError(f"{self.spec.name!r} has no weights to train. Lock it, or choose an encoder that has weights.")

    def collate(self, inputs: Any) -> Any:
        """Some inputs as what the module takes: a tensor, or a mapping of tensors."""
        import torch

        return torch.from_numpy(np.ascontiguousarray(inputs))

    def artifact(self) -> Artifact | None:
        """What a model must store to open this encoder again; ``None`` where its name is enough."""
        return None

    @classmethod
    def from_artifact(cls, artifact: Artifact) -> Encoder:
        """Open what `artifact` described; the weights of a trained module are filled in by the model."""
        raise ValueError(f"A {artifact.kind} of class {cls.__name__} cannot be opened from a folder.")

    @classmethod
    def known(cls, name: str) -> EncoderSpec | None:  # noqa: ARG003
        """Facts about a name that nobody registered, where the class opens such names; else ``None``."""
        return None

    @classmethod
    def suggestions(cls) -> list[str]:
        """Names to suggest where somebody misspelt one, for a class that opens names that nobody registered."""
        return []

    @classmethod
    def identify(
        cls,
        name: str,
        *,
        weights: str | Path | None = None,  # noqa: ARG003
        pretrained: bool = True,  # noqa: ARG003
    ) -> EncoderIdentity | None:
        """Identity of a name without opening it; ``None`` where it must be opened to know."""
        return EncoderIdentity(name)

    @classmethod
    def open(cls, name: str, *, weights: str | Path | None = None, pretrained: bool = True) -> Encoder:  # noqa: ARG003
        """Open the encoder of a registered name.

        Parameters
        ----------
        name
            One of the names that the class is registered by.
        weights
            Local file or folder with its weights.
        pretrained
            Take the published weights; off leaves those of a fresh network.
        """
        if weights is not None:
            raise ValueError(f"weights are for encoders that have some; {name!r} takes none.")
        return cls()


def module_digest(module: torch.nn.Module, facts: Mapping[str, Any] | None = None) -> str:
    """SHA-256 over what makes the output of a module: its parameters and buffers, its plain attributes and its code."""
    sha = hashlib.sha256(repr(sorted((facts or {}).items())).encode())
    for name, part in module.named_modules():
        kind = type(part)
        plain = {k: v for k, v in vars(part).items() if k != "training" and not k.startswith("_") and _is_plain(v)}
        sha.update(f"{name} {kind.__module__}.{kind.__qualname__} {part.extra_repr()} {sorted(plain.items())}".encode())
        code = getattr(kind.forward, "__code__", None)
        # a class that was edited and run again in a notebook keeps its name
        if code is not None and not kind.__module__.startswith(("torch", "timm", "transformers")):
            sha.update(code.co_code + repr([c for c in code.co_consts if _is_plain(c)]).encode())
    for name, value in sorted(module.state_dict().items()):
        array = value.detach().cpu().contiguous()
        sha.update(f"{name} {array.dtype} {tuple(array.shape)}".encode())
        sha.update(array.flatten().view(_bytes_of(array)).numpy().tobytes() if array.numel() else b"")
    return sha.hexdigest()


def object_digest(thing: object) -> str:
    """SHA-256 over the class, the code of ``encode`` and the attributes of an encoder that is somebody's own object."""
    import torch

    kind = type(thing)
    sha = hashlib.sha256(f"{kind.__module__}.{kind.__qualname__}".encode())
    code = getattr(getattr(kind, "encode", None), "__code__", None)
    if code is not None:
        sha.update(code.co_code + repr([c for c in code.co_consts if _is_plain(c)]).encode())
    for name, value in sorted(getattr(thing, "__dict__", {}).items()):
        if isinstance(value, torch.nn.Module):
            sha.update(f"{name} {module_digest(value)}".encode())
        elif isinstance(value, np.ndarray | torch.Tensor):
            array = np.ascontiguousarray(value)
            sha.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
        elif _is_plain(value):
            sha.update(f"{name} {value!r}".encode())
    return sha.hexdigest()


def _bytes_of(array: torch.Tensor) -> torch.dtype:
    import torch

    return torch.uint8 if array.dtype != torch.bool else torch.bool


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(v) for v in value)
    return value is None or isinstance(value, bool | int | float | str)
