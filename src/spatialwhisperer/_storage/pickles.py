"""Reading a pickle without unpickling it: the values that it holds, and none of the code that it asks for.

The standard unpickler imports whatever a file names and calls it. Here the instructions of the file are listed by the standard
library (`pickletools.genops` decodes them and runs none) and carried out on plain values alone. A name of a class or a function is
never looked up: it stays a name, which is either one of a few that the caller knows, or becomes a `StandIn`.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from spatialwhisperer._messages import listing

LARGEST_PICKLE = 256 * 2**20

Call = Callable[..., Any]
_SCALARS = (
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8"
).split()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple, "EMPTY_SET": list}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_NOTHING = {"PROTO", "FRAME"}


class UnsafePickle(ValueError):
    """A pickle that asks for something else than plain values."""


@dataclass(frozen=True)
class Named:
    """Name of a class or function in a pickle. It is nothing but the name."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class StandIn:
    """What stands for an object of a class that is not built: its name and the values that it was pickled with."""

    named: Named
    args: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)


class _Mark:
    """Where the values of a container begin on the stack."""


def read_pickle(
    content: bytes,
    what: str,
    *,
    calls: Mapping[str, Call] | None = None,
    packages: Collection[str] = (),
    persistent: Call | None = None,
) -> Any:
    """Read the values of a pickle. Nothing is imported, and no code of the pickle is run.

    Parameters
    ----------
    content
        The pickle.
    what
        What it is, for the message.
    calls
        Functions of this package that stand for functions which the pickle may call, by their full names.
    packages
        Packages whose classes become a `StandIn`. All other names are refused where they are called.
    persistent
        Makes the value that a persistent id stands for; ``None`` refuses them.

    Returns
    -------
    Numbers, text, bytes, lists, tuples, dictionaries, `StandIn`, and what ``calls`` and ``persistent`` return. Sets are lists.

    Raises
    ------
    UnsafePickle
        If it names a class or function that is not allowed, or holds an instruction that plain values do not need.
    ValueError
        If it is cut off, too large or no pickle.
    """
    if len(content) > LARGEST_PICKLE:
        raise ValueError(f"{what} has {len(content)} bytes of pickled values, and at most {LARGEST_PICKLE} are read.")
    machine = _Machine(what, calls or {}, frozenset(packages), persistent)
    try:
        for opcode, argument, _ in pickletools.genops(io.BytesIO(content)):
            machine.step(opcode.name, argument)
        return machine.result()
    except UnsafePickle:
        raise
    except (
        ValueError,
        IndexError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        MemoryError,
        RecursionError,
    ) as error:
        said = " ".join(str(error).split())[:200]
        raise ValueError(f"{what} is not a pickle that can be read ({type(error).__name__}: {said}).") from error


class _Machine:
    """Stack and memo of a pickle, as :mod:`pickletools` describes them, on plain values."""

    def __init__(self, what: str, calls: Mapping[str, Call], packages: frozenset[str], persistent: Call | None) -> None:
        self.what, self.calls, self.packages, self.persistent = what, calls, packages, persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.ended = False

    def step(self, name: str, argument: Any) -> None:
        """Carry out one instruction."""
        if name in _SCALARS:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            self.stack.append(tuple(self._take(_TUPLES[name])))
        elif name in _NOTHING:
            return
        else:
            act = getattr(self, f"_op_{name.lower()}", None)
            if act is None:
                raise self._unsafe(f"holds the instruction {name}, which plain values do not need")
            act(argument)

    def result(self) -> Any:
        """Return the value that is left at the end."""
        if not self.ended or len(self.stack) != 1:
            raise ValueError("it ends in the middle")
        return self._top()

    # --------------------------------------------------------------------------------------------- containers

    def _op_stop(self, _argument: Any) -> None:
        self.ended = True

    def _op_mark(self, _argument: Any) -> None:
        self.stack.append(_Mark)

    def _op_pop(self, _argument: Any) -> None:
        self.stack.pop()

    def _op_pop_mark(self, _argument: Any) -> None:
        self._since_mark()

    def _op_dup(self, _argument: Any) -> None:
        self.stack.append(self._top())

    def _op_tuple(self, _argument: Any) -> None:
        self.stack.append(tuple(self._since_mark()))

    def _op_list(self, _argument: Any) -> None:
        self.stack.append(self._since_mark())

    def _op_frozenset(self, _argument: Any) -> None:
        self.stack.append(self._since_mark())

    def _op_dict(self, _argument: Any) -> None:
        values = self._since_mark()
        self.stack.append({})
        self._set(values)

    def _op_append(self, _argument: Any) -> None:
        self._extend(self._take(1))

    def _op_appends(self, _argument: Any) -> None:
        self._extend(self._since_mark())

    def _op_additems(self, _argument: Any) -> None:
        self._extend(self._since_mark())

    def _op_setitem(self, _argument: Any) -> None:
        self._set(self._take(2))

    def _op_setitems(self, _argument: Any) -> None:
        self._set(self._since_mark())

    def _extend(self, values: list[Any]) -> None:
        held = self._top()
        if isinstance(held, StandIn):
            held.items.extend(values)
        elif type(held) is list:
            held.extend(values)
        else:
            raise TypeError("values are added to something that is no list")

    def _set(self, values: list[Any]) -> None:
        held = self._top()
        pairs = list(zip(values[::2], values[1::2], strict=True))
        if isinstance(held, StandIn):
            held.items.extend(pairs)
            return
        if type(held) is not dict:
            raise TypeError("keys are set of something that is no dictionary")
        for key, value in pairs:
            # the hash of other values is computed by recursion, as deep as the file likes
            if not isinstance(key, str | int | float | bytes | None):
                raise TypeError(f"a key is of type {type(key).__name__}")
            held[key] = value

    # --------------------------------------------------------------------------------------------- memo

    def _op_put(self, index: Any) -> None:
        self.memo[int(index)] = self._top()

    _op_binput = _op_long_binput = _op_put

    def _op_memoize(self, _argument: Any) -> None:
        self.memo[len(self.memo)] = self._top()

    def _op_get(self, index: Any) -> None:
        self.stack.append(self.memo[int(index)])

    _op_binget = _op_long_binget = _op_get

    # --------------------------------------------------------------------------------------------- names

    def _op_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._named(module, name)

    def _op_stack_global(self, _argument: Any) -> None:
        module, name = self._take(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError("a name is no text")
        self._named(module, name)

    def _named(self, module: str, name: str) -> None:
        named = Named(module, name)
        if str(named) not in self.calls and module.partition(".")[0] not in self.packages:
            raise self._unsafe(f"asks for {str(named)[:120]!r}")
        self.stack.append(named)

    def _op_reduce(self, _argument: Any) -> None:
        function, args = self._take(2)
        self.stack.append(self._called(function, args))

    _op_newobj = _op_reduce

    def _op_newobj_ex(self, _argument: Any) -> None:
        kind, args, keywords = self._take(3)
        if keywords:
            args = (*args, keywords)
        self.stack.append(self._called(kind, args))

    def _called(self, function: Any, args: Any) -> Any:
        if not isinstance(function, Named) or not isinstance(args, tuple):
            raise TypeError("something is called that is no name of a function")
        if str(function) in self.calls:
            return self.calls[str(function)](*args)
        return StandIn(function, args)

    def _op_build(self, _argument: Any) -> None:
        [state] = self._take(1)
        held = self._top()
        if isinstance(held, StandIn):
            held.state = state
        # an ordered dictionary may carry attributes, which no tensor depends on
        elif type(held) is not dict:
            raise TypeError("a state is set of something that is no object")

    def _op_binpersid(self, _argument: Any) -> None:
        if self.persistent is None:
            raise self._unsafe("refers to values outside of it")
        self.stack.append(self.persistent(*self._take(1)))

    # --------------------------------------------------------------------------------------------- stack

    def _top(self) -> Any:
        if not self.stack or self.stack[-1] is _Mark:
            raise IndexError("values are missing")
        return self.stack[-1]

    def _take(self, n: int) -> list[Any]:
        if len(self.stack) < n or any(value is _Mark for value in self.stack[-n:]):
            raise IndexError("values are missing")
        taken = self.stack[-n:]
        del self.stack[-n:]
        return taken

    def _since_mark(self) -> list[Any]:
        for i in reversed(range(len(self.stack))):
            if self.stack[i] is _Mark:
                taken = self.stack[i + 1 :]
                del self.stack[i:]
                return taken
        raise IndexError("values are missing")

    def _unsafe(self, does: str) -> UnsafePickle:
        known = listing(sorted(self.packages), 6)
        return UnsafePickle(
            f"{self.what} {does}. It was refused and nothing of it was run: only numbers, text, containers and tensors are read, and "
            f"classes of {known} become plain values. Do not open this file with anything that unpickles it, unless you trust whoever wrote it."
        )
