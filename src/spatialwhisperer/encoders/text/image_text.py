"""Text towers of published models of images and texts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._checks.values import check_batch_size
from spatialwhisperer._messages import require
from spatialwhisperer._settings import settings
from spatialwhisperer.encoders import hub
from spatialwhisperer.encoders.image_text import clip, open_clip
from spatialwhisperer.encoders.published.table import paired, row_of
from spatialwhisperer.encoders.recipe import EncoderIdentity
from spatialwhisperer.encoders.registry import register_encoder, registered
from spatialwhisperer.encoders.text.base import TextEncoder, check_texts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialwhisperer.encoders.image_text.tower import Tower
    from spatialwhisperer.encoders.spec import EncoderSpec


@register_encoder(*paired())
class ImageTextTower(TextEncoder):
    """The text tower of a model that has an image encoder of the same name: rows lie in the space of that encoder.

    It is used as published, and is not trained here.

    Attributes
    ----------
    scale
        Factor of the cosines between images and texts that the model was trained with.

    Parameters
    ----------
    name
        The name.
    weights
        Folder with the files, instead of a download.
    revision
        Commit, tag or branch of the hub; ``None`` takes what the cache holds, else the latest.

    Raises
    ------
    FileNotFoundError
        If the files are not there and cannot be fetched.
    ImportError
        If the library that builds the network is not installed.
    ValueError
        If the folder holds another model.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sw.models.get_spec("keep", "text").dim
    768
    """

    library = "transformers"

    def __init__(self, name: str, *, weights: str | Path | None = None, revision: str | None = None) -> None:
        spec = registered(name, "text")
        if spec is None:
            raise ValueError(f"There is no model of images and texts {name!r}.")
        folder = _fetched(spec, revision) if weights is None else Path(weights).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(
                f"weights of {name!r} must be a folder with the files of {spec.url}; found {folder}."
            )
        tower = _tower(folder, spec)
        self.network, self.tokens, self.scale = tower.network.eval().requires_grad_(False), tower.tokens, tower.scale
        self.spec = replace(spec, dim=self._width())
        self._folder = None if weights is None else folder
        self.commit, self._pinned = (None if weights is not None else folder.name), revision is not None

    @classmethod
    def open(
        cls, name: str, *, weights: str | Path | None = None, pretrained: bool = True, revision: str | None = None
    ) -> ImageTextTower:
        """Open the text tower of a name with its published weights."""
        if not pretrained:
            raise ValueError(f"{name!r} is opened with its published weights only; lock it.")
        return cls(name, weights=weights, revision=revision)

    @classmethod
    def is_here(cls, name: str) -> bool:
        """Whether the published files have been downloaded before."""
        spec = registered(name, "text")
        return spec is not None and hub.in_cache(_repository(spec), _wanted(spec)) is not None

    @property
    def identity(self) -> EncoderIdentity:
        """Name of published weights, with the commit where one was asked for, or name and digest of those in a folder."""
        digest = None if self._folder is None else hub.folder_digest(self._folder)
        return EncoderIdentity(self.spec.name, self.commit if self._pinned else None, digest)

    def encode(self, inputs: Sequence[str], *, batch_size: int | None = None, device: str | None = None) -> np.ndarray:
        """Embed texts; see `TextEncoder.encode`. Words beyond the longest input of the model are cut off."""
        import torch

        from spatialwhisperer._compute.devices import ready

        texts = check_texts(inputs)
        check_batch_size(batch_size)
        batch_size = settings.batch_size if batch_size is None else batch_size
        device = settings.resolve_device(device)
        distinct = list(dict.fromkeys(texts))
        parts = []
        with ready(self.network, device) as own, torch.inference_mode():
            own.eval()
            for start in range(0, len(distinct), batch_size):
                tokens = {k: v.to(device) for k, v in self.tokens(distinct[start : start + batch_size]).items()}
                parts.append(own(**tokens).float().cpu().numpy())
        row = dict(zip(distinct, np.concatenate(parts), strict=True))
        return np.stack([row[text] for text in texts])

    def _width(self) -> int:
        import torch

        with torch.inference_mode():
            return int(self.network(**self.tokens(["tissue"])).shape[1])


def _repository(spec: EncoderSpec) -> str:
    return spec.url.removeprefix(hub.HUB)


def _wanted(spec: EncoderSpec) -> hub.Wanted:
    usual = open_clip.WANTED if spec.loader == "open_clip" else clip.WANTED
    row = row_of(spec.name)
    return usual if row is None or not row.files else replace(usual, weights=row.files)


def _fetched(spec: EncoderSpec, revision: str | None) -> Path:
    return hub.fetch(spec, _repository(spec), _wanted(spec), revision=revision)


def _tower(folder: Path, spec: EncoderSpec) -> Tower:
    if spec.loader == "open_clip":
        row: Any = row_of(spec.name)
        return open_clip.text_tower(folder, _wanted(spec), row.architecture)
    require("transformers", extra="text")
    if spec.name == "keep":
        from spatialwhisperer.encoders.image_text.keep import text_tower

        return text_tower(folder)
    return clip.text_tower(folder)
