"""Numbers and arrays of NumPy in a pickle: numbers become plain ones, arrays become stand-ins. Nothing of NumPy is called."""

from __future__ import annotations

import struct
from typing import Any

from spatialwhisperer._storage.pickles import Call, Named, StandIn

_KINDS = {
    "f8": "<d",
    "f4": "<f",
    "f2": "<e",
    "i8": "<q",
    "i4": "<i",
    "i2": "<h",
    "i1": "<b",
    "u8": "<Q",
    "u4": "<I",
    "u2": "<H",
    "u1": "<B",
    "b1": "<?",
}


def _dtype(*args: Any) -> StandIn:
    return StandIn(Named("numpy", "dtype"), args)


def _number(kind: Any, content: Any = b"") -> float | int:
    """A number that NumPy pickled."""
    code = kind.args[0] if isinstance(kind, StandIn) and kind.args else None
    order = (
        kind.state[1] if isinstance(kind, StandIn) and isinstance(kind.state, tuple) and len(kind.state) > 1 else "<"
    )
    if not isinstance(code, str) or code not in _KINDS or order not in ("<", "|") or not isinstance(content, bytes):
        raise ValueError("a number of NumPy is not stated as NumPy does")
    return struct.unpack(_KINDS[code], content)[0]


def _array(*args: Any) -> StandIn:
    return StandIn(Named("numpy", "ndarray"), args)


def _latin(text: Any, _encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str):
        raise ValueError("bytes are not stated as Python does")
    return text.encode("latin1")


def _name_alone(*_args: Any) -> Any:
    raise ValueError("an array of NumPy is not stated as NumPy does")


NUMBERS: dict[str, Call] = {
    "numpy.dtype": _dtype,
    "numpy.core.multiarray.scalar": _number,
    "numpy._core.multiarray.scalar": _number,
    "_codecs.encode": _latin,
}
"""What `read_pickle` may call for numbers of NumPy."""

ARRAYS: dict[str, Call] = {
    "numpy.core.multiarray._reconstruct": _array,
    "numpy._core.multiarray._reconstruct": _array,
    "numpy.ndarray": _name_alone,
}
"""The same for arrays, whose values are not read."""
