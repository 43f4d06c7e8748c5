"""What image encoders share whose network is built from a folder of files: one in the cache of the hub, or one of the caller's."""

from __future__ import annotations

import os
from abc import abstractmethod
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from spatialwhisperer._random import untouched_rng
from spatialwhisperer.encoders import hub
from spatialwhisperer.encoders.image.networks.module import ModuleEncoder
from spatialwhisperer.encoders.published.table import row_of
from spatialwhisperer.encoders.recipe import EncoderIdentity
from spatialwhisperer.encoders.registry import registered
from spatialwhisperer.encoders.spec import EncoderSpec

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Built:
    """A network, and what its files say of it.

    Attributes
    ----------
    network, dim, pooling
        The network, and what it returns.
    input_px
        Edge of the tiles; ``None`` where the network takes any, and the facts state one.
    mean, std
        Normalisation of R, G, B, where the facts state none.
    """

    network: torch.nn.Module
    dim: int
    pooling: str
    input_px: int | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class FolderEncoder(ModuleEncoder):
    """A network from a folder with its configuration and weights, as a frozen encoder.

    Parameters
    ----------
    name
        Registered name, or the prefix of the class and an id on the hub.
    weights
        Folder with the files, instead of a download.
    pretrained
        Whether to read the weights; otherwise they are random.
    revision
        Commit, tag or branch of the hub; ``None`` takes what the cache holds, else the latest.

    Raises
    ------
    FileNotFoundError
        If the files are not there and cannot be fetched.
    ImportError
        If the library that builds the network is not installed.
    ValueError
        If the folder holds no image encoder, or its weights do not fit it.
    """

    prefix: ClassVar[str] = ""
    wanted: ClassVar[hub.Wanted] = hub.Wanted()

    def __init__(
        self, name: str, *, weights: str | Path | None = None, pretrained: bool = True, revision: str | None = None
    ) -> None:
        spec = registered(name, "image") or self.known(name)
        if spec is None:
            raise ValueError(f"{name!r} is neither a registered image encoder nor '{self.prefix}owner/model'.")
        folder = self._fetched(spec, revision) if weights is None else _given(spec, weights)
        # initial weights are drawn before the stored ones take their place
        with untouched_rng() if pretrained else nullcontext():
            built = self.build(folder, spec, pretrained=pretrained)
        self._folder = None if weights is None else folder
        self._pretrained = pretrained
        self.commit, self._pinned = (None if weights is not None else folder.name), revision is not None
        super().__init__(
            built.network.eval().requires_grad_(False),
            replace(
                spec,
                dim=built.dim,
                pooling=built.pooling,
                input_px=built.input_px or spec.input_px,
                mean=spec.mean or built.mean,
                std=spec.std or built.std,
            ),
        )

    @classmethod
    @abstractmethod
    def build(cls, folder: Path, spec: EncoderSpec, *, pretrained: bool) -> Built:
        """Build the image tower of the model in a folder."""

    @classmethod
    def open(
        cls, name: str, *, weights: str | Path | None = None, pretrained: bool = True, revision: str | None = None
    ) -> Self:
        """Build the network of a name with its weights."""
        return cls(name, weights=weights, pretrained=pretrained, revision=revision)

    @classmethod
    def known(cls, name: str) -> EncoderSpec | None:
        """Return the facts about an id on the hub with the prefix of this class."""
        if not cls.prefix or not name.startswith(cls.prefix):
            return None
        return EncoderSpec(
            name, "image", None, url=hub.HUB + name.removeprefix(cls.prefix), loader=cls.prefix.rstrip(":")
        )

    @classmethod
    def is_here(cls, name: str) -> bool:
        """Whether the published weights have been downloaded before."""
        spec = registered(name, "image") or cls.known(name)
        return spec is not None and hub.in_cache(spec.url.removeprefix(hub.HUB), cls.files_of(name)) is not None

    @classmethod
    def files_of(cls, name: str) -> hub.Wanted:
        """Files that the encoder of a name needs."""
        row = row_of(name)
        return cls.wanted if row is None or not row.files else replace(cls.wanted, weights=row.files)

    @classmethod
    def _fetched(cls, spec: EncoderSpec, revision: str | None) -> Path:
        return hub.fetch(spec, spec.url.removeprefix(hub.HUB), cls.files_of(spec.name), revision=revision)

    @classmethod
    def identify(
        cls, name: str, *, weights: str | Path | None = None, pretrained: bool = True
    ) -> EncoderIdentity | None:
        """Return the name for published weights, name and digest for those in a folder, ``None`` for random ones."""
        if not pretrained:
            return None
        return EncoderIdentity(name, digest=None if weights is None else hub.folder_digest(Path(weights).expanduser()))

    @property
    def identity(self) -> EncoderIdentity:
        """Name of published weights, with the commit where one was asked for, or name and digest of others."""
        known = self.identify(self.spec.name, weights=self._folder, pretrained=self._pretrained)
        if known is None:
            return super().identity
        return replace(known, revision=self.commit) if self._pinned else known


def _given(spec: EncoderSpec, weights: str | Path) -> Path:
    folder = Path(weights).expanduser()
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f"weights of {spec.name!r} must be a folder with the files of {spec.url}; there is none at {folder}."
        )
    return folder
