"""Weights of image networks as local files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.version import Version

from spatialwhisperer._messages import listing

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import torch

# older ones run code of a checkpoint even where they are told to read weights alone
_SAFE_TORCH = Version("2.6")
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
    if os.path.isdir(path):
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
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There are no weights at {path}.")
    if path.suffix != ".safetensors":
        raise ValueError(f"weights must be a .safetensors file, not {path.name}.")
    return path


_CONVERT = "Convert a file that you trust once: safetensors.torch.save_file(torch.load(file, weights_only=True), 'model.safetensors')."


def read_state(file: Path) -> dict[str, torch.Tensor]:
    """Read tensors by name from safetensors, or from a checkpoint of torch of which nothing but tensors and plain values is read.

    Raises
    ------
    ValueError
        If the file is cut off, or holds something else.
    """
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(file)
        except SafetensorError as error:
            raise ValueError(f"{file} is not a whole safetensors file ({error}); delete it, and load again.") from error
    return _tensors_alone(file)


def load_weights(network: torch.nn.Module, file: Path) -> None:
    """Load the weights in a file into a network; a classifier in it is ignored.

    Raises
    ------
    ValueError
        If anything else does not fit exactly.
    """
    state, own = read_state(file), network.state_dict()
    problem = misfit(state, own)
    if problem:
        raise refusal(file, problem)
    network.load_state_dict({k: state[k] for k in own})


def misfit(
    state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], ignored: Collection[str] = _CLASSIFIERS
) -> str:
    """Say what of the weights does not fit those of a network, but for names that are ignored; empty where all do."""
    missing = sorted(own.keys() - state.keys())
    extra = sorted(state.keys() - own.keys() - set(ignored))
    other = sorted(k for k in own.keys() & state.keys() if own[k].shape != state[k].shape)
    if not (missing or extra or other):
        return ""
    return f"Missing: {listing(missing, 4)}. Not in the network: {listing(extra, 4)}. Of another shape: {listing(other, 4)}."


def refusal(file: Path, problem: str) -> ValueError:
    """Error about weights that do not fit."""
    return ValueError(f"{file.name} does not fit the network. {problem}")


def load_in_order(network: torch.nn.Module, file: Path) -> None:
    """Load weights whose names are those of another library, and whose order is that of the network.

    Raises
    ------
    ValueError
        If their number or a shape differs.
    """
    state, own = list(read_state(file).items()), network.state_dict()
    if [value.shape for _, value in state] != [value.shape for value in own.values()]:
        raise ValueError(
            f"{file.name} holds {len(state)} tensors that are not, in order, the {len(own)} of the network."
        )
    network.load_state_dict({name: value for name, (_, value) in zip(own, state, strict=True)})


def _tensors_alone(file: Path) -> dict[str, torch.Tensor]:
    import torch

    if Version(Version(torch.__version__).base_version) < _SAFE_TORCH:
        raise ValueError(
            f"{file.name} is a checkpoint of torch, which torch {torch.__version__} does not read safely. "
            f"Install torch {_SAFE_TORCH} or newer."
        )
    try:
        held = torch.load(file, map_location="cpu", weights_only=True)
    # whatever stands in a broken file decides which error the unpickler ends with
    except Exception as error:
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"{file} is cut off, or holds more than tensors, and is not opened ({why}). Download it again, or convert it where you "
            "trust it: safetensors.torch.save_file(tensors, 'model.safetensors')."
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(held, dict) and isinstance(held.get(key), dict):
            held = held[key]
    if not isinstance(held, dict) or not all(isinstance(value, torch.Tensor) for value in held.values()):
        raise ValueError(f"{file} does not hold tensors by name.")
    # a network that was trained on several devices
    return {name.removeprefix("module."): value for name, value in held.items()}
