"""Opening the encoders of a stored model, and filling its networks: whoever wrote the folder decides about neither."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from spatialwhisperer._messages import listing, warn
from spatialwhisperer._storage.sketches import compare_shapes, without_memory
from spatialwhisperer._storage.untrusted import networks_within, opening
from spatialwhisperer.encoders.catalogue import opens_by_name, stored_class
from spatialwhisperer.encoders.resolve import any_encoder, stored_encoder
from spatialwhisperer.models import store

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from spatialwhisperer._artifact.artifact import Artifact
    from spatialwhisperer.encoders.base import Encoder
    from spatialwhisperer.models.configuration.model import ModalityConfig, ModelConfig
    from spatialwhisperer.models.joint_space import JointSpace

    Given = Encoder | torch.nn.Module | str | Path

_FILLED = {"f": "f", "i": "iu", "u": "iu", "b": "b"}
"""Kinds of numbers that may fill a tensor of a kind."""


def encoder_part(modality: str) -> str:
    """Name of the folder that holds the encoder of a modality."""
    return f"{modality}_encoder"


def open_encoders(
    config: ModelConfig, artifact: Artifact, encoders: Mapping[str, Given], allowed: Collection[str]
) -> dict[str, Encoder]:
    """Open the encoders that a model needs or stores.

    Parameters
    ----------
    config
        Configuration of the model.
    artifact
        What is stored of it.
    encoders
        Encoders that the caller gives, by modality.
    allowed
        Names of folders and of models on the hub that the caller allows the model to open.

    Raises
    ------
    KeyError
        If an encoder is of a modality that the model does not have.
    ValueError
        If an encoder cannot be opened, is not the one of the model, or is not allowed.
    """
    opened = {name: given_encoder(name, config.modality(name), encoder) for name, encoder in encoders.items()}
    for name, modality in config.modalities.items():
        part = artifact.parts.get(encoder_part(name))
        if name in opened:
            continue
        if part is not None:
            if modality.trained:
                _check_tower(name, partial(_bare, part, name), artifact)
            with opening(f"The {name} encoder of this model", own=(ValueError, FileNotFoundError)), within(artifact):
                opened[name] = stored_encoder(part, name, allow_encoders=allowed)
        elif modality.features.encoder is not None:
            opened |= _by_name(name, modality, modality.features.encoder.name, artifact, allowed)
    return opened


def _by_name(
    name: str, modality: ModalityConfig, encoder: str, artifact: Artifact, allowed: Collection[str]
) -> dict[str, Encoder]:
    """Encoder that a model needs and does not store, or that the caller allows; an empty dictionary where there is none."""
    if opens_by_name(encoder, name):
        if not modality.trained:
            return {}
        _check_tower(name, lambda: store.fresh_encoder(name, modality.features)[name].module(), artifact)
        with (
            opening(f"The {name} encoder {encoder!r} of this model", own=(ValueError, FileNotFoundError)),
            within(artifact),
        ):
            return store.fresh_encoder(name, modality.features)
    if encoder in allowed:
        return {name: given_encoder(name, modality, encoder)}
    if modality.trained and "/" in encoder:
        raise ValueError(
            f"The {name} encoder of this model is {encoder!r}, a folder or a model on the hub, which is not opened because a model "
            f"asks for it. If you trust it: sw.models.Whisperer.load(folder, allow_encoders=[{encoder!r}])."
        )
    return {}


def _bare(part: Artifact, name: str) -> torch.nn.Module | None:
    match part.config:
        case {"name": str(encoder)}:
            return stored_class(encoder, name).bare_module(part)
    return None


def _check_tower(name: str, make: Callable[[], torch.nn.Module | None], artifact: Artifact) -> None:
    """Compare the network of a trained encoder with the weights that the model stores of it, before it is made."""
    start = f"towers.{name}."
    stored = {key.removeprefix(start): value.shape for key, value in artifact.tensors.items() if key.startswith(start)}
    compare_shapes(make, stored, f"the {name} encoder of this model", within(artifact))


def given_encoder(name: str, modality: ModalityConfig, encoder: Given) -> Encoder:
    """Open an encoder that the caller passes for a stored model, and compare it with the one of the model."""
    opened, stated = any_encoder(encoder, name), modality.features.encoder
    if stated is None:
        raise ValueError(
            f"The {name} features of this model were computed elsewhere (.obsm[{modality.features.key!r}]); it takes no encoder for "
            f"them, and encoders={{{name!r}: …}} gives one."
        )
    identity = opened.identity
    if identity.name != stated.name:
        raise ValueError(
            f"The {name} encoder of this model is {stated.name!r}, and encoders={{{name!r}: …}} gives {identity.name!r}. Give a module "
            f"the name and the normalisation it was trained with: ModuleEncoder(module, EncoderSpec({stated.name!r}, …))."
        )
    # a module that was trained is filled with the weights of the model; a name alone says nothing about weights
    if not modality.trained and identity.unread and identity.unread == stated.unread:
        warn(
            f"Whether the {name} encoder that was given is the one this model was trained on is not known, because {identity.unread} "
            "cannot be read."
        )
    elif not modality.trained and stated.digest is not None and identity.digest != stated.digest:
        warn(
            f"The {name} encoder that was given is not exactly the one this model was trained on: its weights, its code or the "
            "version of Python differ. Its features may have another meaning."
        )
    return opened


def check_sizes(config: ModelConfig, tensors: Mapping[str, np.ndarray]) -> None:
    """Compare the number of features of each modality with what is stored, before anything of that size is made.

    Raises
    ------
    ValueError
        If they differ.
    """
    for name, modality in config.modalities.items():
        mean = tensors.get(f"{name}_mean")
        if mean is None or mean.shape != (modality.feature_dim,):
            raise ValueError(
                f"The weights of this model do not fit its configuration: {name}_mean needs {modality.feature_dim} values."
            )


def within(artifact: Artifact) -> AbstractContextManager[None]:
    """Refuse networks that are larger than all weights of an artifact, while they are built."""
    sizes = [value.size for part in _parts(artifact) for value in part.tensors.values()]
    return networks_within(sum(sizes), len(sizes), f"this {artifact.kind}")


@contextmanager
def sketched(artifact: Artifact) -> Iterator[None]:
    """Build networks that have shapes alone, and no more of them than `within` allows."""
    with within(artifact), without_memory():
        yield


def fill(model: JointSpace, tensors: Mapping[str, np.ndarray]) -> None:
    """Load weights that fit exactly. Networks on the meta device take memory only after all shapes were compared.

    Raises
    ------
    ValueError
        If weights are missing, not expected, of another shape or type, or not finite.
    """
    expected = model.state_dict()
    wrong = sorted(set(tensors) ^ set(expected)) or [k for k, v in expected.items() if not _fits(tensors[k], v)]
    if wrong:
        raise ValueError(f"The weights of this model do not fit its configuration: check {listing(wrong, 4)}.")
    odd = [name for name, value in tensors.items() if not np.isfinite(value).all()]
    if odd:
        raise ValueError(f"The weights of this model are not finite: check {listing(odd, 4)}.")
    _materialise(model)
    model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in tensors.items()})


def _materialise(model: JointSpace) -> None:
    """Give memory to networks that have none. Trained encoders have theirs, and buffers that are not stored."""
    if model.log_scale.is_meta:
        model._apply(_empty, recurse=False)
        for name, part in model.named_children():
            if name != "towers":
                part._apply(_empty)


def _empty(tensor: torch.Tensor) -> torch.Tensor:
    # Module.to_empty does the same by torch.empty_like, which on the meta device imports SymPy: .4 s in a new process
    return torch.empty(tensor.shape, dtype=tensor.dtype)


def _fits(value: np.ndarray, expected: torch.Tensor) -> bool:
    kind = "f" if expected.is_floating_point() else "b" if expected.dtype is torch.bool else "i"
    return value.shape == expected.shape and value.dtype.kind in _FILLED[kind]


def _parts(artifact: Artifact) -> Iterator[Artifact]:
    yield artifact
    for part in artifact.parts.values():
        yield from _parts(part)
