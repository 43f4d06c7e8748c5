"""Errors as one line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

_OWN = (ArithmeticError, ImportError, LookupError, OSError, TypeError, ValueError)
"""Errors whose message is meant for a reader; of others the name of the class is shown too."""


class UsageError(Exception):
    """What was typed cannot be carried out, whatever the slides hold."""


def one_line(error: BaseException) -> str:
    """The message of an error, in one line."""
    # the text of a KeyError is its message in quotes
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    text = " ".join(str(message).split())
    if isinstance(error, (*_OWN, UsageError)) and text:
        return text
    name = type(error).__name__
    return f"{name}: {text} (--debug shows where)" if text else f"{name} (--debug shows where)"


def as_typed(message: str, options: Collection[str]) -> str:
    """A message of the package, with the options that stand for the arguments it names.

    Parameters
    ----------
    message
        The message, in which an argument is written ``name=``.
    options
        Names of the options, with ``_``.
    """
    named = dict.fromkeys(name for name in re.findall(r"\b([a-z]\w*)=", message) if name in options)
    if not named:
        return message
    return f"{message} On the command line: {', '.join('--' + name.replace('_', '-') for name in named)}."
