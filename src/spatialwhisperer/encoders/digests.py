"""Digests of encoders that no registered name stands for: two that give other features have other digests."""

from __future__ import annotations

import dataclasses
import hashlib
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import torch

_LIBRARIES = {"abc", "builtins", "spatialwhisperer", "timm", "torch", "torchvision", "transformers"}
"""Packages whose code is not looked at: it is not edited in a notebook, and a new version of it is not a new encoder."""


def module_digest(module: torch.nn.Module, facts: Mapping[str, Any] | None = None) -> str:
    """SHA-256 over what the output of a module depends on: parameters, buffers, attributes and code.

    Parameters
    ----------
    module
        The module. Whether it is in training mode does not matter.
    facts
        Further values that the output depends on.
    """
    digest = _Digest()
    digest.add(dict(facts or {}))
    digest.add(module)
    return digest.hex()


def object_digest(thing: object) -> str:
    """SHA-256 over the class, the code and the attributes of an encoder that is an object of the caller's."""
    digest = _Digest()
    digest.add(thing)
    return digest.hex()


class _Digest:
    """SHA-256 over values of many kinds; a value whose content cannot be read counts by its type alone."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()
        # whatever is being added, because an object may hold itself
        self._open: set[int] = set()

    def hex(self) -> str:
        return self._sha.hexdigest()

    def add(self, value: Any) -> None:
        import torch

        if value is None or isinstance(value, bool | int | float | complex | str | bytes | np.generic):
            self._bytes(type(value).__name__, repr(value).encode())
        elif isinstance(value, torch.Tensor):
            self._tensor(value)
        elif isinstance(value, np.ndarray) and value.dtype != object:
            self._bytes(f"{value.dtype} {value.shape}", np.ascontiguousarray(value).tobytes())
        elif isinstance(value, type | ModuleType):
            self._bytes("name", getattr(value, "__qualname__", value.__name__).encode())
        elif id(value) in self._open:
            self._bytes("itself")
        else:
            self._open.add(id(value))
            self._compound(value)
            self._open.remove(id(value))

    def _compound(self, value: Any) -> None:
        """Add what may hold other values, and itself."""
        import torch

        self._bytes(f"{type(value).__module__}.{type(value).__qualname__}")
        if isinstance(value, dict):
            self._named(value.items())
        elif isinstance(value, list | tuple | np.ndarray):
            self._all(value)
        elif isinstance(value, set | frozenset):
            # another process would list them in another order
            self._all(sorted(value, key=repr))
        elif isinstance(value, FunctionType):
            self._code(value.__code__)
            self._all([value.__defaults__, value.__kwdefaults__])
            self._all([c.cell_contents for c in value.__closure__ or () if not _empty(c)])
        elif isinstance(value, torch.nn.Module):
            self._module(value)
        elif dataclasses.is_dataclass(value) or hasattr(value, "__dict__"):
            self._methods(type(value))
            self._named(sorted(vars(value).items()) if hasattr(value, "__dict__") else [])

    def _module(self, module: torch.nn.Module) -> None:
        import torch

        machinery = vars(torch.nn.Module())
        self._bytes(module.extra_repr())
        self._methods(type(module))
        self._named(item for item in vars(module).items() if item[0] not in machinery)
        self._all([*module._forward_pre_hooks.values(), *module._forward_hooks.values()])
        for own in (module._parameters, module._buffers, module._modules):
            self._named(own.items())

    def _methods(self, kind: type) -> None:
        """Add functions and constants of a class and of the classes it derives from, those of the libraries left out."""
        for one in kind.__mro__:
            if one.__module__.partition(".")[0] in _LIBRARIES:
                continue
            for name, value in vars(one).items():
                function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
                if isinstance(function, FunctionType) or not name.startswith(("__", "_abc_")):
                    self._named([(name, function)])

    def _code(self, code: CodeType) -> None:
        """Add byte code with the names and values it refers to; where it stands in a file does not matter."""
        self._bytes("code", code.co_code)
        self._all([code.co_names, code.co_varnames, code.co_freevars])
        for value in code.co_consts:
            if isinstance(value, CodeType):
                self._code(value)
            else:
                self.add(value)

    def _tensor(self, value: torch.Tensor) -> None:
        import torch

        array = value.detach().cpu().contiguous()
        content = array.flatten().view(torch.uint8).numpy().tobytes() if array.numel() else b""
        self._bytes(f"{array.dtype} {tuple(array.shape)}", content)

    def _named(self, items: Iterable[tuple[Any, Any]]) -> None:
        for name, value in items:
            self._bytes(repr(name))
            self.add(value)

    def _all(self, values: Iterable[Any]) -> None:
        for value in values:
            self.add(value)
        self._bytes("end")

    def _bytes(self, kind: str, content: bytes = b"") -> None:
        # lengths keep neighbours apart
        for part in (kind.encode(), content):
            self._sha.update(len(part).to_bytes(8, "little"))
            self._sha.update(part)


def _empty(cell: Any) -> bool:
    """Whether a variable of a closure has no value yet."""
    try:
        _ = cell.cell_contents
    except ValueError:
        return True
    return False
