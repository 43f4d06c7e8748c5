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
    """How a fit went.

    Attributes
    ----------
    history
        Losses by phase, epoch and step.
    penalties
        Of what was solved in closed form, by name.
    """

    history: pd.DataFrame
    penalties: Mapping[str, float] = field(default_factory=frozen)

    def then(self, other: Fitted) -> Fitted:
        """Both fits, one after the other."""
        import pandas as pd

        history = pd.concat([self.history, other.history], ignore_index=True)
        return Fitted(history, {**self.penalties, **other.penalties})


def one_step(losses: Mapping[str, float]) -> pd.DataFrame:
    """The history of what was solved in one step, a row for each phase."""
    import pandas as pd

    return pd.DataFrame([{"phase": p, "epoch": 0, "step": 0, "loss": float(e)} for p, e in losses.items()])
