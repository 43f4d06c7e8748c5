"""What every encoder offers: features of frozen weights, and a module with the same weights that may learn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from spatialwhisperer.encoders.digests import object_digest
from spatialwhisperer.encoders.recipe import EncoderIdentity

if TYPE_CHECKING:
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
        Facts about the encoder; its name is also that of the key of its features.
    fits
        Whether training fits it on the data, by a class method ``fit``.
    names
        Names that the class is registered by.
    """

    spec: EncoderSpec
    fits: ClassVar[bool] = False
    names: ClassVar[frozenset[str]] = frozenset()

    @property
    def identity(self) -> EncoderIdentity:
        """What tells this encoder from another one: a registered name is enough, any other object has a digest."""
        # a class that derives from a registered one is another encoder
        if self.spec.name in vars(type(self)).get("names", ()):
            return EncoderIdentity(self.spec.name)
        return EncoderIdentity(self.spec.name, digest=object_digest(self))

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

    def artifact(self, *, trained: bool = False) -> Artifact | None:  # noqa: ARG002
        """What a model must store to open this encoder again; ``None`` where there is nothing that could be stored.

        Parameters
        ----------
        trained
            The model trained the `module` of this encoder and stores its weights itself, so that they may be left out here.
        """
        return None

    @classmethod
    def from_artifact(cls, artifact: Artifact) -> Encoder:
        """Open what `artifact` described; weights that it left out are those of a fresh network, until the model fills them in."""
        raise ValueError(f"A {artifact.kind} of class {cls.__name__} cannot be opened from a folder.")

    @classmethod
    def known(cls, name: str) -> EncoderSpec | None:  # noqa: ARG003
        """Facts about a name that is not registered, where the class opens such names; else ``None``."""
        return None

    @classmethod
    def safe_name(cls, name: str) -> bool:  # noqa: ARG003
        """Whether a name that is not registered stands for one encoder of a library, wherever it is opened."""
        return False

    @classmethod
    def suggestions(cls) -> list[str]:
        """Names to suggest for a misspelt one, of a class that opens names that are not registered."""
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
