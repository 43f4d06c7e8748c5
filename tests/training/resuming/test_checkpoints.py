from __future__ import annotations

import os
import pickle
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
import torch

from spatialwhisperer._messages import SpatialWhispererWarning
from spatialwhisperer.training.fit import fit
from spatialwhisperer.training.resuming import checkpoints as module
from spatialwhisperer.training.resuming.checkpoints import (
    checkpoint_path,
    keep_only,
    newest_checkpoint,
    read_checkpoint,
    sweep,
    write_checkpoint,
)
from spatialwhisperer.training.resuming.ended import forget_ended

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from spatialwhisperer.models.joint_space import JointSpace
    from spatialwhisperer.training.batches import Items
    from spatialwhisperer.training.fit import Run

    Space = Callable[..., JointSpace]
    Runs = Callable[..., Run]


def same(a: JointSpace, b: JointSpace) -> bool:
    """Whether all weights are equal."""
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def stop_at(epoch: int) -> Any:
    """A callback that interrupts the training."""
    from lightning.pytorch.callbacks import Callback

    class Stop(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
            if trainer.current_epoch == epoch:
                raise KeyboardInterrupt

    return Stop()


def saved(folder: Path, *steps: int) -> list[Path]:
    """Checkpoints with the number of their step in them."""
    for step in steps:
        write_checkpoint({"step": step}, checkpoint_path(folder, step))
    return [checkpoint_path(folder, step) for step in steps]


# ------------------------------------------------------------------------------------------------- files


def test_a_checkpoint_comes_back_as_it_was_written(tmp_path: Path) -> None:
    (path,) = saved(tmp_path / "new", 3)
    assert read_checkpoint(path) == {"step": 3}
    assert sorted(p.name for p in path.parent.iterdir()) == ["step-0000000003.ckpt", "step-0000000003.ckpt.sha256"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "digest", "other digest"])
def test_a_damaged_checkpoint_is_recognised(tmp_path: Path, damage: str) -> None:
    (path,) = saved(tmp_path, 3)
    content, digest = path.read_bytes(), path.with_name(f"{path.name}.sha256")
    if damage == "digest":
        digest.unlink()
    elif damage == "other digest":
        digest.write_text("0" * 64)
    else:
        flipped = bytes([content[200] ^ 1])
        changed = {"cut": content[:-1], "flipped": content[:200] + flipped + content[201:], "empty": b""}
        path.write_bytes(changed[damage])
    with pytest.raises(ValueError, match="not the checkpoint that was written"):
        read_checkpoint(path)


def test_a_checkpoint_with_code_in_it_is_refused_even_with_its_digest(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    for number, content in enumerate(({"state": Hostile()}, Hostile())):
        path = checkpoint_path(tmp_path, number)
        write_checkpoint(content, path)
        with pytest.raises(ValueError, match="more than tensors and plain values"):
            read_checkpoint(path)
    # an archive of torch is not the only thing that it opens
    module.write_whole(path, pickle.dumps(Hostile(), protocol=2))
    module.write_whole(
        path.with_name(f"{path.name}.sha256"), module.hashlib.sha256(path.read_bytes()).hexdigest().encode()
    )
    with pytest.raises(ValueError, match="more than tensors and plain values"):
        read_checkpoint(path)
    assert not (tmp_path / "ran").exists()


def test_the_last_intact_checkpoint_is_found(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "none") is None
    first, second = saved(tmp_path, 9, 10)
    assert newest_checkpoint(tmp_path) == (second, {"step": 10})
    second.write_bytes(second.read_bytes()[:50])
    with pytest.warns(SpatialWhispererWarning, match=r"step-0000000010.ckpt is not .* before, step-0000000009.ckpt"):
        assert newest_checkpoint(tmp_path) == (first, {"step": 9})
    first.write_bytes(b"")
    with pytest.raises(ValueError, match=r"No checkpoint in .* can be used.*0009.ckpt.*Remove the folder of the run"):
        newest_checkpoint(tmp_path)


@pytest.mark.parametrize("renamed", [0, 1])
def test_a_write_that_fails_anywhere_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renamed: int
) -> None:
    """A write renames the digest and then the checkpoint."""
    saved(tmp_path, 9)
    replace = os.replace
    calls: list[Path] = []

    def full(source: Path, target: Path) -> None:
        if len(calls) == renamed:
            raise OSError("the disk is full")
        calls.append(target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="full"):
        saved(tmp_path, 10)
    assert newest_checkpoint(tmp_path) == (checkpoint_path(tmp_path, 9), {"step": 9})
    sweep(tmp_path)
    assert {p.name.split(".")[0] for p in tmp_path.iterdir()} == {"step-0000000009"}


def test_others_than_the_kept_checkpoints_are_removed(tmp_path: Path) -> None:
    _, second, third = saved(tmp_path, 1, 2, 3)
    keep_only(tmp_path, [second, third])
    assert sorted(p.name for p in tmp_path.glob("*.ckpt")) == [second.name, third.name]
    assert len(list(tmp_path.iterdir())) == 4


# ------------------------------------------------------------------------------------------------- a resumed run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("validated", "precision"), [(False, "32-true"), (True, "32-true"), (False, "64-true"), (False, "bf16-mixed")]
)
def test_a_resumed_run_draws_the_dropout_of_the_whole_run(
    items: Items, space: Space, run: Runs, tmp_path: Path, validated: bool, precision: str
) -> None:
    """The state of the random generators is in the checkpoint: weights and history are the same to the last bit."""
    own = {"heads": dict.fromkeys(("image", "gene", "text"), "bn_shortcut"), "dropout": 0.3}
    held_out, exact = items if validated else None, {"precision": precision}
    whole, model = space(**own), space(**own)
    expected = fit(whole, items, held_out, run(exact, max_epochs=6), schedule="joint", image_link=None).history
    folder = tmp_path / "stopped"
    for stop in (2, 5):
        stopping = run({"callbacks": stop_at(stop), **exact}, max_epochs=6, folder=folder, resume=True)
        with pytest.raises(KeyboardInterrupt):
            fit(space(**own), items, held_out, stopping, schedule="joint", image_link=None)
    resumed = run(exact, max_epochs=6, folder=folder, resume=True)
    history = fit(model, items, held_out, resumed, schedule="joint", image_link=None).history
    pd.testing.assert_frame_equal(history, expected, check_exact=True)
    assert same(model, whole)


def test_more_epochs_continue_a_run_whose_rates_do_not_depend_on_them(
    items: Items, space: Space, run: Runs, tmp_path: Path
) -> None:
    own = {"heads": {"gene": "bn_shortcut"}, "dropout": 0.3}
    how: dict[str, Any] = {"schedule": "constant", "warmup": 0.0}
    whole, model = space(**own), space(**own)
    expected = fit(whole, items, None, run(max_epochs=5, **how), schedule="joint", image_link=None).history
    folder = tmp_path / "longer"
    fit(space(**own), items, None, run(max_epochs=3, folder=folder, **how), schedule="joint", image_link=None)
    longer = run(max_epochs=5, folder=folder, resume=True, **how)
    history = fit(model, items, None, longer, schedule="joint", image_link=None).history
    pd.testing.assert_frame_equal(history, expected, check_exact=True)
    assert same(model, whole)


def test_another_number_of_epochs_is_refused_where_the_rates_depend_on_it(
    items: Items, space: Space, run: Runs
) -> None:
    fit(space(), items, None, run(max_epochs=2), schedule="joint", image_link=None)
    with pytest.raises(ValueError, match=r"begun with 2 epochs, and 3 .* depends on the number of epochs"):
        fit(space(), items, None, run(max_epochs=3, resume=True), schedule="joint", image_link=None)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(items: Items, space: Space, run: Runs) -> None:
    whole, model = space(), space()
    expected = fit(whole, items, None, run(max_epochs=4), schedule="joint", image_link=None).history
    folder = run().folder / "joint"
    # as a process leaves it that is killed after its last epoch
    forget_ended(folder)
    last = sorted(folder.glob("*.ckpt"))[-1]
    last.write_bytes(last.read_bytes()[:-100])
    resumed = run(max_epochs=4, resume=True)
    with pytest.warns(SpatialWhispererWarning, match=r"cut off or changed.* continues from the checkpoint before"):
        history = fit(model, items, None, resumed, schedule="joint", image_link=None).history
    pd.testing.assert_frame_equal(history, expected, check_exact=True)
    assert same(model, whole)
    # the run has saved its end again
    fit(space(), items, None, resumed, schedule="joint", image_link=None)
    forget_ended(folder)
    for path in folder.glob("*.ckpt"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="No checkpoint in .* can be used"):
        fit(space(), items, None, resumed, schedule="joint", image_link=None)


@pytest.mark.parametrize("max_steps", [14, 200])
@pytest.mark.parametrize("validated", [False, True])
def test_a_run_with_a_limit_of_steps_continues_with_a_new_epoch(
    items: Items, space: Space, run: Runs, tmp_path: Path, max_steps: int, validated: bool
) -> None:
    """Four steps make an epoch: the limit is in the middle of the fourth, or is never reached."""
    whole, model, held_out = space(dropout=0.3), space(dropout=0.3), items if validated else None
    limit = {"max_steps": max_steps}
    expected = fit(whole, items, held_out, run(limit, max_epochs=5), schedule="joint", image_link=None).history
    assert expected["step"].tolist() == ([4, 8, 12, 14] if max_steps == 14 else [4, 8, 12, 16, 20])
    stopping = run({"callbacks": stop_at(2), **limit}, max_epochs=5, folder=tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        fit(space(dropout=0.3), items, held_out, stopping, schedule="joint", image_link=None)
    resumed = run(limit, max_epochs=5, folder=tmp_path / "stopped", resume=True)
    history = fit(model, items, held_out, resumed, schedule="joint", image_link=None).history
    pd.testing.assert_frame_equal(history, expected, check_exact=True)
    assert same(model, whole)


def test_a_run_that_ends_within_an_epoch_is_saved_at_the_end_of_the_epoch_before(
    items: Items, space: Space, run: Runs
) -> None:
    limited = run({"max_steps": 6}, max_epochs=4)
    fit(space(), items, None, limited, schedule="joint", image_link=None)
    assert [p.name for p in (run().folder / "joint").glob("*.ckpt")] == ["step-0000000004.ckpt"]


def test_leftovers_of_killed_runs_are_swept(items: Items, space: Space, run: Runs) -> None:
    folder = run().folder / "joint"
    folder.mkdir(parents=True)
    (folder / ".step-0000000004.ckpt.123.tmp").write_bytes(b"half")
    (folder / "step-0000000004.ckpt.sha256").write_text("of no checkpoint")
    fit(space(), items, None, run(max_epochs=2, resume=True), schedule="joint", image_link=None)
    kept = ["step-0000000004.ckpt", "step-0000000008.ckpt"]
    digested = [name + suffix for name in ("ended.pt", *kept) for suffix in ("", ".sha256")]
    assert sorted(p.name for p in folder.iterdir()) == sorted(["history.csv", *digested])
