"""Digests of encoders that no registered name stands for: two that give other features have other digests."""

from __future__ import annotations

import copyreg
import dis
import functools
import hashlib
import io
import logging
import re
import threading
import types
import uuid
import weakref
import zipfile
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._messages import shortened
from spatialwhisperer.encoders._introspection import (
    as_written,
    attributes,
    codes,
    empty,
    holds_more,
    in_library,
    is_library,
    is_own,
    is_plain,
    pickles_itself,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import torch

_BY_NAME = (
    types.BuiltinFunctionType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    types.MethodDescriptorType,
    types.MethodWrapperType,
    types.WrapperDescriptorType,
)
"""What is compiled, and has no content but what it is bound to."""

_NO_CONTENT = (logging.Logger, logging.LoggerAdapter, type(threading.Lock()), type(threading.RLock()))
"""What computes nothing."""

_UNREAD = "unread"
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_MANGLED = re.compile(rb"[./]___torch_mangle_\d+")
_BESIDE = re.compile(r"\.debug_pkl$|/\.data/|/traced_inputs")


def module_digest(module: torch.nn.Module, facts: Mapping[str, Any] | None = None) -> str:
    """SHA-256 over what the output of a module depends on: parameters, buffers, attributes and code.

    Parameters
    ----------
    module
        The module. Whether it is in training mode does not matter.
    facts
        Further values that the output depends on.

    Returns
    -------
    The digest; for a module that cannot be read completely one that no other call returns, and of which `unread_part` says why.
    """
    return _digest(dict(facts or {}), module)


def object_digest(thing: object) -> str:
    """SHA-256 over the class, the code and the attributes of an encoder that is an object of the caller's, as `module_digest` returns it."""
    return _digest(thing)


def unread_part(digest: str | None) -> str:
    """What could not be read where a digest is that of something that cannot be recognised; empty for other digests.

    It continues a sentence about the encoder: "its attribute log (of type TextIOWrapper)".
    """
    kind, _, rest = (digest or "").partition(" ")
    return rest.partition(" ")[2] if kind == _UNREAD else ""


def _digest(*values: Any) -> str:
    digest = _Digest()
    try:
        for value in values:
            digest.add(value)
    # what a class of the caller's does when it is looked at is not known, and an encoder may be nested deeply
    except Exception as error:  # noqa: BLE001
        return f"{_UNREAD} {uuid.uuid4().hex} {_unread(digest.path, error)}"
    return digest.hex()


def _unread(path: Sequence[str], error: Exception) -> str:
    """The part that could not be read and why, in words that are the same in another process."""
    if isinstance(error, _UnreadError):
        why = f"of type {error}"
    elif isinstance(error, RecursionError):
        # its own words depend on the depth at which the digest was asked for
        why = "nested too deeply"
    else:
        said = _ADDRESS.sub("", str(error)).strip().splitlines()[:1]
        why = shortened(": ".join([type(error).__name__, *said]), 120)
    names = [*path[:6], "…"] if len(path) > 6 else path
    return f"its attribute {'.'.join(names)} ({why})" if path else f"it ({why})"


class _UnreadError(Exception):
    """The content of a value cannot be read; the text names its type."""


class _Digest:
    """SHA-256 over values of many kinds.

    Functions, classes and objects are read once. Where they occur again their number is added, because they may hold themselves. An
    address in memory is never added: it differs between processes.

    Attributes
    ----------
    path
        Names that lead to what is being added.
    """

    def __init__(self, within: _Digest | None = None) -> None:
        self._sha = hashlib.sha256()
        self.path: list[str] = [] if within is None else within.path
        # each with the value, so that its address stays its own
        self._seen: dict[int, tuple[int, Any]] = {} if within is None else dict(within._seen)
        self._tensors: dict[int, tuple[bytes, Any]] = {}
        # containers that are being added
        self._open: dict[int, int] = {} if within is None else dict(within._open)

    def hex(self) -> str:
        return self._sha.hexdigest()

    def add(self, value: Any) -> None:
        import torch

        value = as_written(value)
        if value is None or isinstance(value, bool | int | float | complex | str | bytes | np.generic):
            self._bytes(type(value).__name__, repr(value).encode("utf-8", "surrogatepass"))
        elif isinstance(value, torch.Tensor):
            self._tensor(value)
        elif type(value) in (np.ndarray, np.memmap) and not value.dtype.hasobject:
            self._bytes(f"{value.dtype} {value.shape}", np.ascontiguousarray(value).tobytes())
        elif isinstance(value, ModuleType):
            self._bytes("name", value.__name__.encode())
        elif isinstance(value, _BY_NAME):
            self._bytes("name", f"{getattr(value, '__module__', '')}.{value.__qualname__}".encode())
            owner = getattr(value, "__self__", None)
            if not isinstance(owner, ModuleType | type | None):
                self.add(owner)
        elif isinstance(value, _NO_CONTENT):
            self._bytes("no content")
        elif isinstance(value, MethodType):
            self._bytes("method")
            self.add(value.__func__)
            self.add(value.__self__)
        elif type(value) in (dict, list, tuple, set, frozenset, np.ndarray):
            self._container(value)
        elif id(value) in self._seen:
            self._bytes("again", str(self._seen[id(value)][0]).encode())
        else:
            self._seen[id(value)] = len(self._seen), value
            self._compound(value)

    def _container(self, value: Any) -> None:
        if id(value) in self._open:
            self._bytes("itself", str(self._open[id(value)]).encode())
            return
        self._open[id(value)] = len(self._open)
        self._bytes(type(value).__name__)
        if isinstance(value, dict):
            self._named(value.items())
        elif isinstance(value, set | frozenset):
            # another process would list them in another order
            self._all(sorted(value, key=repr) if all(map(is_plain, value)) else sorted(map(self._alone, value)))
        elif isinstance(value, np.ndarray):
            self._all([value.shape, *value.ravel().tolist()])
        else:
            self._all(value)
        del self._open[id(value)]

    def _alone(self, value: Any) -> str:
        """Digest of an element of a set, whatever its place there."""
        digest = _Digest(self)
        digest.add(value)
        return digest.hex()

    def _compound(self, value: Any) -> None:
        """Add what may hold other values, and itself."""
        import torch

        if isinstance(value, type):
            self._class(value, of_values=False)
        elif isinstance(value, FunctionType):
            self._function(value)
        elif isinstance(value, torch.jit.ScriptModule | torch.jit.ScriptFunction):
            self._scripted(value)
        elif isinstance(value, torch.fx.Graph):
            self._bytes("graph", value.python_code("self").src.encode())
        elif isinstance(value, torch.nn.Module):
            self._module(value)
        elif isinstance(value, weakref.ReferenceType):
            self._bytes("reference")
            self.add(value())
        elif isinstance(value, types.MappingProxyType):
            self._container(dict(value))
        elif type(value) is functools.partial:
            self._bytes("partial")
            self._all([value.func, value.args, value.keywords])
        else:
            self._object(value)

    def _module(self, module: torch.nn.Module) -> None:
        import torch

        machinery = {*vars(torch.nn.Module()), "_compiled_call_impl"}
        self._class(type(module))
        self._bytes(module.extra_repr())
        self._named(item for item in vars(module).items() if item[0] not in machinery)
        self._all([*module._forward_pre_hooks.values(), *module._forward_hooks.values()])
        for own in (module._parameters, module._buffers, module._modules):
            self._named(own.items())

    def _scripted(self, value: Any) -> None:
        """Add a compiled module: its values lie in C++, and what torch would write to a file holds all of them."""
        with zipfile.ZipFile(io.BytesIO(value.save_to_buffer())) as held:
            # neither lines of source code nor inputs of the tracing, and without the number of modules that were compiled before
            names = [name for name in held.namelist() if not _BESIDE.search(name)]
            parts = [(_MANGLED.sub(b"", name.encode()), _MANGLED.sub(b"", held.read(name))) for name in names]
        for name, content in sorted(parts):
            self._bytes(name.decode(), content)

    def _object(self, value: Any) -> None:
        """Add the attributes of an object, and what it holds in C, as it would be pickled."""
        kind = type(value)
        own = is_own(kind.__module__)
        self._class(kind)
        if holds_more(kind) or (pickles_itself(kind) and not own):
            self._pickled(value)
            if not own:
                # attributes of a library may be caches
                return
        self._named(sorted(attributes(value)))

    def _pickled(self, value: Any) -> None:
        kind = type(value)
        reduce = copyreg.dispatch_table.get(kind)
        try:
            found: Any = reduce(value) if reduce is not None else value.__reduce_ex__(4)
        except Exception as error:
            raise _UnreadError(kind.__qualname__) from error
        if isinstance(found, str):
            # a name says nothing of what is the caller's own; variables for types compute nothing
            if kind.__module__ != "typing" and not in_library(value, found):
                raise _UnreadError(kind.__qualname__)
            self._bytes("name", found.encode())
            return
        make, arguments, state, items, pairs = (*found, None, None, None)[:5]
        self._all([make, arguments, state, list(items or ()), list(pairs or ())])

    def _class(self, kind: type, *, of_values: bool = True) -> None:
        """Add functions and constants of a class and of the classes it derives from, those of the libraries left out.

        Parameters
        ----------
        of_values
            Whether it is the class of a value. A class that code refers to is only looked into where it is the caller's own.
        """
        self._bytes("class", f"{kind.__module__}.{kind.__qualname__}".encode())
        for one in kind.__mro__:
            if is_library(one.__module__) or not (of_values or is_own(one.__module__)):
                continue
            for name, value in sorted(vars(one).items()):
                function = as_written(value.fget if isinstance(value, property) else value)
                if isinstance(function, FunctionType) or not name.startswith(("__", "_abc_")):
                    self._named([(name, function)])

    def _function(self, function: FunctionType) -> None:
        self._code(function.__code__)
        self._all([function.__defaults__, function.__kwdefaults__])
        self._all([c.cell_contents for c in function.__closure__ or () if not empty(c)])
        self._named(sorted(vars(function).items()))
        if is_own(function.__globals__.get("__name__")):
            within = list(codes(function.__code__))
            read = {i.argval for code in within for i in dis.get_instructions(code) if i.opname in _GLOBAL}
            names = sorted({name for code in within for name in code.co_names})
            self._referred(function.__globals__, sorted(read), names)

    def _referred(self, scope: Mapping[str, Any], read: Iterable[str], names: Iterable[str]) -> None:
        """Add the values of global variables, and those that code reads from a module of the caller's."""
        for name in read:
            value = scope.get(name)
            if isinstance(value, ModuleType) and is_own(value.__name__) and id(value) not in self._open:
                self._open[id(value)] = len(self._open)
                self._bytes(name)
                self._referred(vars(value), names, names)
                del self._open[id(value)]
            elif name in scope:
                self._named([(name, value)])

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

        if id(value) not in self._tensors:
            array = value.detach().cpu().contiguous()
            content = array.flatten().view(torch.uint8).numpy() if array.numel() else b""
            self._tensors[id(value)] = hashlib.sha256(content).digest(), value
        self._bytes(f"{value.dtype} {tuple(value.shape)}", self._tensors[id(value)][0])

    def _named(self, items: Iterable[tuple[Any, Any]]) -> None:
        for name, value in items:
            if is_plain(name):
                self._bytes(repr(name))
            else:
                self.add(name)
            self.path.append(str(name) if isinstance(name, str) else type(name).__name__)
            self.add(value)
            # not where it fails: the path says where that was
            self.path.pop()

    def _all(self, values: Iterable[Any]) -> None:
        for value in values:
            self.add(value)
        self._bytes("end")

    def _bytes(self, kind: str, content: bytes = b"") -> None:
        # lengths keep neighbours apart
        for part in (kind.encode("utf-8", "surrogatepass"), content):
            self._sha.update(len(part).to_bytes(8, "little"))
            self._sha.update(part)


_GLOBAL = ("LOAD_GLOBAL", "LOAD_NAME")
