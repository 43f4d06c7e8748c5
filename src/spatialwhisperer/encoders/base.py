"""Base class of all encoders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from spatialwhisperer.encoders.digests import object_digest
from spatialwhisperer.encoders.outputs import called
from spatialwhisperer.encoders.recipe import EncoderIdentity

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

    from spatialwhisperer._artifact.artifact import Artifact
    from spatialwhisperer.encoders.spec import EncoderSpec


class Encoder(ABC):
    """Computes one row of features for each input of a modality.

    To add an encoder, write a class with the method ``encode``. If it can be trained with a model, it also has ``module`` and
    ``collate``. The decorator :func:`spatialwhisperer.models.register_encoder` makes it known by a name.

    Attributes
    ----------
    spec
        Facts about the encoder. Its name also names the key of the features in ``.obsm``.
    fits
        Whether training fits the encoder to the data, by a class method ``fit``.
    names
        Names that the class is registered by.
    library
        Package that opens the encoder.
    commit
        Commit on the hub that the weights are of; ``None`` where they are not from there.
    runs_foreign_code
        Whether opening a registered name may run code that comes with the weights. A stored model never opens such a name by itself.
    """

    spec: EncoderSpec
    fits: ClassVar[bool] = False
    library: ClassVar[str] = "spatialwhisperer"
    commit: str | None = None
    runs_foreign_code: ClassVar[bool] = False
    names: ClassVar[frozenset[str]] = frozenset()

    @property
    def identity(self) -> EncoderIdentity:
        """Name and, unless the class is registered by that name, a digest of the class and its attributes."""
        # a class that derives from a registered one is another encoder
        if self.spec.name in vars(type(self)).get("names", ()):
            return EncoderIdentity(self.spec.name)
        return EncoderIdentity(self.spec.name, digest=object_digest(self))

    @abstractmethod
    def encode(self, inputs: Any, *args: Any, **kwargs: Any) -> np.ndarray:
        """Compute features, float32 (n, d); row i depends on input i alone."""

    def module(self) -> torch.nn.Module:
        """Return a torch module with a copy of the weights. It maps what `collate` returns to features (n, d).

        Raises
        ------
        ValueError
            If the encoder has no weights.
        """
        raise ValueError(f"{self.spec.name!r} has no weights to train. Lock it, or choose an encoder that has weights.")

    def prepare(self, inputs: Any) -> Any:
        """Do once what every batch of a training run would repeat for its inputs; called with all inputs before the first batch.

        Returns
        -------
        The inputs in a form that `collate` takes too, with one entry for each: a list, or an array that is indexed by rows.
        """
        return inputs

    def collate(self, inputs: Any) -> Any:
        """Turn inputs into what the module takes: a tensor, or a mapping of tensors."""
        import torch

        return torch.from_numpy(np.ascontiguousarray(inputs))

    def artifact(self, *, trained: bool = False) -> Artifact | None:  # noqa: ARG002
        """Return what a model stores to open this encoder again; ``None`` where nothing can be stored.

        Parameters
        ----------
        trained
            The model trained the `module` of this encoder and stores its weights itself, so that they may be left out here.
        """
        return None

    @classmethod
    def from_artifact(cls, artifact: Artifact) -> Encoder:
        """Open an encoder from what `artifact` returned. Weights that were left out are random until the model fills them in."""
        raise ValueError(f"A {artifact.kind} of class {cls.__name__} cannot be opened from a folder.")

    @classmethod
    def bare_module(cls, artifact: Artifact) -> torch.nn.Module | None:  # noqa: ARG003
        """Return what `module` gives for a stored encoder, with random weights, to compare its shapes; ``None`` where that needs weights."""
        return None

    @classmethod
    def names_others(cls, artifact: Artifact) -> Sequence[tuple[str, str]]:  # noqa: ARG003
        """Encoders that what is stored opens by their names, each with its modality."""
        return ()

    @classmethod
    def known(cls, name: str) -> EncoderSpec | None:  # noqa: ARG003
        """Return facts about a name that is not registered; ``None`` where the class cannot open it."""
        return None

    @classmethod
    def safe_name(cls, name: str) -> bool:  # noqa: ARG003
        """Whether a name that is not registered stands for one encoder of a library, wherever it is opened."""
        return False

    @classmethod
    def is_here(cls, name: str) -> bool:  # noqa: ARG003
        """Whether the encoder of a registered name opens without a download."""
        return True

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
        """Return the identity of a name without opening it; ``None`` where it has to be opened first."""
        return EncoderIdentity(name)

    @classmethod
    def open(cls, name: str, *, weights: str | Path | None = None, pretrained: bool = True) -> Encoder:  # noqa: ARG003
        """Open the encoder of a registered name.

        Parameters
        ----------
        name
            One of the names that the class is registered by.
        weights
            Local file or folder with the weights.
        pretrained
            Whether to take the published weights; otherwise they are random.
        """
        if weights is not None:
            raise ValueError(f"weights are for encoders that have some; {name!r} takes none.")
        return called(name, "__init__", cls)
