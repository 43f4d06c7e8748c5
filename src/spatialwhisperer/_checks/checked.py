"""Checks of the arguments of public functions and of the fields of public dataclasses.

Arguments whose names are in `RULES` are checked by these before anything else happens, and the others by their annotations.
"""

from __future__ import annotations

import inspect
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from spatialwhisperer._annotations import check_annotated
from spatialwhisperer._checks.rules import RULES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from spatialwhisperer._checks.rules import Rule

P = ParamSpec("P")
R = TypeVar("R")


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Check the arguments of a public function by the rules of their names, else by their annotations, before it is called.

    A default that is passed by name is always right.
    """
    return _watched(function, RULES)


def checked_options(cls: type[R]) -> type[R]:
    """Check the fields of a dataclass, as `checked` does arguments, whenever one is made."""
    cls.__init__ = _watched(cls.__init__, RULES)  # type: ignore[method-assign]
    return cls


def checked_fields(cls: type[R]) -> type[R]:
    """Check the fields of a dataclass by their annotations whenever one is made; it checks their range itself."""
    cls.__init__ = _watched(cls.__init__, {})  # type: ignore[method-assign]
    return cls


def _watched(function: Callable[P, R], known: Mapping[str, Rule]) -> Callable[P, R]:
    signature = inspect.signature(function)
    parameters = signature.parameters
    rules = {name: known.get(name) or partial(_annotated, p.annotation) for name, p in parameters.items() if _is_one(p)}

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:
            # Python's own message names the function
            return function(*args, **kwargs)
        for name, rule in rules.items():
            if name in given and given[name] is not parameters[name].default:
                rule(name, given[name])
                if given[name] is None:
                    # a rule lets it pass for all functions, where some know what it stands for
                    check_annotated(name, None, parameters[name].annotation)
        return function(*args, **kwargs)

    return call


def _annotated(annotation: Any, name: str, value: Any) -> None:
    check_annotated(name, value, annotation)


def _is_one(parameter: inspect.Parameter) -> bool:
    return parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
