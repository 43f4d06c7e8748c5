"""Which numbers a network computes in: float32, or bfloat16 where the device multiplies it faster."""

from __future__ import annotations

from contextlib import nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

from spatialwhisperer._settings import settings

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import torch

# instructions of processors that multiply bfloat16, as LLVM names them
_BFLOAT16 = ("amx-bf16", "avx512bf16")


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether networks of libraries compute in bfloat16 on a device: on CUDA, and on processors with instructions for it.

    ``settings.precision`` "float32" turns it off.
    """
    if settings.precision == "float32":
        return False
    return device.type == "cuda" or device.type == "cpu" and processor_has_bfloat16()


def precision(device: torch.device) -> AbstractContextManager[Any]:
    """A block in which a network multiplies matrices in bfloat16, where that is faster on the device."""
    import torch

    if not computes_in_bfloat16(device):
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


@cache
def processor_has_bfloat16() -> bool:
    """Whether the processor has instructions that multiply bfloat16 faster than float32."""
    from llvmlite.binding import get_host_cpu_features

    try:
        features = get_host_cpu_features()
    except RuntimeError:  # LLVM cannot tell on some systems
        return False
    return any(features.get(name, False) for name in _BFLOAT16)
