"""Weights of image networks as local files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from spatialwhisperer._messages import listing

if TYPE_CHECKING:
    import torch

_PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
_CLASSIFIERS = {f"{name}.{part}" for name in ("head", "fc", "classifier", "head.fc") for part in ("weight", "bias")}


def weight_file(weights: str | Path) -> Path:
    """Find the safetensors file that `weights` names.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is of another format, or a folder does not hold exactly one.
    """
    path = Path(weights).expanduser()
    if path.is_dir():
        files = sorted(path.glob("*.safetensors"))
        if len(files) == 1:
            return files[0]
        pickles = [f.name for f in path.iterdir() if f.suffix in _PICKLES]
        there = listing(f.name for f in files) if files else f"no .safetensors file, but {listing(pickles)}"
        raise ValueError(
            f"{path} must hold exactly one .safetensors file; it has {there}. {_CONVERT if not files else ''}"
        )
    if path.suffix in _PICKLES:
        raise ValueError(f"{path.name} is a pickle, and opening one runs whatever code it holds. {_CONVERT}")
    if not path.is_file():
        raise FileNotFoundError(f"There are no weights at {path}.")
    if path.suffix != ".safetensors":
        raise ValueError(f"weights must be a .safetensors file, not {path.name}.")
    return path


_CONVERT = "Convert a file that you trust once: safetensors.torch.save_file(torch.load(file, weights_only=True), 'model.safetensors')."


def load_weights(network: torch.nn.Module, file: Path) -> None:
    """Load a safetensors file into a network; a classifier in it is ignored.

    Raises
    ------
    ValueError
        If anything else does not fit exactly.
    """
    from safetensors.torch import load_file

    state = load_file(file)
    own = network.state_dict()
    missing = sorted(own.keys() - state.keys())
    extra = sorted(state.keys() - own.keys() - _CLASSIFIERS)
    misfit = sorted(k for k in own.keys() & state.keys() if own[k].shape != state[k].shape)
    if missing or extra or misfit:
        raise ValueError(
            f"{file.name} does not fit the network. Missing: {listing(missing, 4)}. Not in the network: {listing(extra, 4)}. "
            f"Of another shape: {listing(misfit, 4)}."
        )
    network.load_state_dict({k: state[k] for k in own})
