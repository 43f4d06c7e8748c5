"""What a kind of damage is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


class Damage(NamedTuple):
    """
    A kind of bad data.

    ``apply`` changes an object in place, and returns another one only where it must. ``harmless`` data are odd but right: a call gives
    the result that it gives without the damage.
    """

    name: str
    apply: Callable[[Any], Any]
    kinds: tuple[str, ...]
    harmless: bool = False
