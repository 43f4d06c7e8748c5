"""The text tower of a model of images and texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch


@dataclass(frozen=True)
class Tower:
    """A text tower.

    Attributes
    ----------
    network
        Takes what `tokens` returns as keyword arguments, and returns rows (n, d).
    tokens
        Turns texts into tensors by name.
    scale
        Factor of the cosines between images and texts, the inverse of the temperature.
    """

    network: torch.nn.Module
    tokens: Callable[[Sequence[str]], dict[str, Any]]
    scale: float
