from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from spatialwhisperer.models import get_preset
from spatialwhisperer.training.resuming.files import write_whole
from spatialwhisperer.training.resuming.run_identity import RunIdentity, check_epochs, fingerprint, sweep_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PARTS: dict[str, Any] = {"random_state": 0, "preset": {"rate": 1e-3, "pairs": {("a", "b"): 1.0}}, "names": ["x", "y"]}


def test_an_identity_comes_back_as_it_was_written(tmp_path: Path) -> None:
    identity = RunIdentity(PARTS, {"max_epochs": 3})
    identity.write(tmp_path / "new")
    again = RunIdentity.read(tmp_path / "new")
    assert again is not None
    assert again.digest == identity.digest
    assert identity.differences(again) == []
    assert again.remarks == {"max_epochs": 3}
    assert json.loads((tmp_path / "new" / "run.json").read_text())["identity"]["preset"]["rate"] == 1e-3
    assert RunIdentity.read(tmp_path) is None


def test_each_difference_is_named_with_both_values() -> None:
    changed = {"random_state": 1, "preset": {"rate": 1e-2, "pairs": {}}, "names": ["x", "z"], "new": None}
    assert RunIdentity(changed).differences(RunIdentity(PARTS)) == [
        "random_state: 0 before, 1 now",
        "preset.rate: 0.001 before, 0.01 now",
        "preset.pairs: nothing before, {} now",
        'names: ["x", "y"] before, ["x", "z"] now',
        "new: nothing before, null now",
        "preset.pairs.('a', 'b'): 1.0 before, nothing now",
    ]


def test_a_long_value_is_shown_where_it_changes() -> None:
    long = [f"caption {i}" for i in range(100)]
    (text,) = RunIdentity({"c": [*long[:70], "other", *long[71:]]}).differences(RunIdentity({"c": long}))
    assert "caption 70" in text
    assert "other" in text
    assert len(text) < 300


def test_another_run_is_not_resumed(tmp_path: Path) -> None:
    RunIdentity(PARTS).check_resumed(tmp_path)
    RunIdentity(PARTS, {"max_epochs": 3}).write(tmp_path)
    RunIdentity(PARTS, {"max_epochs": 9}).check_resumed(tmp_path)
    with pytest.raises(ValueError, match=r"holds another run.*\n- random_state: 0 before, 1 now\n.*another folder"):
        RunIdentity({**PARTS, "random_state": 1}).check_resumed(tmp_path)


@pytest.mark.parametrize("name", ["phases", "model"])
def test_a_run_without_an_identity_is_not_resumed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=r"holds a run without run.json.* Train in another folder"):
        RunIdentity(PARTS).check_resumed(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("0.001", "0.002"),
        lambda text: text[: len(text) // 2],
        lambda text: text.replace("spatialwhisperer run", "run"),
        lambda text: text.replace('"format_version": 1', '"format_version": 2'),
        lambda text: "[]",  # noqa: ARG005
        lambda text: "[" * 100_000,  # noqa: ARG005
    ],
)
def test_a_changed_identity_is_refused(tmp_path: Path, change: Callable[[str], str]) -> None:
    RunIdentity(PARTS).write(tmp_path)
    path = tmp_path / "run.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match="not the file that was written with the run"):
        RunIdentity(PARTS).check_resumed(tmp_path)


def test_a_fingerprint_tells_data_apart() -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    values = [
        x,
        x.T,
        x.reshape(3, 2),
        x.astype(float),
        x + 1,
        csr_matrix(x),
        list("ab"),
        ["ab"],
        np.array(["a", None]),
        None,
    ]
    assert len({fingerprint(value) for value in values}) == len(values)
    assert fingerprint(x).startswith("2 × 3 float32, sha256 ")
    assert fingerprint(x[:0]) == fingerprint(x[:0].copy())
    # the same values in another layout are the same data
    assert fingerprint(np.asfortranarray(x)) == fingerprint(x)
    assert fingerprint(csr_matrix(x).tocsc()) == fingerprint(csr_matrix(x))


RECIPE = get_preset("bleep").joint


@pytest.mark.parametrize(
    ("changes", "epochs", "phases", "message"),
    [
        ({}, (3, 3), True, None),
        ({"schedule": "constant", "warmup": 0.0}, (3, 4), False, None),
        ({"schedule": "constant", "warmup": 0.0}, (3, 4), True, "a longer first phase"),
        ({"schedule": "constant", "warmup": 0.0}, (4, 3), False, "fewer epochs"),
        ({"schedule": "constant", "warmup": 0.1}, (3, 4), False, "depends on the number of epochs"),
        ({"schedule": "cosine", "warmup": 0.0}, (3, 4), False, "depends on the number of epochs"),
    ],
)
def test_more_epochs_continue_only_what_would_be_the_same_run(
    changes: dict[str, Any], epochs: tuple[int, int], phases: bool, message: str | None
) -> None:
    from dataclasses import replace

    recipe = replace(RECIPE, **changes)
    if message is None:
        check_epochs(*epochs, recipe, several_phases=phases)
        return
    with pytest.raises(ValueError, match=f"begun with {epochs[0]} epochs, and {epochs[1]} .*{message}"):
        check_epochs(*epochs, recipe, several_phases=phases)


def test_leftovers_of_a_killed_run_are_swept(tmp_path: Path) -> None:
    for name in (".model-abc", ".model-abc-old", "model", "phases"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / f".run.json.{os.getpid()}.tmp").write_text("half")
    write_whole(tmp_path / "run.json", b"{}")
    sweep_run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "phases", "run.json"]
