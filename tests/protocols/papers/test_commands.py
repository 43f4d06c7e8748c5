from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spatialwhisperer.protocols.__main__ import main
from spatialwhisperer.protocols.her2st.trained_networks import NetworkOptions
from spatialwhisperer.protocols.papers import run


def test_options_reach_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(run, "run", lambda *args, **kwargs: seen.append((args, kwargs["options"])))
    more = ["--image", "trained:resnet50", "--epochs", "3", "--seeds", "2", "--rows", "HER2+, sections", "--smoke"]
    main(["paper", "heclip", "--data", "here", *more])
    ((arguments, options),) = seen
    assert arguments == ("heclip", Path("here"), Path("results"))
    networks = NetworkOptions(epochs=3)
    assert options == run.Options("trained:resnet50", networks, 2, None, ("HER2+, sections",), smoke=True)


def test_missing_data_end_the_command_with_the_message_alone(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no data set of the paper 'tpirbae'"):
        main(["paper", "tpirbae", "--data", str(tmp_path), "--out", str(tmp_path / "out")])
