"""Callbacks of a training run: its history, its checkpoints and a progress bar. Imported inside functions only."""

from __future__ import annotations

import math
import multiprocessing
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from lightning.pytorch.callbacks import Callback, Checkpoint, Timer
from lightning.pytorch.plugins.io import CheckpointIO

from spatialwhisperer._messages import progress
from spatialwhisperer.training.resuming import checkpoints
from spatialwhisperer.training.resuming.ended import note_time_up
from spatialwhisperer.training.resuming.files import write_whole
from spatialwhisperer.training.resuming.random_states import restore_random_states, states_of_ranks

if TYPE_CHECKING:
    from collections.abc import Mapping


_OWN = "spatialwhisperer"
"""Entry of a checkpoint with what this package adds to it."""


class History(Callback):
    """Collects the metrics of every epoch.

    They are stored in every checkpoint, so that a resumed run continues them, and written to ``history.csv``, from which a process reads
    the history of processes that it started. Lightning's CSVLogger does neither: it deletes the file of an earlier run, and writes the
    metrics of training and of validation to different rows.

    Parameters
    ----------
    phase
        Name of the phase, the same in every row.
    folder
        Folder of ``history.csv``.
    parts
        Epochs of the trainer that are one pass over the data.
    """

    def __init__(self, phase: str, folder: Path, parts: int = 1) -> None:
        self.phase, self.parts = phase, parts
        self.path = folder / "history.csv"
        self.rows: list[dict[str, Any]] = []
        self._validated = False

    def state_dict(self) -> dict[str, Any]:
        """Rows so far, for the checkpoint."""
        return {"rows": list(self.rows)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Rows up to the checkpoint from which a run is resumed."""
        self.rows = list(state_dict["rows"])

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Note that the epoch has a validation loss."""
        self._validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Append the metrics of the epoch; those of held-out groups are NaN where none were measured."""
        # every rank reads them, because the means over the ranks are taken when they are read
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
        if not self._validated:
            # the trainer keeps those of an earlier epoch
            metrics = {k: math.nan if k.startswith("val_") else v for k, v in metrics.items()}
        self._validated = False
        if not trainer.is_global_zero:
            return
        epoch = trainer.current_epoch // self.parts
        self.rows.append({"phase": self.phase, "epoch": epoch, "step": trainer.global_step, **metrics})

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Write the history."""
        if trainer.is_global_zero:
            self._write()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:  # noqa: ARG002
        """Write the history of an interrupted run."""
        if trainer.is_global_zero and self.rows:
            self._write()

    def _write(self) -> None:
        write_whole(self.path, pd.DataFrame(self.rows).to_csv(index=False).encode())

    def frame(self) -> pd.DataFrame:
        """The history, one row per epoch."""
        # a resumed phase that had ended trains no epoch, and writes no file
        if self.rows or not self.path.is_file():
            return pd.DataFrame(self.rows)
        # read as text, because pandas before version 3 rounds the last digit of a number
        text = pd.read_csv(self.path, dtype=str)
        return text.astype({c: int if c in ("epoch", "step") else float for c in text.columns if c != "phase"})


class EpochBar(Callback):
    """Progress bar over the epochs, with the loss of the last one."""

    bar: Any = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Open the bar, in a resumed run at the epoch that it continues with."""
        if trainer.is_global_zero:
            done = trainer.current_epoch
            self.bar = progress(total=trainer.max_epochs, desc="training", unit="epoch", initial=done)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Advance the bar."""
        if self.bar is not None:
            loss = trainer.callback_metrics.get("loss")
            self.bar.set_postfix_str("" if loss is None else f"loss {float(loss):.3f}", refresh=False)
            self.bar.update()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:  # noqa: ARG002
        """Close the bar, also after an error."""
        if self.bar is not None:
            self.bar.close()


class BestEpoch(Callback):
    """Ends a run with the weights of the epoch whose validation loss was lowest.

    They are part of every checkpoint, so that a resumed run ends with the same ones.
    """

    def __init__(self) -> None:
        self.loss = float("inf")
        self.weights: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """The lowest loss so far, and the weights of its epoch."""
        return {"loss": self.loss, "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The same, up to the checkpoint from which a run is resumed."""
        self.loss, self.weights = float(state_dict["loss"]), dict(state_dict["weights"])

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Keep the weights where the loss is lower than ever."""
        loss = trainer.callback_metrics.get("val_loss")
        if loss is not None and float(loss) < self.loss:
            self.loss = float(loss)
            self.weights = {name: x.detach().cpu().clone() for name, x in pl_module.state_dict().items()}

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Give the model the weights that were kept, after the checkpoint of the last epoch was saved."""
        if self.weights:
            pl_module.load_state_dict(self.weights)


class TimeLimit(Timer):
    """Ends a phase after some time, as ``max_time`` of the Trainer does, and notes it where nothing else has ended the phase before.

    Parameters
    ----------
    max_time
        The limit, as the Trainer takes it.
    folder
        Folder of the phase.
    """

    def __init__(self, max_time: Any, folder: Path) -> None:
        super().__init__(max_time)
        self.folder = folder

    def on_fit_start(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
        """End a resumed phase whose time was up before."""
        running = not trainer.should_stop
        super().on_fit_start(trainer, *args, **kwargs)
        self._note(trainer, running)

    def on_train_batch_end(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
        """End the phase where its time is up."""
        running = not trainer.should_stop
        super().on_train_batch_end(trainer, *args, **kwargs)
        self._note(trainer, running)

    def _note(self, trainer: Any, running: bool) -> None:
        if running and trainer.should_stop and trainer.is_global_zero:
            note_time_up(self.folder)


class AtOnce(Callback):
    """Lets a process that was started for the training end at once on SIGTERM.

    Lightning tells the other processes about the signal first. They are in the middle of a step, so that all would wait for one another.
    """

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Take Lightning's handler out."""
        if trainer.world_size > 1 and multiprocessing.parent_process() is not None:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


class Checkpoints(Checkpoint):
    """Saves the run about ten times and at its end, and keeps the last two checkpoints; after each part where a pass has several.

    A checkpoint is that of a whole epoch. Beside the weights, the optimiser and the history it holds the state of the random generators,
    so that dropout in a resumed run is that of a run that was never interrupted.

    Parameters
    ----------
    folder
        Folder of the checkpoints.
    epochs
        Number of epochs of the run, as the trainer counts them.
    parts
        Epochs of the trainer that are one pass over the data.
    """

    def __init__(self, folder: Path, epochs: int, parts: int = 1) -> None:
        self.folder = folder
        self.epochs, self.parts = epochs, parts
        self.every = 1 if parts > 1 else max(1, epochs // 10)
        self.kept: list[Path] = []
        self._whole_epoch = False
        self._states: list[dict[str, Any]] | None = None

    def find(self) -> tuple[Path, int] | None:
        """The checkpoint from which to resume, and the number of epochs that the run had when it was saved.

        ``None`` where there is no checkpoint.
        """
        found = checkpoints.newest_checkpoint(self.folder)
        if found is None:
            return None
        path, content = found
        self.kept = [path]
        return path, int(content[_OWN]["epochs"])

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:  # noqa: ARG002
        """Add the random state of each rank; every rank takes part."""
        checkpoint[_OWN] = {"epochs": self.epochs, "random": states_of_ranks(pl_module.device)}

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Mapping[str, Any]) -> None:  # noqa: ARG002
        """Keep the random states for the start of the first epoch, because what comes before it may draw; complete the epoch.

        Raises
        ------
        ValueError
            If the run was begun on another number of processes.
        """
        states = checkpoint[_OWN]["random"]
        if len(states) != trainer.world_size:
            raise ValueError(
                f"The run was begun on {len(states)} processes, and this one has {trainer.world_size}: its batches would be others. Give "
                f"trainer={{'devices': {len(states)}}}, or train in another folder."
            )
        self._states = states
        # it was saved in the last moment of an epoch; of a run with max_steps Lightning would train a batch of that epoch again
        for counts in checkpoint["loops"]["fit_loop"]["epoch_progress"].values():
            counts["completed"] = counts["processed"]

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Begin a resumed run with a new epoch, where Lightning takes that of a run with max_steps for one that was begun."""
        if self._states is not None:
            trainer.fit_loop.epoch_loop.restarting = False

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Restore the random state of this rank in the first epoch of a resumed run."""
        self._whole_epoch = False
        if self._states is None:
            return
        restore_random_states(self._states[trainer.global_rank], pl_module.device)
        self._states = None

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """Note whether this is the last batch of the epoch."""
        self._whole_epoch = batch_idx + 1 >= trainer.num_training_batches

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Save every few epochs."""
        if (trainer.current_epoch + 1) % self.every == 0:
            self._save(trainer)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Save the last epoch."""
        self._save(trainer)

    def _save(self, trainer: Any) -> None:
        path = checkpoints.checkpoint_path(self.folder, trainer.global_step)
        # a run that ends within an epoch, for lack of time for example, is resumed from the end of the epoch before
        if not self._whole_epoch or path in self.kept:
            return
        trainer.save_checkpoint(path, weights_only=False)
        self.kept = [*self.kept, path][-checkpoints.KEPT :]
        if trainer.is_global_zero:
            checkpoints.keep_only(self.folder, self.kept)


class CheckpointFiles(CheckpointIO):
    """How the trainer writes and reads checkpoints: whole, with a digest, and without running code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:  # noqa: ARG002
        """Write a checkpoint."""
        checkpoints.write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any = None,
        weights_only: bool | None = None,  # noqa: ARG002
    ) -> dict[str, Any]:
        """Read a checkpoint, never with code in it."""
        content: dict[str, Any] = checkpoints.read_checkpoint(Path(path), map_location or "cpu")
        return content

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint."""
        checkpoints.remove_checkpoint(Path(path))
