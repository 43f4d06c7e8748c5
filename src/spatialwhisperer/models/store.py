"""Finding a stored model: in a folder, in the package, or on the Hugging Face hub."""

from __future__ import annotations

from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatialwhisperer._artifact.layout import CONFIG
from spatialwhisperer._storage.folders import present
from spatialwhisperer._storage.untrusted import REMEDY
from spatialwhisperer.encoders.catalogue import open_encoder, opens_by_name
from spatialwhisperer.models.sharing.hub import check_options, fetch_model, refuse_revision

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spatialwhisperer.encoders.base import Encoder
    from spatialwhisperer.encoders.recipe import FeatureRecipe

EMBEDDED = "her2st-mini"
"""Name of the model that is part of the package."""


def embedded_folder() -> Path:
    """Folder of the embedded model in this installation."""
    return Path(str(files("spatialwhisperer.models") / "weights" / EMBEDDED))


def installed_model() -> Path:
    """Folder of the embedded model.

    Raises
    ------
    FileNotFoundError
        If this installation holds none.
    """
    folder = embedded_folder()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"This installation holds no embedded model ({folder} is not there). Install the package again from a wheel, train "
            "a model with sw.tl.train(…), or open one: model=sw.models.Whisperer.load(folder)."
        )
    return folder


def locate(source: str | Path, **hub: Any) -> Path:
    """Find the folder of a model, and download it from the hub where ``source`` is a name on the hub.

    A folder counts as there when a process has moved it away and not yet put another into its place; `Artifact.read` finds it.

    Raises
    ------
    FileNotFoundError
        If there is no such model.
    TypeError
        If an option is not one of the hub.
    ValueError
        If the model is on this machine and a revision is asked for, or the id on the hub is not valid.
    """
    check_options(hub)
    path = Path(source).expanduser()
    here = present(path, CONFIG) is not None
    if here or str(source) == EMBEDDED:
        refuse_revision(source, hub)
        return path if here else installed_model()
    # an id of the hub has one stroke, an address of it a scheme
    deep = str(source).count("/") != 1 and "://" not in str(source)
    if deep or path.is_absolute() or str(source).startswith("."):
        raise FileNotFoundError(f"There is no folder {path} to open a model from.")
    return fetch_model(str(source), **hub)


@contextmanager
def naming_download(source: str | Path, folder: Path, **hub: Any) -> Iterator[None]:
    """Let errors about a damaged model of the hub name the call that downloads it again: without it the cache is read again.

    Parameters
    ----------
    source
        What was to be opened.
    folder
        Where it was found.
    **hub
        Options of the hub that it was opened with.
    """
    try:
        yield
    except ValueError as error:
        if folder.parent.name != "snapshots" or folder == Path(source).expanduser() or REMEDY not in str(error):
            raise
        same = "".join(
            f"{name}={str(hub[name])!r}, " for name in ("revision", "cache_dir") if hub.get(name) is not None
        )
        again = f"sw.models.load({str(source)!r}, {same}force_download=True)"
        raise ValueError(f"{str(error).replace(REMEDY, '').strip()} Download it again: {again}.") from error


def fresh_encoder(modality: str, features: FeatureRecipe) -> dict[str, Encoder]:
    """Encoder of a known name with random weights, by modality; an empty dictionary for other names."""
    if features.encoder is None or not opens_by_name(features.encoder.name, modality):
        return {}
    return {modality: open_encoder(features.encoder.name, modality, pretrained=False)}
