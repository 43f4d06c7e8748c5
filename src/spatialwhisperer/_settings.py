"""Settings of the package: device, batch size, cache folder, offline switch, progress bars."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Iterator


Precision = Literal["auto", "float32"]
Backend = Literal["torch", "openvino"]

_CHOICES = {"precision": Precision, "backend": Backend}
_ON, _OFF = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}
_FLAGS = ("compile", "offline", "progress", "verbose")


def _flag(name: str, default: bool) -> bool:
    text = os.environ.get(name, "").strip().lower()
    if text in _ON or text in _OFF:
        return text in _ON
    if text:
        raise ValueError(
            f"The environment variable {name} must be 1 or 0 (or true, false, yes, no, on, off), not {text!r}."
        )
    return default


def _default_batch_size() -> int:
    text = os.environ.get("SPATIALWHISPERER_BATCH_SIZE", "").strip() or "256"
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(
            f"The environment variable SPATIALWHISPERER_BATCH_SIZE must be a positive whole number, not {text!r}."
        )
    return int(text)


def _chosen(name: str, kind: Any, default: str) -> Any:
    text = os.environ.get(name, "").strip() or default
    if text not in get_args(kind):
        raise ValueError(f"The environment variable {name} must be {_either(kind)}, not {text!r}.")
    return text


def _either(kind: Any) -> str:
    return " or ".join(f'"{value}"' for value in get_args(kind))


def _default_cache() -> Path:
    base = os.environ.get("SPATIALWHISPERER_CACHE_DIR", "").strip()
    if base:
        return Path(base).expanduser()
    # by its specification an empty value is none, and a relative one is ignored
    xdg = Path(os.environ.get("XDG_CACHE_HOME", "")).expanduser()
    return (xdg if xdg.is_absolute() else Path("~/.cache").expanduser()) / "spatialwhisperer"


@dataclass
class Settings:
    """Values that calls fall back to when an argument is not given.

    Each can be set by an environment variable ``SPATIALWHISPERER_<NAME>`` before the first import.

    Attributes
    ----------
    device
        Torch device; ``None`` takes CUDA where there is one, else the CPU.
    batch_size
        Tiles, cells or texts in one forward pass of an encoder.
    cache_dir
        Folder for downloads, training runs, and features of tiles that an interrupted call had finished.
    precision
        "auto" lets image encoders of libraries multiply in bfloat16 on CUDA and on processors with instructions for it, which is faster;
        "float32" never does.
    backend
        "openvino" lets OpenVINO, of the extra `openvino`, compute image encoders of libraries on a CPU, which is faster there. A network is
        converted when it first computes. "torch" never does.
    compile
        Compile image encoders that are networks with :func:`torch.compile` when they first compute. It takes a minute or more for each
        process, and a C++ compiler on a CPU. Batches are filled up to `batch_size`.
    offline
        Nothing is downloaded; an error says which file is missing and where to put it.
    progress
        Show progress bars (only where stderr is a terminal).
    verbose
        Write to stderr which choice was made where an argument was left out.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> with sw.settings.override(batch_size=64, progress=False):
    ...     sw.settings.batch_size
    64
    """

    device: str | None = field(default_factory=lambda: os.environ.get("SPATIALWHISPERER_DEVICE") or None)
    batch_size: int = field(default_factory=_default_batch_size)
    cache_dir: Path = field(default_factory=_default_cache)
    precision: Precision = field(default_factory=lambda: _chosen("SPATIALWHISPERER_PRECISION", Precision, "auto"))
    backend: Backend = field(default_factory=lambda: _chosen("SPATIALWHISPERER_BACKEND", Backend, "torch"))
    compile: bool = field(default_factory=lambda: _flag("SPATIALWHISPERER_COMPILE", False))
    offline: bool = field(default_factory=lambda: _flag("SPATIALWHISPERER_OFFLINE", False))
    progress: bool = field(default_factory=lambda: _flag("SPATIALWHISPERER_PROGRESS", True))
    verbose: bool = field(default_factory=lambda: _flag("SPATIALWHISPERER_VERBOSE", True))

    def __setattr__(self, name: str, value: Any) -> None:
        names = [f.name for f in fields(self)]
        if name not in names:
            raise AttributeError(f"settings has no {name!r}; it has {', '.join(names)}.")
        if name in _FLAGS and not isinstance(value, bool):
            raise TypeError(f"settings.{name} must be True or False, not {value!r}.")
        if name == "batch_size":
            if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
                raise ValueError(f"settings.batch_size must be a positive integer, not {value!r}.")
            value = int(value)
        for choice, kind in _CHOICES.items():
            if name == choice and value not in get_args(kind):
                raise ValueError(f"settings.{name} must be {_either(kind)}, not {value!r}.")
        if name == "cache_dir":
            if not isinstance(value, str | os.PathLike) or not os.fspath(value).strip():
                raise TypeError(f"settings.cache_dir must be a path, not {value!r}.")
            value = Path(value).expanduser()
        object.__setattr__(self, name, value)

    @contextmanager
    def override(self, **values: Any) -> Iterator[Settings]:
        """Set values inside a ``with`` block and restore them afterwards."""
        before = {name: getattr(self, name) for name in values}
        try:
            for name, value in values.items():
                setattr(self, name, value)
            yield self
        finally:
            for name, value in before.items():
                object.__setattr__(self, name, value)

    def resolve_device(self, device: str | None = None) -> str:
        """Return the torch device to use: the argument, else the setting, else CUDA where there is one, else the CPU.

        Raises
        ------
        ValueError
            If this is not the name of a device, or this machine has no such device.
        """
        source = "settings.device" if device is None else "device"
        device = self.device if device is None else device
        if device is not None:
            return _checked_device(source, device)
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"


def _checked_device(source: str, device: Any) -> str:
    name = str(device)
    if name == "cpu":
        return name
    import torch

    advice = f"This machine has {', '.join(_devices())}."
    try:
        found = torch.device(name)
    except RuntimeError:
        raise ValueError(f"{source}={device!r} is not the name of a torch device. {advice}") from None
    if found.type != "cpu" and f"{found.type}:{found.index or 0}" not in _devices():
        raise ValueError(f"{source}={device!r} is not available. {advice}")
    return name


def _devices() -> list[str]:
    import torch

    counts = {kind: getattr(torch, kind).device_count() for kind in ("cuda", "xpu") if hasattr(torch, kind)}
    counts["mps"] = int(torch.backends.mps.is_available())
    return ["cpu", *(f"{kind}:{index}" for kind, count in counts.items() for index in range(count))]


settings = Settings()
