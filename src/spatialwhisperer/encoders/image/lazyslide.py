"""Image encoders that the package lazyslide-models opens."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._messages import require
from spatialwhisperer._settings import settings
from spatialwhisperer.encoders import hub
from spatialwhisperer.encoders.image.base import ImageEncoder, check_tiles
from spatialwhisperer.encoders.published.table import LENT, row_of, specs
from spatialwhisperer.encoders.recipe import EncoderIdentity
from spatialwhisperer.encoders.registry import opens_other_names, register_encoder, registered
from spatialwhisperer.encoders.spec import EncoderSpec

if TYPE_CHECKING:
    from pathlib import Path

_ANY = hub.Wanted(weights=("*",), others=())


@opens_other_names("image")
@register_encoder(*specs("custom", lent=True))
class LazySlideEncoder(ImageEncoder):
    """An encoder of lazyslide-models: a registered name that has no network here, or ``"lazyslide:name"``.

    That package prepares the tiles, and may run the code of a model's repository. A stored model therefore never opens such an encoder
    by itself.

    Parameters
    ----------
    name
        The name.
    weights
        Local file with the weights, where the model takes one.

    Raises
    ------
    FileNotFoundError
        If the weights have to be requested, or cannot be fetched.
    ImportError
        If lazyslide-models is not installed.
    ValueError
        If it has no image encoder of that name.

    Examples
    --------
    >>> from spatialwhisperer.encoders.image.lazyslide import LazySlideEncoder
    >>> LazySlideEncoder.known("lazyslide:virchow2").loader
    'custom'
    """

    library = "lazyslide-models"
    runs_foreign_code = True

    def __init__(self, name: str, *, weights: str | Path | None = None) -> None:
        spec = registered(name, "image") or self.known(name)
        if spec is None:
            raise ValueError(f"{name!r} is neither a registered image encoder nor 'lazyslide:name'.")
        if weights is None:
            _check_download(spec)
        kind = _model_class(spec, _key(name))
        if weights is None:
            _check_offline(spec)
        try:
            self.model: Any = kind() if weights is None else kind(model_path=str(weights))
        except (OSError, RuntimeError) as error:
            raise FileNotFoundError(hub.failed(spec, error)) from error
        self.transform = self.model.get_transform()
        self.spec = replace(spec, dim=spec.dim or getattr(kind, "encode_dim", None))

    @classmethod
    def open(cls, name: str, *, weights: str | Path | None = None, pretrained: bool = True) -> LazySlideEncoder:
        """Open the encoder of a name with its published weights."""
        if not pretrained:
            raise ValueError(f"{name!r} is opened by lazyslide-models, with its published weights only; lock it.")
        return cls(name, weights=weights)

    @classmethod
    def known(cls, name: str) -> EncoderSpec | None:
        """Return the facts about a name with the prefix of that package, which is not imported."""
        if not name.startswith(LENT):
            return None
        return EncoderSpec(name, "image", None, url="https://github.com/rendeirolab/LazySlide", loader="custom")

    @classmethod
    def is_here(cls, name: str) -> bool:
        """Whether the package is installed and something of the repository has been downloaded before."""
        row = row_of(name)
        return (
            find_spec("lazyslide_models") is not None
            and row is not None
            and hub.in_cache(row.repository, _ANY) is not None
        )

    @property
    def identity(self) -> EncoderIdentity:
        """The name."""
        return EncoderIdentity(self.spec.name)

    def encode(self, inputs: np.ndarray, *, mpp: float, device: str | None = None) -> np.ndarray:
        """Compute the features of tiles, which the transform of the model resizes and normalises.

        Parameters
        ----------
        inputs
            uint8 tiles (n, 3, p, p) RGB.
        mpp
            Microns per pixel of the tiles; checked, and otherwise unused.
        device
            Torch device; ``None`` takes that of the settings.

        Returns
        -------
        float32 (n, dim).

        Raises
        ------
        TypeError, ValueError
            If tiles are not uint8 or of another shape, or the model does not return one row for each tile.
        """
        import torch

        from spatialwhisperer._compute.batched import batch_rows

        tiles, rows = check_tiles(inputs, mpp), batch_rows()
        where = settings.resolve_device(device)
        self.model.to(where)
        parts = []
        with torch.inference_mode():
            for start in range(0, len(tiles), rows):
                batch = tiles[start : start + rows].transpose(0, 2, 3, 1)
                x = torch.stack([self.transform(np.ascontiguousarray(tile)) for tile in batch]).to(where)
                y = torch.as_tensor(self.model.encode_image(x))
                if y.ndim != 2 or len(y) != len(x):
                    raise ValueError(
                        f"Encoder {self.spec.name!r} must return one row of features per tile, shape ({len(x)}, d), not {tuple(y.shape)}."
                    )
                parts.append(y.float().cpu().numpy())
        return np.concatenate(parts) if parts else np.empty((0, self.spec.dim or 0), np.float32)


def _key(name: str) -> str:
    row = row_of(name)
    return (name if row is None else row.architecture).removeprefix(LENT)


def _check_download(spec: EncoderSpec) -> None:
    """Say before a download what the other package would say late or not at all."""
    row = row_of(spec.name)
    if row is None or hub.in_cache(row.repository, _ANY) is not None:
        return
    hub.check_access(spec)
    if find_spec("lazyslide_models") is not None:
        hub.check_network(spec)
        hub.announce(spec)


def _check_offline(spec: EncoderSpec) -> None:
    """Refuse a name of the other package alone: nothing says which files it takes, so that none is known to be here.

    Raises
    ------
    FileNotFoundError
        If the settings say offline.
    """
    if settings.offline and row_of(spec.name) is None:
        raise FileNotFoundError(
            f"lazyslide-models downloads the weights of {spec.name!r}, and the settings say offline. {hub.local_copy(spec)}, or set "
            "sw.settings.offline = False."
        )


def _model_class(spec: EncoderSpec, key: str) -> Any:
    registry = require("lazyslide_models", extra="wsi").MODEL_REGISTRY
    kind = registry[key] if key in registry else None
    if kind is None or not hasattr(kind, "encode_image"):
        raise ValueError(
            f"lazyslide-models opens no image encoder {key!r}. Compute the features of {spec.name!r} with its own package ({spec.url}), put "
            "them into .obsm and pass image=sw.tl.ImageFeatures(key=…)."
        )
    return kind
