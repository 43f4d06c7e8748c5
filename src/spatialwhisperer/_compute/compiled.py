"""Networks that torch compiles for a device before they compute, where ``settings.compile`` asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spatialwhisperer._settings import settings

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch


def compiled_where_asked(network: torch.nn.Module, rows: int, name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """The network itself, or compiled with :func:`torch.compile` where ``settings.compile`` is on.

    A compiled network gets batches of one size, because another one is compiled again, for longer than a batch takes: smaller batches
    are filled up with zeros, whose results are dropped.

    Parameters
    ----------
    network
        Takes a batch (k, …), returns (k, d). Row i of the result depends on row i alone.
    rows
        Rows of a full batch.
    name
        What errors call it.

    Raises
    ------
    RuntimeError
        When it first computes, if it cannot be compiled.
    """
    if not settings.compile:
        return network
    import torch

    faster = torch.compile(network)

    def compute(batch: torch.Tensor) -> torch.Tensor:
        missing = max(rows - len(batch), 0)
        full = torch.cat([batch, batch.new_zeros((missing, *batch.shape[1:]))]) if missing else batch
        try:
            result: Any = faster(full)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = str(error).strip().partition("\n")[0]
            raise RuntimeError(
                f"{name} cannot be compiled: {reason} sw.settings.compile = False computes without, and a C++ compiler may be missing."
            ) from error
        # what is no tensor is found wrong by the caller
        return result[: len(batch)] if missing and isinstance(result, torch.Tensor) else result

    return compute
