"""Random numbers of a call leave those of the process alone."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from spatialwhisperer._random import isolated_rng, untouched_rng


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(1))  # noqa: NPY002


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


def test_isolated_rng_leaves_the_process_alone() -> None:
    with isolated_rng(None):
        seed_all(1)
        expected = draw()
        seed_all(1)
        with isolated_rng(99):
            draw()
        assert draw() == expected


def test_isolated_rng_is_reproducible() -> None:
    draws = []
    for seed in (5, 5, 6):
        with isolated_rng(seed):
            draws.append(draw())
    assert draws[0] == draws[1]
    assert all(a != b for a, b in zip(draws[0], draws[2], strict=True))


def test_isolated_rng_without_a_seed_continues_the_stream() -> None:
    with isolated_rng(None):
        seed_all(2)
        expected = draw()
        seed_all(2)
        with isolated_rng(None):
            assert draw() == expected


@pytest.mark.parametrize("value", [None, "7"])
def test_isolated_rng_restores_after_an_error(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    if value is None:
        monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    else:
        monkeypatch.setenv("PL_GLOBAL_SEED", value)
    before = random.getstate()

    def fail_inside() -> None:
        with isolated_rng(3):
            os.environ["PL_GLOBAL_SEED"] = "3"
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail_inside()
    assert random.getstate() == before
    assert os.environ.get("PL_GLOBAL_SEED") == value


def test_untouched_rng_gives_torch_its_state_back_after_an_error_too() -> None:
    def build() -> None:
        with untouched_rng():
            torch.nn.Linear(3, 3)
            raise RuntimeError("inside")

    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="inside"):
        build()
    assert torch.equal(torch.get_rng_state(), before)


def test_untouched_rng_imports_no_torch() -> None:
    code = "import sys; from spatialwhisperer._random import untouched_rng\nwith untouched_rng(): pass\nprint('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
