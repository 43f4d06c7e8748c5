"""What a fit returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer._frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from spatialwhisperer.models.configuration.refinement import Refinement


@dataclass(frozen=True)
class Fitted:
    """History of a fit, its penalties, and what became of its refinement.

    Attributes
    ----------
    history
        Losses by phase, epoch and step.
    penalties
        Ridge penalties of what was solved in closed form, by name.
    refinement
        Decision about a contrastive refinement; ``None`` where there was none.
    """

    history: pd.DataFrame
    penalties: Mapping[str, float] = field(default_factory=frozen)
    refinement: Refinement | None = None

    def then(self, other: Fitted) -> Fitted:
        """Append the history and the penalties of a second fit, and take its refinement."""
        import pandas as pd

        parts = [fitted.history for fitted in (self, other) if len(fitted.history)]
        history = pd.concat(parts, ignore_index=True) if parts else self.history
        return Fitted(history, {**self.penalties, **other.penalties}, other.refinement or self.refinement)


def one_step(losses: Mapping[str, float], held_out: Mapping[str, float] | None = None) -> pd.DataFrame:
    """History of what was solved in closed form: one row for each phase, at epoch and step 0.

    Parameters
    ----------
    losses
        Error on the training items, by phase.
    held_out
        Error on held-out items, for the phases in which it could be measured.
    """
    import pandas as pd

    history = pd.DataFrame([{"phase": p, "epoch": 0, "step": 0, "loss": float(e)} for p, e in losses.items()])
    if held_out:
        history["val_loss"] = [float(held_out.get(phase, np.nan)) for phase in losses]
    return history
