"""Finding encoders by name: those of the package, one file each, and registered ones of other authors."""

from __future__ import annotations

import dataclasses
import inspect
import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, cast

from spatialwhisperer._checks.checked import checked
from spatialwhisperer._messages import listing
from spatialwhisperer._modalities import get_modality
from spatialwhisperer.encoders.outputs import opened
from spatialwhisperer.encoders.registry import ENTRIES, OTHERS, load_own
from spatialwhisperer.encoders.spec import EncoderSpec

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from spatialwhisperer.encoders.base import Encoder
    from spatialwhisperer.encoders.recipe import EncoderIdentity

_COMMIT = re.compile("[0-9a-f]{40}")


def encoder_class(name: str, modality: str) -> type[Encoder]:
    """Return the class that opens a name.

    Raises
    ------
    ValueError
        If there is no encoder of that name; the message lists the closest ones.
    """
    load_own()
    entry = ENTRIES.get((modality, name))
    if entry is not None:
        return entry.make
    other = _opener(name, modality)
    if other is None:
        raise ValueError(_unknown(name, modality))
    return other


def stored_class(name: str, modality: str) -> type[Encoder]:
    """Return the class that opens a stored encoder: that of the registered name, else the one for names that are not registered.

    Raises
    ------
    ValueError
        If there is neither.
    """
    load_own()
    entry = ENTRIES.get((modality, name))
    if entry is not None:
        return entry.make
    others = OTHERS.get(modality, [])
    # a folder that a name stood for need not be there any more
    found = _opener(name, modality) or (others[0] if others else None)
    if found is None:
        raise ValueError(_unknown(name, modality))
    return found


@checked
def open_encoder(
    name: str,
    modality: str,
    *,
    weights: str | Path | None = None,
    pretrained: bool = True,
    revision: str | None = None,
) -> Encoder:
    """Open an encoder by name.

    Parameters
    ----------
    name
        Registered name. For images also a timm model id, or an id on the Hugging Face hub with the library that opens it:
        ``"hf-hub:owner/model"`` (timm), ``"transformers:owner/model"``, ``"open_clip:owner/model"``, or ``"lazyslide:name"`` for a
        model of the package lazyslide-models. For text also a folder or the id of a model on the hub.
    modality
        Modality that it encodes.
    weights
        Local weights, instead of a download: a ``.safetensors`` file, or a folder with exactly one.
    pretrained
        Whether to take the published weights; otherwise they are random.
    revision
        Commit, tag or branch on the hub. The commit is part of the identity of the encoder then: features of another one are not
        used in its place, and a model that was trained with it opens it at that commit. ``None`` takes what the cache of the hub holds, else the
        latest, and warns where that is not the commit that was opened first on this machine.

    Raises
    ------
    ValueError
        If there is no such encoder, it takes no weights, or has no revisions to choose from.
    FileNotFoundError
        If the weights are not there and cannot be downloaded.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sw.models.open_encoder("stain_texture", "image").spec.tile_um
    154.0
    """
    make, pinned = encoder_class(name, modality), {}
    if revision is not None:
        if weights is not None:
            raise ValueError("revision is for weights from the hub, and weights names a local copy: pass one of them.")
        if not _takes_revision(make):
            raise ValueError(
                f"The {modality} encoder {name!r} has no revisions to choose from: its name alone says which it is."
            )
        pinned = {"revision": revision}
    encoder: Encoder = opened(name, make, weights=weights, pretrained=pretrained, **pinned)
    return encoder


def open_identified(identity: EncoderIdentity, modality: str) -> Encoder:
    """Open the encoder that an identity names, at its commit where it states one."""
    commit = identity.revision
    # other encoders state a tag, or the digest of a packaged file
    pinned = (
        commit
        if commit and _COMMIT.fullmatch(commit) and _takes_revision(encoder_class(identity.name, modality))
        else None
    )
    return open_encoder(identity.name, modality, revision=pinned)


def _takes_revision(make: type[Encoder]) -> bool:
    return "revision" in inspect.signature(make.open).parameters


def opens_by_name(name: str, modality: str) -> bool:
    """Whether a name alone is enough to open an encoder: it is registered, or timm has a model of that name.

    Folders and ids of a hub are not enough: what they hold may change, and a model from elsewhere must not fetch it. Nor are names
    whose opening runs the code of a repository.
    """
    load_own()
    entry = ENTRIES.get((modality, name))
    if entry is not None:
        return not entry.make.runs_foreign_code
    return any(other.safe_name(name) for other in OTHERS.get(modality, []))


def encoder_names(modality: str, *, fits: bool | None = None) -> list[str]:
    """List the registered names of a modality, sorted.

    Parameters
    ----------
    modality
        The modality.
    fits
        Only encoders that training fits to the data (true), or does not fit (false); ``None`` lists all.
    """
    load_own()
    # in the order of registration, the answer would depend on what was imported before
    return sorted(n for (m, n), entry in ENTRIES.items() if m == modality and fits in (None, entry.make.fits))


@checked
def get_spec(name: str, modality: str | None = None) -> EncoderSpec:
    """Facts about an encoder, from the registry or, for any other timm model id, from timm.

    Parameters
    ----------
    name
        Registered name, timm model id (``"resnet18"``, ``"resnet18.a1_in1k"``) or ``"hf-hub:owner/model"``.
    modality
        Look among the encoders of this modality only; ``None`` looks among all.

    Returns
    -------
    The entry. For an ``hf-hub:`` name, whose facts lie on the hub, only the name and the address are filled.

    Raises
    ------
    ValueError
        No encoder of that name; the message lists the closest ones.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sw.models.get_spec("stain_texture").tile_um
    154.0
    """
    _check_modality(modality)
    load_own()
    hits = [entry.spec for (m, n), entry in ENTRIES.items() if n == name and modality in (None, m)]
    if hits:
        return hits[0]
    for other in OTHERS:
        if modality in (None, other) and (opener := _opener(name, other)) is not None:
            return cast("EncoderSpec", opener.known(name))
    raise ValueError(_unknown(name, modality))


@checked
def list_encoders(modality: str | None = None) -> pd.DataFrame:
    """Table of the registered encoders.

    Parameters
    ----------
    modality
        Only encoders of this modality; ``None`` lists all.

    Returns
    -------
    One row per encoder, indexed by name, with the attributes of `EncoderSpec` as columns. A model of images and texts has an encoder of
    each by one name. Any timm model id works as an image encoder too without being listed.

    Raises
    ------
    ValueError
        There is no such modality.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> bool(sw.models.list_encoders("image").loc["uni2-h", "gated"])
    True
    """
    import pandas as pd

    _check_modality(modality)
    load_own()
    rows = [dataclasses.asdict(entry.spec) for (m, _), entry in sorted(ENTRIES.items()) if modality in (None, m)]
    columns = [f.name for f in dataclasses.fields(EncoderSpec)]
    table = pd.DataFrame(rows, columns=columns).set_index("name")
    return table.astype({"dim": "Int64", "input_px": "Int64", "commercial": "boolean"})


def _opener(name: str, modality: str) -> type[Encoder] | None:
    """Class that opens a name which is not registered."""
    return next((cls for cls in OTHERS.get(modality, []) if cls.known(name) is not None), None)


def _check_modality(modality: str | None) -> None:
    if modality is not None:
        get_modality(modality)


def _unknown(name: str, modality: str | None) -> str:
    known = sorted(n for m, n in ENTRIES if modality in (None, m))
    others = [cls for m, classes in OTHERS.items() if modality in (None, m) for cls in classes]
    candidates = [*known, *(n for cls in others for n in cls.suggestions())]
    close = get_close_matches(name, dict.fromkeys(candidates), n=4, cutoff=0.5)
    hint = f"Did you mean {listing(close)}? " if close else ""
    kind = f"{modality} encoder" if modality else "encoder"
    extra = " and any timm model id" if modality in (None, "image") else ""
    if modality == "image" and name.count("/") == 1:
        hint = f"For a model on the hub name the library that opens it: 'hf-hub:{name}' (timm), 'transformers:{name}' or 'open_clip:{name}'. "
    return f"There is no {kind} {name!r}. {hint}Registered: {listing(known)}{extra}; see sw.models.list_encoders()."
