"""Checks of the type of an argument: by its annotation, where its name has no rule of its own, and of arrays."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np

_SHOWN = 80
_TEXTS = "a list of text"

Test = Callable[[Any], bool]


class Kind(NamedTuple):
    """What an annotation allows: a test, and its words."""

    test: Test
    words: str


def check_annotated(name: str, value: Any, annotation: Any) -> None:
    """Refuse a value of another type than the annotation states; an annotation that is not understood states nothing.

    Numbers may be those of NumPy, and a sequence anything that can be iterated.

    Raises
    ------
    TypeError
        If it is of another type.
    """
    kinds = kinds_of(annotation) if isinstance(annotation, str) else ()
    if kinds and not any(kind.test(value) for kind in kinds):
        words = [kind.words for kind in kinds]
        either = " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]
        remedy = f" Pass [{value!r}]." if is_text(value) and any(w.startswith(_TEXTS) for w in words) else ""
        raise TypeError(f"{name} must be {either}, not {shown(value)}.{remedy}")


def shown(value: Any) -> str:
    """The representation of a value, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number."""
    return isinstance(value, Integral) and not isinstance(value, bool | np.bool_)


def is_number(value: Any) -> bool:
    """Whether a value is a number that a float can hold, NaN and infinity among them."""
    if not isinstance(value, Real) or isinstance(value, bool | np.bool_):
        return False
    try:
        float(value)
    except (OverflowError, TypeError):
        return False
    return True


def is_text(value: Any) -> bool:
    """Whether a value is text that can be written to a file."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_path(value: Any) -> bool:
    """Whether a value may name a file."""
    return isinstance(value, os.PathLike) or is_text(value)


def iterated(value: Any) -> list[Any] | None:
    """The parts of what can be iterated more than once; ``None`` for text, mappings, tables and single values."""
    if isinstance(value, np.ndarray) and value.dtype == object:
        # such as a grid of axes
        return list(value.ravel())
    several = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
    return list(value) if several and getattr(value, "ndim", 1) == 1 else None


def numbers(name: str, value: Any, shape: tuple[int | None, ...] | None = None) -> np.ndarray:
    """Return an array of numbers.

    Parameters
    ----------
    name
        Name of the argument.
    value
        Its value.
    shape
        The shape that is asked for, with ``None`` for any length; ``None`` takes any.

    Raises
    ------
    TypeError
        If it holds something else than real numbers.
    ValueError
        If it has another shape.
    """
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        array = np.empty(0, object)
    if array.dtype.kind not in "iufb":
        raise TypeError(f"{name} must be an array of numbers, not {shown(value)}.")
    if shape is None:
        return array
    if array.ndim != len(shape) or any(
        want is not None and n != want for n, want in zip(array.shape, shape, strict=True)
    ):
        asked = ", ".join("n" if n is None else str(n) for n in shape)
        raise ValueError(f"{name} must be of shape ({asked}); found {array.shape}.")
    return array


def one_for_each(name: str, value: Any, n: int) -> np.ndarray:
    """Return an array with one name or number for each row.

    Raises
    ------
    ValueError
        If it has another length.
    """
    parts = iterated(value)
    if parts is None or len(parts) != n:
        raise ValueError(f"{name} must name one for each of the {n} rows, not {shown(value)}.")
    return np.asarray(value) if hasattr(value, "dtype") else np.asarray(parts, dtype=object)


@lru_cache(maxsize=1024)
def kinds_of(annotation: str) -> tuple[Kind, ...]:
    """The kinds that an annotation allows, one for each part of a union; empty where one of them is not understood."""
    found = [_kind(part) for part in _parts(ast.parse(annotation, mode="eval").body)]
    return tuple(kind for kind in found if kind is not None) if all(found) else ()


def _parts(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return [*_parts(node.left), *_parts(node.right)]
    return [node]


def _is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...


def _of_class(name: str) -> Test:
    # by name, so that nothing has to be imported
    return lambda value: any(c.__name__ == name for c in type(value).__mro__)


_NAMED = {
    "int": Kind(is_whole, "a whole number"),
    "float": Kind(is_number, "a number"),
    "str": Kind(is_text, "text"),
    "bool": Kind(lambda value: isinstance(value, bool | np.bool_), "True or False"),
    "Path": Kind(is_path, "a path"),
    "Axes": Kind(lambda value: callable(getattr(value, "imshow", None)), "axes of matplotlib"),
    "DataFrame": Kind(_of_class("DataFrame"), "a DataFrame"),
}
_CLASSES = (
    *(
        "Card",
        "Context",
        "Hierarchy",
        "Modality",
        "ModelConfig",
        "PairLoss",
        "Preset",
        "Recipe",
        "Reference",
        "ReferenceConfig",
    ),
    *("Retrieval", "Smoothing", "Term", "Training"),
    *(
        "Annotation",
        "EncoderIdentity",
        "EncoderSpec",
        "Evaluation",
        "Expression",
        "ExpressionConfig",
        "ExpressionOptions",
        "Ontology",
    ),
)
_NAMED |= {name: Kind(_of_class(name), f"{'an' if name[0] in 'AEO' else 'a'} {name}") for name in _CLASSES}
# names of choices: the function itself knows which there are
_CHOICES = (
    "At",
    "Border",
    "Level",
    "ListOrigin",
    "LowRes",
    "Method",
    "Norm",
    "Normalize",
    "OffSlide",
    "Pooling",
    "Reads",
    "Windows",
)
_NAMED |= dict.fromkeys(_CHOICES, _NAMED["str"])
_SEQUENCES = ("Sequence", "Iterable", "Collection", "list", "tuple")


def _kind(node: ast.expr) -> Kind | None:
    if isinstance(node, ast.Constant) and node.value is None:
        return Kind(lambda value: value is None, "None")
    if isinstance(node, ast.Attribute):
        return _NAMED.get(node.attr)
    if isinstance(node, ast.Name):
        return _NAMED.get(node.id)
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
        return _subscript(node.value.id, node.slice)
    return None


def _subscript(outer: str, inner: ast.expr) -> Kind | None:
    if outer == "Literal":
        choices = ast.literal_eval(inner) if isinstance(inner, ast.Tuple) else (ast.literal_eval(inner),)
        # which text it is the function asks itself: another one is a wrong value, and not a wrong type
        return Kind(is_text, " or ".join(map(repr, choices)))
    if outer == "Mapping":
        named = isinstance(inner, ast.Tuple) and _kind(inner.elts[0]) == _NAMED["str"]
        return Kind(
            lambda value: isinstance(value, Mapping) and not (named and not all(map(is_text, value))),
            "a mapping of names" if named else "a mapping",
        )
    if outer not in _SEQUENCES:
        return None
    parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
    each = [_kind(one) for part in parts if not _is_ellipsis(part) for one in _parts(part)]
    kinds = [kind for kind in each if kind is not None]
    if len(kinds) < len(each):
        return None

    def test(value: Any) -> bool:
        if hasattr(value, "__next__"):
            # an iterator can be read only once
            return True
        keys = outer in ("Iterable", "Collection") and isinstance(value, Mapping)
        parts = list(value) if keys else iterated(value)
        return parts is not None and all(any(kind.test(part) for kind in kinds) for part in parts)

    return Kind(test, f"a list of {' or '.join(kind.words for kind in kinds)}")
