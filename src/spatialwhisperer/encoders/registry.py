"""The registry of encoders, and the decorator that adds a class to it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, TypeVar

from spatialwhisperer._annotations import check_annotated
from spatialwhisperer._messages import listing
from spatialwhisperer.encoders import gene, image, text
from spatialwhisperer.encoders.base import Encoder
from spatialwhisperer.encoders.spec import EncoderSpec

if TYPE_CHECKING:
    from collections.abc import Callable

E = TypeVar("E", bound=Encoder)


@dataclass(frozen=True)
class Entry:
    """A name with its facts and the class that opens it."""

    spec: EncoderSpec
    make: type[Encoder]


ENTRIES: dict[tuple[str, str], Entry] = {}
OTHERS: dict[str, list[type[Encoder]]] = {}
"""Classes of each modality that open names which are not registered, such as those of a hub."""


def register_encoder(*specs: EncoderSpec, overwrite: bool = False) -> Callable[[type[E]], type[E]]:
    """Register the decorated class of encoders by name.

    Parameters
    ----------
    *specs
        Name and other facts about the encoder; several for a class that opens several names.
    overwrite
        Replace entries of the same name and modality.

    Returns
    -------
    The decorator. It sets the attribute ``names`` of the class and, if there is one name only, ``spec``.

    Raises
    ------
    TypeError
        If something is not an `EncoderSpec`, ``overwrite`` is no truth value, or the class is not an encoder or lacks its methods.
    ValueError
        If there is no spec, a name comes twice, or is taken and ``overwrite`` is off.

    Examples
    --------
    >>> import numpy as np, spatialwhisperer as sw
    >>> @sw.models.register_encoder(sw.models.EncoderSpec("mean_colour", "image", 3), overwrite=True)
    ... class MeanColour(sw.models.ImageEncoder):
    ...     def encode(self, tiles, *, mpp, device=None):
    ...         return tiles.mean(axis=(2, 3)).astype(np.float32)
    >>> sw.models.open_encoder("mean_colour", "image").encode(np.zeros((2, 3, 8, 8), np.uint8), mpp=1.0).shape
    (2, 3)
    """
    check_annotated("overwrite", overwrite, "bool")
    for spec in specs:
        if not isinstance(spec, EncoderSpec):
            raise TypeError(f"register_encoder takes EncoderSpec, not {type(spec).__name__}.")
    names = [(spec.modality, spec.name) for spec in specs]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"register_encoder takes one EncoderSpec or more, of different names; found {[n for _, n in names]}."
        )

    def register(cls: type[E]) -> type[E]:
        _check_class(cls)
        if not cls.__module__.startswith(f"{__package__}."):
            # the package's own names are taken, whether or not they have been asked for yet
            load_own()
        for spec in specs:
            if (spec.modality, spec.name) in ENTRIES and not overwrite:
                raise ValueError(
                    f"{spec.modality} encoder {spec.name!r} is registered already; pass overwrite=True to replace it."
                )
        for spec in specs:
            if (before := ENTRIES.get((spec.modality, spec.name))) is not None:
                before.make.names -= {spec.name}
            ENTRIES[spec.modality, spec.name] = Entry(spec, cls)
        cls.names = vars(cls).get("names", frozenset()) | {spec.name for spec in specs}
        if len(specs) == 1:
            cls.spec = specs[0]
        return cls

    return register


def _check_class(cls: Any) -> None:
    if not (isinstance(cls, type) and issubclass(cls, Encoder)):
        raise TypeError(
            f"register_encoder decorates a class of encoders, not {cls!r}. Derive it from sw.models.ImageEncoder, TextEncoder or GeneEncoder."
        )
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    if missing:
        raise TypeError(f"{cls.__name__} lacks the methods {listing(missing)}, which every encoder of its kind has.")
    if cls.fits and not callable(getattr(cls, "fit", None)):
        raise TypeError(
            f"{cls.__name__} has fits=True and no class method fit. Write one, or set fits = False for an encoder that needs no data."
        )


def opens_other_names(modality: str) -> Callable[[type[E]], type[E]]:
    """Make the decorated class open the names of a modality that are not registered, such as folders and ids of a hub.

    Its class method ``known(name)`` returns the facts about a name, or ``None``. Classes of one modality know different names.
    """

    def register(cls: type[E]) -> type[E]:
        OTHERS.setdefault(modality, []).append(cls)
        return cls

    return register


def registered(name: str, modality: str) -> EncoderSpec | None:
    """Return the facts of a registered name; ``None`` where it is not registered, or its file was not imported yet."""
    entry = ENTRIES.get((modality, name))
    return None if entry is None else entry.spec


@cache
def load_own() -> None:
    """Import the package's own encoders, one file each; they import nothing heavy before they are opened."""
    for room in (image, gene, text):
        for module in iter_modules(room.__path__, room.__name__ + "."):
            if not module.name.rpartition(".")[2].startswith("_"):
                import_module(module.name)
