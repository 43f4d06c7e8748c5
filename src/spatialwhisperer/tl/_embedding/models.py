"""Opening the model that a call is given, and recording which one it was."""

from __future__ import annotations

import os
import zlib
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatialwhisperer._compute.opened import opened_once
from spatialwhisperer._messages import listing
from spatialwhisperer.encoders.catalogue import open_identified, opens_by_name

if TYPE_CHECKING:
    from spatialwhisperer.encoders.base import Encoder
    from spatialwhisperer.models.whisperer import Whisperer


def open_model(model: Whisperer | str | Path | None) -> Whisperer:
    """The model itself, the one in a folder or on the hub, a published one of images and texts, or for ``None`` the embedded one.

    Raises
    ------
    FileNotFoundError
        If there is no such model, or this installation holds no embedded one.
    TypeError
        If it is none of these.
    """
    # torch is imported by a call that needs it, not by whoever looks at the namespace
    from spatialwhisperer.models.default import default_model
    from spatialwhisperer.models.published.image_text import IMAGE_ONLY, image_text_model
    from spatialwhisperer.models.published.loading import load
    from spatialwhisperer.models.published.names import image_text_names
    from spatialwhisperer.models.store import EMBEDDED
    from spatialwhisperer.models.whisperer import Whisperer

    if model is None:
        return default_model()
    if isinstance(model, Whisperer):
        return model
    # os.path answers for names that no file system takes too
    if isinstance(model, str) and "/" not in model and not os.path.exists(model):
        if model in image_text_names() or model in IMAGE_ONLY:
            name = model
            return opened_once(("model", name), lambda: image_text_model(name))
        _check_name(model, [EMBEDDED, *image_text_names()])
    if isinstance(model, str | Path):
        place = model
        return opened_once(("model", str(place)), lambda: load(place))
    raise TypeError(f"model must be a Whisperer, a folder or a hub name, not {type(model).__name__}.")


def _check_name(name: str, known: list[str]) -> None:
    if name in known:
        return
    near = get_close_matches(name.lower(), known, n=1)
    raise FileNotFoundError(
        f"There is no folder {name} to open a model from, and no model of that name. "
        f"{f'Did you mean {near[0]!r}? ' if near else ''}Names are {listing(known)}; one on the hub is like 'owner/name'."
    )


def describe_model(model: Whisperer) -> dict[str, Any]:
    """Facts about a model that are recorded beside its results, as plain values."""
    image = model.config.modalities.get("image")
    training = model.config.training
    out: dict[str, Any] = {
        "folder": None if model.folder is None else model.folder.name,
        "encoders": {name: one.features.name for name, one in model.config.modalities.items()},
    }
    if image is not None and image.features.tile_um:
        out["tile_um"] = list(image.features.tile_um)
    if training is not None:
        out |= {
            "preset": training.preset,
            "schedule": training.schedule,
            "pairs": dict(training.pairs),
            "random_state": training.random_state,
        }
    return out


def head_checksum(model: Whisperer, modality: str) -> int:
    """CRC-32 of the weights that map features of a modality into the joint space, without those of its encoder."""
    ours = (f"heads.{modality}.", f"contexts.{modality}.", f"{modality}_mean", f"{modality}_std")
    found = 0
    for name, value in model.state_dict().items():
        if name.startswith(ours):
            found = zlib.crc32(value.detach().cpu().float().contiguous().numpy().data, found)
    return found


def encoder_of(model: Whisperer, modality: str) -> Encoder:
    """The encoder of a modality: the one that the model holds, or a known one that is opened by its name.

    Raises
    ------
    ValueError
        If it is neither: an encoder that is not registered is never opened.
    """
    if modality in model.encoders:
        return model.encoders[modality]
    features = model.config.modality(modality).features
    if features.encoder is None or not features.encoder.by_name or not opens_by_name(features.name, modality):
        raise ValueError(
            f"The {modality} encoder of this model is {features.name!r}, which is not a registered one with published weights. Pass it "
            f"when you open the model: sw.models.Whisperer.load(folder, encoders={{{modality!r}: …}})."
        )
    model.encoders[modality] = open_identified(features.encoder, modality)
    return model.encoders[modality]
