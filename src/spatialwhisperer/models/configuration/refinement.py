"""What became of the contrastive refinement of a model, as it is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from spatialwhisperer._frozen import frozen
from spatialwhisperer._storage.schema import Stored


@dataclass(frozen=True)
class Refinement(Stored):
    """Whether contrastive steps replaced the image head of the closed form, and on what grounds.

    Attributes
    ----------
    head
        Name of the head that was refined.
    kept
        Whether the refined head replaced the closed form.
    reason
        The decision in words.
    steps
        Steps that the image head of the model has taken; 0 where the closed form stayed.
    candidates
        Numbers of steps that were compared; empty where nothing could be left out.
    agreement
        Caption agreement at each of them: the mean over left-out units.
    best_steps
        The one with the highest agreement.
    gains
        Its gain over the closed form in each left-out unit (patient, or section of the only patient).
    standard_error
        Standard error of the mean gain; ``None`` where nothing was compared.
    """

    head: str
    kept: bool
    reason: str
    steps: int = 0
    candidates: tuple[int, ...] = ()
    agreement: tuple[float, ...] = ()
    best_steps: int = 0
    gains: Mapping[str, float] = field(default_factory=frozen)
    standard_error: float | None = None
