"""What is written into the folder of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import spatialwhisperer as sw
from spatialwhisperer.training.resuming.ended import NAME, Ended
from tests import corpora

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("given", [True, False])
def test_loggers_and_callbacks_write_to_the_folder_of_the_run(
    simulated: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: bool
) -> None:
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.loggers import CSVLogger

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    preset = sw.models.get_preset("spatialwhisperer").replace(schedule="joint", gene_encoder="pca")
    trainer: dict[str, Any] = {"callbacks": ModelCheckpoint(every_n_epochs=1, save_top_k=-1)}
    folder = tmp_path / "run" if given else None
    model = sw.tl.train(simulated.reference, preset=preset, max_epochs=2, trainer=trainer, folder=folder)
    run = model.folder.parent if model.folder is not None else tmp_path
    assert given == (run == tmp_path / "run")
    assert len(list((run / "checkpoints").glob("epoch=*.ckpt"))) == 2
    assert {path.name for path in run.iterdir()} >= {"model", "checkpoints"}
    assert list((tmp_path / "here").iterdir()) == []
    # one that names a folder writes there
    again = {"logger": CSVLogger(str(tmp_path / "mine"))}
    sw.tl.train(simulated.reference, preset=preset, max_epochs=1, trainer=again)
    assert (tmp_path / "mine" / "lightning_logs").is_dir()


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("kind", ["objects", pytest.param("corpus", marks=pytest.mark.slow)])
def test_phases_that_have_ended_are_kept_only_where_the_run_can_be_resumed(
    simulated: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, given: bool
) -> None:
    written: list[Path] = []
    write = Ended.write

    def noted(self: Ended, folder: Path) -> None:
        written.append(folder)
        write(self, folder)

    monkeypatch.setattr(Ended, "write", noted)
    preset = sw.models.get_preset("spatialwhisperer").replace(schedule="joint", gene_encoder="pca")
    data = simulated.reference if kind == "objects" else corpora.build(tmp_path / "c")
    sw.tl.train(data, preset=preset, max_epochs=1, folder=tmp_path / "run" if given else None)
    assert written == ([tmp_path / "run" / "phases" / "joint"] if given else [])
    assert all((folder / NAME).is_file() for folder in written)
