"""What a fit returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from spatialwhisperer._frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd


@dataclass(frozen=True)
class Fitted:
    """History and penalties of a fit.

    Attributes
    ----------
    history
        Losses by phase, epoch and step.
    penalties
        Ridge penalties of what was solved in closed form, by name.
    """

    history: pd.DataFrame
    penalties: Mapping[str, float] = field(default_factory=frozen)

    def then(self, other: Fitted) -> Fitted:
        """Append the history and the penalties of a second fit."""
        import pandas as pd

        history = pd.concat([self.history, other.history], ignore_index=True)
        return Fitted(history, {**self.penalties, **other.penalties})


def one_step(losses: Mapping[str, float]) -> pd.DataFrame:
    """History of what was solved in closed form: one row for each phase, at epoch and step 0."""
    import pandas as pd

    return pd.DataFrame([{"phase": p, "epoch": 0, "step": 0, "loss": float(e)} for p, e in losses.items()])
