"""The kinds of data that a joint space can hold; each is one entry here."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from spatialwhisperer._annotations import check_annotated
from spatialwhisperer._messages import listing

Reads = Literal["tiles", "counts", "captions", "matrix"]


@dataclass(frozen=True)
class Modality:
    """One kind of data.

    Attributes
    ----------
    name
        Name; the joint embedding of its rows is stored in ``.obsm["X_sw_<name>"]``.
    reads
        What its encoders take: H&E "tiles", raw "counts", "captions" of rows, or a "matrix" of numbers in ``.obsm``.
    key
        Key in ``.obsm``, for a "matrix".
    encoder
        Name of the encoder, for a "matrix"; ``None`` takes the numbers themselves as features.

    Raises
    ------
    ValueError
        If a matrix has no key, or anything else has one.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sw.models.Modality("protein", reads="matrix", key="protein").embedding_key
    'X_sw_protein'
    """

    name: str
    reads: Reads
    key: str | None = None
    encoder: str | None = None

    def __post_init__(self) -> None:
        for one in fields(self):
            check_annotated(one.name, getattr(self, one.name), one.type)
        if not self.name.isidentifier():
            raise ValueError(f"The name of a modality must be a word without blanks, not {self.name!r}.")
        if (self.reads == "matrix") != (self.key is not None):
            raise ValueError("A modality that reads a matrix needs key=…, its key in .obsm; others take none.")

    @property
    def embedding_key(self) -> str:
        """Key of the joint embedding in ``.obsm``."""
        return f"X_sw_{self.name}"


MODALITIES: dict[str, Modality] = {}
"""By name. The order of the first three is that of the letters in a locking code."""


def register_modality(modality: Modality, *, overwrite: bool = False) -> None:
    """Add a modality, so that encoders can be registered for it and models trained with it.

    Parameters
    ----------
    modality
        The entry.
    overwrite
        Replace an entry of the same name.

    Raises
    ------
    ValueError
        If the name is taken and ``overwrite`` is off.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sw.models.register_modality(sw.models.Modality("protein", reads="matrix", key="protein"), overwrite=True)
    """
    check_annotated("modality", modality, "Modality")
    check_annotated("overwrite", overwrite, "bool")
    if modality.name in MODALITIES and not overwrite:
        raise ValueError(f"The modality {modality.name!r} is registered already; pass overwrite=True to replace it.")
    MODALITIES[modality.name] = modality


def get_modality(name: str) -> Modality:
    """Return a modality by name.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    if not isinstance(name, str) or name not in MODALITIES:
        raise ValueError(f"There is no modality {name!r}; there are {listing(MODALITIES)}.")
    return MODALITIES[name]


for _modality in (Modality("gene", "counts"), Modality("text", "captions"), Modality("image", "tiles")):
    register_modality(_modality)
del _modality
