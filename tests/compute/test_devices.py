"""A module that belongs to somebody else is copied to a device, and never moved."""

from __future__ import annotations

import copy
import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import spatialwhisperer as sw
from spatialwhisperer._compute.devices import keeping_copies, ready
from spatialwhisperer.encoders.image.networks.module import ModuleEncoder


def network() -> nn.Sequential:
    tied = nn.Linear(3, 3)
    out = nn.Sequential(tied, nn.BatchNorm1d(3), nn.Dropout(), tied)
    out[1].eval()
    return out


def state(module: nn.Module) -> list[Any]:
    tensors = [*module.state_dict().items()]
    return [(k, t.device, t.clone()) for k, t in tensors] + [p.training for p in module.modules()]


def same(a: list[Any], b: list[Any]) -> bool:
    return all(
        x == y if isinstance(x, bool) else x[:2] == y[:2] and torch.equal(x[2], y[2]) for x, y in zip(a, b, strict=True)
    )


def test_a_module_is_lent_itself_on_its_own_device_and_gets_its_modes_back() -> None:
    module = network()
    before = state(module)
    with ready(module, "cpu") as lent:
        assert lent is module
        assert not any(part.training for part in module.modules())
    assert same(state(module), before)


def test_on_another_device_a_copy_is_lent() -> None:
    module = network()
    before = state(module)
    with ready(module, "meta") as lent:
        assert {t.device.type for t in lent.state_dict().values()} == {"meta"}
        assert lent[0] is lent[3]
        assert not any(part.training for part in lent.modules())
        assert same(state(module), before)
    assert same(state(module), before)


def test_a_module_is_as_it_was_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    module = network()
    before = state(module)
    for device in ("cpu", "meta"):
        with pytest.raises(torch.OutOfMemoryError), ready(module, device):
            raise torch.OutOfMemoryError("no memory")
        assert same(state(module), before)
    moved: list[Any] = []
    real = torch.Tensor.to

    def full(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        moved.append(self)
        if len(moved) > 3:
            raise torch.OutOfMemoryError("no memory")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "to", full)
    with pytest.raises(torch.OutOfMemoryError), ready(module, "meta"):
        pass
    assert same(state(module), before)


def test_copies_are_made_once_in_a_block_and_apart_in_each_thread() -> None:
    module = network()
    with keeping_copies():
        with ready(module, "meta") as first, ready(module, "meta") as second:
            assert first is second
        found: list[nn.Module] = []

        def work() -> None:
            with ready(module, "meta") as lent:
                found.append(lent)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert found[0] is not first
    with ready(module, "meta") as later:
        assert later is not first


class Failing(nn.Module):
    """Runs out of memory at the second call."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls > 1:
            raise torch.OutOfMemoryError("no memory")
        return x.flatten(1) * self.weight


def test_an_encoder_that_runs_out_of_memory_leaves_its_module_alone() -> None:
    module = Failing()
    before = state(module)
    encoder = ModuleEncoder(module, sw.models.EncoderSpec("failing", "image", 12))
    tiles = np.zeros((3, 3, 2, 2), np.uint8)
    with sw.settings.override(batch_size=1), pytest.raises(torch.OutOfMemoryError):
        encoder.encode(tiles, mpp=0.5)
    assert same(state(module), before)


def test_a_model_stays_where_it_is(model: Any) -> None:
    one = copy.deepcopy(model)
    before = state(one)
    features = np.zeros((3, one.config.modality("image").feature_dim), np.float32)
    # tensors of the device "meta" hold no values, so the call fails after the modules were copied
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(sw.settings), "resolve_device", lambda *_: "meta")
        with pytest.raises(NotImplementedError, match="meta tensor"):
            one.project("image", features, positions=np.zeros((3, 2)))
    assert same(state(one), before)
    with pytest.raises(ValueError, match="is not available"):
        one.project("image", features, positions=np.zeros((3, 2)), device="meta")
    assert same(state(one), before)


@pytest.mark.parametrize("device", ["gpu", "", "cuda:99", "cpu:x", "meta", 7])
def test_a_device_that_is_not_there_is_refused(device: Any) -> None:
    with pytest.raises(ValueError, match=r"^device=.* This machine has cpu"):
        sw.settings.resolve_device(device)
    with sw.settings.override(device=device), pytest.raises(ValueError, match=r"^settings\.device="):
        sw.settings.resolve_device()
