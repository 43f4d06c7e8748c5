"""Arguments of Lightning's Trainer: checked before any work starts, and ours where the caller says nothing."""

from __future__ import annotations

import inspect
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import torch

from spatialwhisperer._messages import import_torch_stack, listing
from spatialwhisperer.settings import settings

if TYPE_CHECKING:
    from collections.abc import Mapping

_OWN = {
    "max_epochs": "sw.tl.train(…, max_epochs=…)",
    "default_root_dir": "sw.tl.train(…, folder=…)",
}
"""What a trainer could take, and `train` takes itself."""


def trainer_options(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Check the arguments of the caller and add those that the caller leaves open.

    Parameters
    ----------
    given
        Arguments of ``lightning.pytorch.Trainer`` by name.

    Raises
    ------
    TypeError
        If the Trainer has no such argument, or `train` has it itself.
    """
    given = dict(given or {})
    trainer = import_torch_stack("lightning.pytorch").Trainer
    known = [name for name in inspect.signature(trainer.__init__).parameters if name != "self"]
    for name in given:
        if name in _OWN:
            raise TypeError(f"trainer has {name!r}; pass it to {_OWN[name]} instead.")
        if name not in known:
            near = get_close_matches(name, [*known, *_OWN], n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]}?" if near else f" It has {listing(known, 60)}."
            own = f" Pass it as {_OWN[near[0]]}." if near and near[0] in _OWN else ""
            raise TypeError(f"Lightning's Trainer has no argument {name!r}.{hint}{own}")
    accelerator = given.pop("accelerator", "auto")
    if accelerator == "auto" and settings.device is not None:
        accelerator = (
            "cpu" if settings.device == "cpu" else "gpu" if settings.device.startswith("cuda") else settings.device
        )
    cuda = accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available())
    ours = {
        "accelerator": accelerator,
        "devices": 1,
        "strategy": "auto",
        "precision": "bf16-mixed" if cuda else "32-true",
        "logger": False,
        "enable_model_summary": False,
        "enable_progress_bar": False,
        "use_distributed_sampler": False,
        "num_sanity_val_steps": 0,
    }
    return ours | given
