"""Callbacks of a training run: its history, its checkpoints and a progress bar. Imported inside functions only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from spatialwhisperer._messages import progress

if TYPE_CHECKING:
    from pathlib import Path


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
        Folder of ``history.csv`` and of the last checkpoint.
    """

    def __init__(self, phase: str, folder: Path) -> None:
        self.phase = phase
        self.path = folder / "history.csv"
        self.rows: list[dict[str, Any]] = []

    def state_dict(self) -> dict[str, Any]:
        """Rows so far, for the checkpoint."""
        return {"rows": list(self.rows)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Rows up to the checkpoint from which a run is resumed."""
        self.rows = list(state_dict["rows"])

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Append the metrics of the epoch."""
        if not trainer.is_global_zero:
            return
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
        self.rows.append({"phase": self.phase, "epoch": trainer.current_epoch, "step": trainer.global_step, **metrics})

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Write the history, and a checkpoint of the last epoch."""
        trainer.save_checkpoint(self.path.parent / "last.ckpt", weights_only=False)
        if trainer.is_global_zero:
            self._write()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:  # noqa: ARG002
        """Write the history of an interrupted run."""
        if trainer.is_global_zero and self.rows:
            self._write()

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(self.rows).to_csv(self.path, index=False)

    def frame(self) -> pd.DataFrame:
        """The history, one row per epoch."""
        return pd.read_csv(self.path) if self.path.is_file() else pd.DataFrame(self.rows)


class EpochBar(Callback):
    """Progress bar over the epochs, with the loss of the last one."""

    bar: Any = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Open the bar."""
        self.bar = progress(total=trainer.max_epochs, desc="training", unit="epoch") if trainer.is_global_zero else None

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


def callbacks(folder: Path, epochs: int) -> list[Callback]:
    """A checkpoint about ten times in a run, and the progress bar."""
    every = max(1, epochs // 10)
    checkpoint = ModelCheckpoint(
        dirpath=folder,
        filename="last",
        every_n_epochs=every,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    return [checkpoint, EpochBar()]
