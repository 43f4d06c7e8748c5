"""What a training run keeps: its history, its checkpoints and a progress bar. Imported inside functions only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from spatialwhisperer._messages import progress

if TYPE_CHECKING:
    from pathlib import Path


class History(Callback):
    """Collects the metrics of every epoch and writes them to ``history.csv``, which outlives spawned processes."""

    def __init__(self, phase: str, folder: Path) -> None:
        self.phase = phase
        self.path = folder / "history.csv"
        self.rows: list[dict[str, Any]] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Continue the history of a resumed run."""
        if trainer.current_epoch and self.path.is_file():
            before = pd.read_csv(self.path)
            self.rows = before[before["epoch"] < trainer.current_epoch].to_dict("records")

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Take the metrics of the epoch."""
        if not trainer.is_global_zero:
            return
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
        self.rows.append({"phase": self.phase, "epoch": trainer.current_epoch, "step": trainer.global_step, **metrics})

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Write the history, and the last checkpoint where the epochs do not divide evenly."""
        trainer.save_checkpoint(self.path.parent / "last.ckpt", weights_only=False)
        if trainer.is_global_zero:
            self._write()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:  # noqa: ARG002
        """Keep what an interrupted run has learnt about itself."""
        if trainer.is_global_zero and self.rows:
            self._write()

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(self.rows).to_csv(self.path, index=False)

    def frame(self) -> pd.DataFrame:
        """The history, one row per epoch."""
        return pd.read_csv(self.path) if self.path.is_file() else pd.DataFrame(self.rows)


class EpochBar(Callback):
    """One bar over the epochs, with the loss."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Open the bar."""
        self.bar = progress(total=trainer.max_epochs, desc="training", unit="epoch") if trainer.is_global_zero else None

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Move the bar."""
        if self.bar is not None:
            loss = trainer.callback_metrics.get("loss")
            self.bar.set_postfix_str("" if loss is None else f"loss {float(loss):.3f}", refresh=False)
            self.bar.update()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:  # noqa: ARG002
        """Close the bar, also after an error."""
        if getattr(self, "bar", None) is not None:
            self.bar.close()


def callbacks(folder: Path, epochs: int) -> list[Callback]:
    """Checkpoints about ten times a run, and the bar."""
    every = max(1, epochs // 10)
    checkpoint = ModelCheckpoint(
        dirpath=folder,
        filename="last",
        every_n_epochs=every,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    return [checkpoint, EpochBar()]
