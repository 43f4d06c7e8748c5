"""A phase of training that has ended: its weights and its history, so that a resumed run leaves it as it is.

A checkpoint is not enough. It does not say what ended the phase, it is that of a whole epoch, and weights that are averaged or chosen
at the end come after it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import pandas as pd

from spatialwhisperer._messages import warn
from spatialwhisperer.training.resuming.checkpoints import read_checkpoint, remove_checkpoint, write_checkpoint
from spatialwhisperer.training.resuming.files import write_whole

if TYPE_CHECKING:
    from pathlib import Path

    import torch

NAME = "ended.pt"
"""File in the folder of a phase, with its digest beside it."""

_TIME_UP = "time_was_up"
"""Empty file in the folder of a phase that its limit of time has ended."""


@dataclass(frozen=True)
class Ended:
    """A phase that has ended.

    Attributes
    ----------
    epochs
        Number of epochs that were asked for, as the trainer counts them.
    max_time
        Limit of time that ended the phase, as text; ``None`` where something else ended it.
    weights
        Weights of the whole model.
    losses
        Columns of the history.
    """

    epochs: int
    max_time: str | None
    weights: dict[str, torch.Tensor]
    losses: dict[Any, list[Any]]

    @property
    def history(self) -> pd.DataFrame:
        """The history, one row per epoch."""
        return pd.DataFrame(self.losses)

    def stays(self, epochs: int, max_time: str | None, *, several_phases: bool) -> bool:
        """Whether a run that asks for so many epochs and so much time, from its start, would have ended the phase as it did.

        Parameters
        ----------
        epochs, max_time
            What is asked for now.
        several_phases
            Whether other phases precede or follow this one. Then it always stays, because the next one began with its weights.
        """
        if several_phases:
            return True
        every = len(self.history) >= self.epochs
        # a phase that something else ended than its number of epochs, or its limit of time, would not have used more of them
        return epochs == self.epochs if every else self.max_time in (None, max_time)

    def write(self, folder: Path) -> None:
        """Write to the folder of the phase."""
        # not by asdict, which copies all weights
        write_checkpoint({f.name: getattr(self, f.name) for f in fields(self)}, folder / NAME)


def read_ended(folder: Path) -> Ended | None:
    """Read from the folder of a phase; ``None`` where the phase has not ended, and with a warning where the file is damaged."""
    if not (folder / NAME).is_file():
        return None
    try:
        return Ended(**read_checkpoint(folder / NAME))
    except ValueError as error:
        warn(f"{error} Training continues from the last checkpoint.")
        return None


def forget_ended(folder: Path) -> None:
    """Remove what states that the phase has ended, before it is trained further."""
    remove_checkpoint(folder / NAME)
    (folder / _TIME_UP).unlink(missing_ok=True)


def note_time_up(folder: Path) -> None:
    """Note in the folder of a phase that its limit of time ends it, also for the process that has started this one."""
    write_whole(folder / _TIME_UP, b"")


def time_was_up(folder: Path) -> bool:
    """Whether the limit of time has ended the phase, in this process or in one that it has started."""
    return (folder / _TIME_UP).exists()
