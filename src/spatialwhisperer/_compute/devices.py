"""Computing on a device with modules that belong to somebody else: a module is copied there and never moved."""

from __future__ import annotations

import copy
import os
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

M = TypeVar("M", bound="torch.nn.Module")

# each thread has its own copies, so that two threads can use two devices
_KEPT: ContextVar[dict[tuple[int, str], tuple[torch.nn.Module, torch.nn.Module]] | None] = ContextVar(
    "kept", default=None
)


@contextmanager
def keeping_copies() -> Iterator[None]:
    """Make at most one copy of each module and device inside the block, for calls that compute batch by batch."""
    if _KEPT.get() is not None:
        yield
        return
    token = _KEPT.set({})
    try:
        yield
    finally:
        _KEPT.reset(token)


@contextmanager
def ready(module: M, device: str) -> Iterator[M]:
    """Lend a module that is in evaluation mode and on a device.

    The module itself stays where it is, also after an error (no memory on the device): on another device a copy is lent. On its own
    device the module itself is lent, and the mode of each of its parts is restored.

    Parameters
    ----------
    module
        The module.
    device
        Torch device.
    """
    lent = _there(module, device)
    training = [part for part in lent.modules() if part.training]
    if training:
        lent.eval()
    try:
        yield lent
    finally:
        for part in training:
            part.training = True


def devices_of(name: str) -> list[torch.device]:
    """Devices that a name stands for: all visible GPUs for "cuda", and for any other name that one.

    A process of several, each of which has a GPU of its own, takes the current one for "cuda".

    Parameters
    ----------
    name
        Name of a torch device.
    """
    import torch

    device = torch.device(name)
    if device.type != "cuda" or device.index is not None or "LOCAL_RANK" in os.environ:
        return [torch.empty(0, device=device).device]
    return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]


def _there(module: M, device: str) -> M:
    import torch

    where = torch.empty(0, device=device).device
    if all(tensor.device == where for tensor in _tensors(module)):
        return module
    kept = _KEPT.get()
    if kept is None:
        return _copied(module, where)
    key = (id(module), str(where))
    if key not in kept:
        # the module is kept too, so that no other one can get its id
        kept[key] = (module, _copied(module, where))
    return kept[key][1]  # type: ignore[return-value]


def _copied(module: M, where: torch.device) -> M:
    """A copy on a device. The weights are copied there once, and not first where they are."""
    from torch import nn

    memo: dict[int, object] = {}
    for tensor in _tensors(module):
        moved = tensor.detach().to(where)
        memo[id(tensor)] = nn.Parameter(moved, requires_grad=False) if isinstance(tensor, nn.Parameter) else moved
    return copy.deepcopy(module, memo)


def _tensors(module: torch.nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]
