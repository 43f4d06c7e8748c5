"""The joint space: one head for each modality, after its context, and after its encoder where that is trained."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from spatialwhisperer._annotations import numbers, one_for_each
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._compute.devices import ready
from spatialwhisperer._settings import settings
from spatialwhisperer.networks.context import apply_context, make_context
from spatialwhisperer.networks.heads import make_decoder, make_head
from spatialwhisperer.retrieval.neighbours import section_neighbours
from spatialwhisperer.statistics.standardize import CLIP, standardize

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from spatialwhisperer.encoders.base import Encoder
    from spatialwhisperer.models.configuration.model import ContextConfig, HeadConfig, ModalityConfig, ModelConfig


class JointSpace(nn.Module):
    """Heads, contexts and trained encoders of a model, on arrays and tensors.

    Attributes
    ----------
    config
        Everything about the model but its weights. It is frozen, and replaced where something changes.
    encoders
        Encoders by modality.
    heads, contexts, towers
        Modules by modality; ``towers`` holds the networks of the encoders that are trained with the heads.
    frozen
        Parameters of each tower that stay as they are where it is trained.
    decoder
        Network from the joint embedding of an image to expression; ``None`` where there is none.
    log_scale
        Logarithm of the inverse temperature.
    """

    def __init__(self, config: ModelConfig, *, encoders: Mapping[str, Encoder] | None = None) -> None:
        super().__init__()
        self.config = config
        self.encoders: dict[str, Encoder] = dict(encoders or {})
        self.heads, self.contexts, self.towers = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        self.frozen: dict[str, frozenset[str]] = {}
        for name, modality in config.modalities.items():
            self._add_head(name, modality)
        for name, modality in config.modalities.items():
            if modality.context is not None:
                self._add_context(name, modality.context)
            if modality.trained:
                self._add_tower(name, modality)
        self.decoder = None if config.decoder_dim is None else make_decoder(config.projection_dim, config.decoder_dim)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / config.temperature)))
        self.eval()

    def _add_head(self, name: str, modality: ModalityConfig) -> None:
        head = modality.head
        self.heads[name] = make_head(head.kind, head.in_dim, self.config.projection_dim, dropout=head.dropout)
        self.register_buffer(f"{name}_mean", torch.zeros(modality.feature_dim))
        self.register_buffer(f"{name}_std", torch.ones(modality.feature_dim))

    def _add_context(self, name: str, context: ContextConfig) -> None:
        dim = self.config.modality(name).feature_dim
        self.contexts[name] = make_context(context.kind, dim, **context.options)

    def _add_tower(self, name: str, modality: ModalityConfig) -> None:
        if name not in self.encoders:
            raise ValueError(
                f"The {name} encoder of this model ({modality.features.name!r}) was trained with it and cannot be opened by "
                f"its name. Pass it: sw.models.Whisperer.load(folder, encoders={{{name!r}: …}})."
            )
        # heads may be built without memory; an encoder brings weights of its own
        without = torch.get_default_device().type == "meta"
        with torch.device("cpu") if without else nullcontext():
            tower = self.encoders[name].module()
        self.towers[name] = tower
        frozen = frozenset(key for key, p in tower.named_parameters() if not p.requires_grad)
        # all of them are frozen where somebody computes with the network as it is
        self.frozen[name] = frozenset() if len(frozen) == len(list(tower.parameters())) else frozen

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities of the model."""
        return tuple(self.config.modalities)

    @property
    def scale(self) -> float:
        """Inverse temperature, which multiplies cosines before the softmax."""
        return float(self.log_scale.detach().exp())

    def install_head(
        self,
        modality: str,
        head: nn.Module,
        config: HeadConfig,
        *,
        context: ContextConfig | None = None,
        projection_dim: int | None = None,
    ) -> None:
        """Replace the head of a modality and its context.

        Parameters
        ----------
        modality
            Name of the modality.
        head, config
            The new head and its configuration.
        context
            Context before the head; ``None`` removes the one that is there.
        projection_dim
            New dimension of the joint space. All heads have to be replaced then, one after the other.
        """
        self.heads[modality] = head.eval()
        if modality in self.contexts:
            del self.contexts[modality]
        if context is not None:
            self._add_context(modality, context)
        self.config = self.config.with_modality(modality, head=config, context=context)
        if projection_dim is not None:
            self.config = replace(self.config, projection_dim=projection_dim)

    def set_statistics(self, modality: str, mean: np.ndarray, std: np.ndarray) -> None:
        """Set the training mean and standard deviation of the features of a modality, both of shape (d,)."""
        getattr(self, f"{modality}_mean").copy_(torch.from_numpy(mean))
        getattr(self, f"{modality}_std").copy_(torch.from_numpy(std))

    # ------------------------------------------------------------------------------------------- forward

    def forward(self, modality: str, x: Any) -> torch.Tensor:
        """Embed standardised features, or raw inputs where the encoder is trained; unit length, shape (n, u)."""
        return functional.normalize(self.project_tensor(modality, x), dim=-1)

    def project_tensor(self, modality: str, x: Any) -> torch.Tensor:
        """Apply the head to standardised features with their context, or to raw inputs where the encoder is trained.

        Rows are not scaled to unit length.
        """
        return _through(modality, self._path(modality), x)

    def _path(self, modality: str) -> dict[str, nn.Module]:
        """The modules that inputs of a modality pass, by what they are."""
        parts = {"tower": self.towers, "context": self.contexts, "head": self.heads}
        return {name: modules[modality] for name, modules in parts.items() if modality in modules}

    def scaled(self, z: torch.Tensor) -> torch.Tensor:
        """Rows as the loss compares them: of unit length, or as the head returns them."""
        return functional.normalize(z, dim=-1) if self.config.norm == "l2" else z

    @checked
    @torch.inference_mode()
    def project(
        self,
        modality: str,
        features: Any,
        *,
        sections: Sequence[str] | np.ndarray | None = None,
        positions: np.ndarray | None = None,
        unit: bool = True,
        batch_size: int = 8192,
        device: str | None = None,
    ) -> np.ndarray:
        """Map features of one modality into the joint space.

        The model stays on its device, also after an error: on another one copies of the modules compute.

        Parameters
        ----------
        modality
            Name of a modality of the model.
        features
            Encoder features, shape (n, d); raw inputs where the encoder is trained. Rows with NaN stay NaN.
        sections
            Section of each row, shape (n,), for modalities that are standardised within sections; ``None`` takes all rows for one
            section.
        positions
            Position of each row, shape (n, 2), for modalities with a context: in any unit of length that is the same within a section,
            or array coordinates for "batch_peer".
        unit
            Scale rows to unit length.
        batch_size
            Rows in one pass; the result does not depend on it.
        device
            Torch device; ``None`` takes ``settings.device``.

        Returns
        -------
        float32 array of shape (n, u).

        Raises
        ------
        KeyError
            If the model has no such modality.
        ValueError
            If the number of features is not what the head expects, or a context needs positions.
        """
        self.config.modality(modality)
        device = settings.resolve_device(device)
        with ready(nn.ModuleDict(self._path(modality)).eval(), device) as path:
            if modality in self.towers:
                chunks = self._raw_chunks(modality, features, min(batch_size, settings.batch_size))
            else:
                x = self._contextual(modality, features, sections, positions, path)
                chunks = _complete(x, batch_size)
            n = features.shape[0] if hasattr(features, "shape") else len(features)
            out = np.full((n, self.config.projection_dim), np.nan, np.float32)
            for rows, x in chunks:
                z = _through(modality, path, _to(x, device))
                out[rows] = (functional.normalize(z, dim=-1) if unit else z).float().cpu().numpy()
        return out

    def _raw_chunks(self, modality: str, inputs: Any, batch_size: int) -> Iterator[tuple[np.ndarray, Any]]:
        encoder = self.encoders[modality]
        n = inputs.shape[0] if hasattr(inputs, "shape") else len(inputs)
        for start in range(0, n, batch_size):
            rows = np.arange(start, min(start + batch_size, n))
            yield rows, encoder.collate(inputs[start : start + batch_size])

    @checked
    @torch.inference_mode()
    def contextual(
        self, modality: str, features: np.ndarray, *, sections: Any = None, positions: np.ndarray | None = None
    ) -> np.ndarray:
        """Standardised features with their context, the input of the head; float32 (n, d), rows with NaN stay NaN.

        Raises
        ------
        ValueError
            If the number of features is not what the model expects, or a context needs positions.
        """
        return self._contextual(modality, features, sections, positions, self._path(modality))

    def _contextual(
        self, modality: str, features: np.ndarray, sections: Any, positions: np.ndarray | None, path: Any
    ) -> np.ndarray:
        config = self.config.modality(modality)
        x = self.standardized(modality, features, sections)
        if config.context is None:
            return x
        if positions is None:
            raise ValueError(
                f"The {modality} part of this model sees neighbours ({config.context.kind}): pass positions of shape (n, 2)."
            )
        complete = np.isfinite(x).all(axis=1)
        codes = np.zeros(len(x), int) if sections is None else one_for_each("sections", sections, len(x))
        xy = numbers("positions", positions, (len(x), 2))[complete]
        seen = _with_context(path["context"], config.context, x[complete], xy, codes[complete])
        out = np.full((len(x), seen.shape[1]), np.nan, np.float32)
        out[complete] = seen.float().numpy()
        return out

    @checked
    def standardized(self, modality: str, features: np.ndarray, sections: Any = None) -> np.ndarray:
        """Standardise features as in training."""
        config = self.config.modality(modality)
        features = _of_encoder(modality, config, features)
        if sections is not None:
            sections = one_for_each("sections", sections, len(features))
        mean, std = (getattr(self, f"{modality}_{k}").cpu().numpy() for k in ("mean", "std"))
        return standardize(features, how=config.standardize, mean=mean, std=std, sections=sections, clip=CLIP)

    @torch.inference_mode()
    def decoded(self, z: np.ndarray) -> np.ndarray:
        """Apply the trained decoder to image embeddings that are not scaled to unit length; expression float32 (n, g)."""
        if self.decoder is None:
            raise ValueError("This model has no decoder.")
        out = np.full((len(z), int(self.config.decoder_dim or 0)), np.nan, np.float32)
        complete = np.flatnonzero(np.isfinite(z).all(axis=1))
        there = next(self.decoder.parameters()).device
        out[complete] = self.decoder(self.scaled(torch.from_numpy(z[complete]).to(there))).cpu().numpy()
        return out


def _of_encoder(modality: str, config: ModalityConfig, features: Any) -> np.ndarray:
    """Features as float32, after a look at their shape."""
    features = numbers("features", features)
    if features.ndim != 2 or features.shape[1] != config.feature_dim:
        raise ValueError(
            f"The {modality} encoder of this model ({config.features.name!r}) gives features of shape (n, {config.feature_dim}); "
            f"found {features.shape}."
        )
    return features.astype(np.float32, copy=False)


def _through(modality: str, path: Any, x: Any) -> torch.Tensor:
    """Apply the head of a modality, after its encoder where that is trained."""
    if "tower" in path:
        x = path["tower"](x)
        if not isinstance(x, torch.Tensor) or x.ndim != 2:
            raise ValueError(f"The {modality} encoder must return a matrix of shape (n, d).")
        x = x.float()
    return path["head"](x)


def _with_context(
    module: Any, config: ContextConfig, x: np.ndarray, xy: np.ndarray, sections: np.ndarray
) -> torch.Tensor:
    if config.array_positions:
        where: dict[str, Any] = {"positions": torch.from_numpy(xy.astype(np.int64)), "chunk": config.chunk}
    else:
        where = {"neighbourhood": section_neighbours(xy, sections, module.n_neighbours)}
    return apply_context(module, torch.from_numpy(x), **where)


def _complete(x: np.ndarray, batch_size: int) -> Iterator[tuple[np.ndarray, Any]]:
    rows = np.flatnonzero(np.isfinite(x).all(axis=1))
    for start in range(0, len(rows), batch_size):
        take = rows[start : start + batch_size]
        yield take, torch.from_numpy(x[take])


def _to(x: Any, device: str) -> Any:
    if isinstance(x, dict):
        return {key: value.to(device) for key, value in x.items()}
    return x.to(device)
