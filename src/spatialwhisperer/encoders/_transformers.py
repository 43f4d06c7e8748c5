"""Opening models of transformers: quietly, without code of a repository, and with all of their weights."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from spatialwhisperer._messages import listing
from spatialwhisperer.encoders.hub import first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SAFE: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


@contextmanager
def quiet() -> Iterator[None]:
    """Switch off the progress bars and messages of transformers, and restore its settings afterwards."""
    from transformers.utils import logging as hf

    level, bars = hf.get_verbosity(), hf.is_progress_bar_enabled()
    try:
        hf.set_verbosity(logging.ERROR)
        hf.disable_progress_bar()
        yield
    finally:
        hf.set_verbosity(level)
        if bars:
            hf.enable_progress_bar()


def open_model(folder: Path, *, pretrained: bool = True, needs_pooler: Callable[[Any], bool] | None = None) -> Any:
    """Open the network in a folder; of a checkpoint of torch nothing but tensors is read.

    Parameters
    ----------
    folder
        Folder with ``config.json`` and the weights.
    pretrained
        Whether to read the weights; otherwise they are random.
    needs_pooler
        Whether the pooler of a network is needed; ``None`` where it is. Checkpoints often lack it, and it would be random.

    Raises
    ------
    ValueError
        If transformers cannot build the network without foreign code, or weights are missing or of another shape.
    """
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModel

    try:
        with quiet():
            if not pretrained:
                return AutoModel.from_config(AutoConfig.from_pretrained(str(folder), **SAFE), trust_remote_code=False)
            network, report = AutoModel.from_pretrained(
                str(folder), output_loading_info=True, weights_only=True, **SAFE
            )
    except (OSError, KeyError, ValueError, RuntimeError, TypeError, SafetensorError) as error:
        raise ValueError(f"{folder} is not a model that transformers can read ({first_line(error)}).") from error
    missing = sorted(report["missing_keys"])
    if needs_pooler is not None and not needs_pooler(network):
        missing = [name for name in missing if "pooler." not in name]
    if missing or report["mismatched_keys"]:
        hint = " They hold no pooler; take pooling='mean' or 'cls'." if all("pooler." in n for n in missing) else ""
        raise ValueError(
            f"The weights in {folder} do not fit the network. Missing: {listing(missing, 4)}. "
            f"Of another shape: {listing(report['mismatched_keys'], 4)}.{hint if missing else ''}"
        )
    return network
