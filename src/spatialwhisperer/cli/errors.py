"""Errors as one line."""

from __future__ import annotations

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
