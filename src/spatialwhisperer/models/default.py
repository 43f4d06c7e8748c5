"""The embedded model: small, trained on public sections, and there without a download."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from spatialwhisperer._messages import say
from spatialwhisperer.models import store

if TYPE_CHECKING:
    from spatialwhisperer.models.whisperer import Whisperer

NAME = "her2st-mini"


def default_model() -> Whisperer:
    """The embedded model "her2st-mini", read once and shared by all calls that are given no model.

    What it was trained on is in ``model.config["card"]``, and is said in one line when it is first opened.
    ``sw.models.Whisperer.load("her2st-mini")`` gives a copy that may be changed.

    Raises
    ------
    FileNotFoundError
        If this installation holds no embedded model.
    ValueError
        If a file of it is cut off, changed or missing.
    """
    return _shared(weights_folder())


def weights_folder() -> Path:
    """Where the embedded model lies in this installation."""
    return Path(str(files("spatialwhisperer.models") / "weights" / NAME))


def open_embedded(cls: type[Whisperer], folder: Path | None = None) -> Whisperer:
    """Read the embedded model and say what it is.

    Raises
    ------
    FileNotFoundError
        If this installation holds no embedded model.
    """
    folder = weights_folder() if folder is None else folder
    if not folder.is_dir():
        raise FileNotFoundError(
            f"This installation holds no embedded model ({folder} is not there). Install the package again from a wheel, train a "
            "model with sw.tl.train(…), or open one: model=sw.models.Whisperer.load(folder)."
        )
    model = store.read_folder(cls, folder)
    _say_once(introduction(model))
    return model


def introduction(model: Whisperer) -> str:
    """What a model with a card was trained on, in one line."""
    card = model.config.get("card", {})
    parts = []
    sections = {*card.get("sections_with_image", []), *card.get("sections_with_text", [])}
    if sections:
        parts.append(f"{len(sections)} sections of {len(card.get('patients', []))} patients")
    if card.get("tissue"):
        parts.append(card["tissue"])
    mpp = None if model.reference is None else model.reference.config.get("mpp")
    if mpp:
        ends = dict.fromkeys(f"{value:.2g}" for value in mpp)
        parts.append(f"images of {'–'.join(ends)} µm per pixel")
    return f"{NAME}: {', '.join(parts) or 'the embedded model'}; not for diagnosis"


@lru_cache(maxsize=1)
def _shared(folder: Path) -> Whisperer:
    from spatialwhisperer.models.whisperer import Whisperer

    return open_embedded(Whisperer, folder)


@lru_cache(maxsize=1)
def _say_once(message: str) -> None:
    say(message)
