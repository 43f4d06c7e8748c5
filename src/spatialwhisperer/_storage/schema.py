"""Frozen dataclasses to plain values and back, checked by their annotations."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from spatialwhisperer._frozen import FrozenMapping
from spatialwhisperer._storage.untrusted import opening

if TYPE_CHECKING:
    from pydantic import TypeAdapter

D = TypeVar("D")


class Stored:
    """Base of the frozen dataclasses that are stored.

    Unknown keys and values of another type are refused when they are read, and mappings cannot be changed.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True}

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, Mapping) and not isinstance(value, FrozenMapping):
                object.__setattr__(self, name, FrozenMapping(value))


def to_plain(value: Any) -> Any:
    """Turn a value into dictionaries, lists, numbers and text, as JSON has them; sets become sorted lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, set | frozenset):
        # the order of a set differs between processes
        value = sorted(value, key=lambda v: (type(v).__name__, v))
    if isinstance(value, list | tuple):
        return [to_plain(v) for v in value]
    if hasattr(value, "tolist"):
        return value.tolist()
    return value


def from_plain(kind: type[D], plain: Any, what: str) -> D:
    """Build a frozen dataclass of plain values.

    Parameters
    ----------
    kind
        The class.
    plain
        What `to_plain` returned, perhaps read from a file.
    what
        Name of the value in the error message.

    Raises
    ------
    ValueError
        If a value is missing, unknown, or of another type; the message names the first few.
    """
    from pydantic import ValidationError

    try:
        with opening(what[0].upper() + what[1:], own=(ValidationError,)):
            # of JSON, because a list of it may stand for a tuple and a whole number for any
            return _adapters[kind].validate_json(json.dumps(plain))
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in e['loc']) or 'the whole'}: {e['msg']}" for e in error.errors()[:3]
        )
        raise ValueError(f"{what[0].upper()}{what[1:]} does not fit this version of the package: {wrong}.") from error


class _Adapters(dict[type, "TypeAdapter[Any]"]):
    """One for each class, made when it is first used."""

    def __missing__(self, kind: type) -> TypeAdapter[Any]:
        from pydantic import TypeAdapter

        self[kind] = TypeAdapter(kind)
        return self[kind]


_adapters = _Adapters()
