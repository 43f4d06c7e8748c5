"""Shapes are compared with stored weights before a network has memory."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

from spatialwhisperer._storage.sketches import compare_shapes, without_memory
from spatialwhisperer._storage.untrusted import networks_within


def test_shapes_are_compared_before_anything_has_memory() -> None:
    state = torch.get_rng_state()
    stored: Any = {"weight": (2, 3), "bias": (2,)}
    compare_shapes(lambda: torch.nn.Linear(3, 2), stored, "it", networks_within(8, 2, "it"))
    for make in (lambda: torch.nn.Linear(2, 3), lambda: torch.nn.Linear(3, 2, bias=False)):
        with pytest.raises(ValueError, match="The weights of it do not fit its configuration: check bias"):
            compare_shapes(make, stored, "it", networks_within(8, 2, "it"))
    # four terabytes: its shapes are compared where the limit allows them
    with pytest.raises(ValueError, match="check bias, weight"):
        compare_shapes(lambda: torch.nn.Linear(10**6, 10**6), stored, "it", networks_within(10**13, 2, "it"))
    with pytest.raises(ValueError, match="asks for larger networks than its"):
        compare_shapes(lambda: torch.nn.Linear(10**6, 10**6), stored, "it", networks_within(8, 2, "it"))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_network_that_reads_its_values_is_not_compared_beforehand() -> None:
    def make() -> torch.nn.Module:
        return torch.nn.Linear(3, int(torch.tensor(2.0).item()))

    compare_shapes(make, {"other": (1,)}, "it", networks_within(8, 2, "it"))
    compare_shapes(lambda: None, {"other": (1,)}, "it", networks_within(8, 2, "it"))
    with pytest.raises(ValueError, match=r"The architecture of it cannot be opened \(KeyError"):
        compare_shapes(lambda: dict[str, torch.nn.Module]()["x"], {}, "it", networks_within(8, 2, "it"))


def test_initial_values_are_not_computed() -> None:
    """torch imports a compiler where it fills a tensor of the meta device."""
    before, state = set(sys.modules), torch.get_rng_state()
    with without_memory():
        embedding, linear = torch.nn.Embedding(10**6, 10**6, padding_idx=0), torch.nn.Linear(3, 4)
        drawn = torch.nn.init.trunc_normal_(torch.empty(3, 3)), torch.randn(1, 3), torch.empty(2).data.normal_()
    assert embedding.weight.is_meta
    assert linear.weight.shape == (4, 3)
    assert [tuple(x.shape) for x in drawn] == [(3, 3), (1, 3), (2,)]
    assert not any(name.startswith(("torch._decomp", "torch._prims")) for name in set(sys.modules) - before)
    assert torch.equal(torch.get_rng_state(), state)
