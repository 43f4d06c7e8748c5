"""Tensors of a file that `torch.save` wrote, read without torch and without unpickling."""

from __future__ import annotations

import math
import os
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._messages import listing
from spatialwhisperer._storage.numpy_pickles import ARRAYS, NUMBERS
from spatialwhisperer._storage.pickles import LARGEST_PICKLE, Named, read_pickle

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path
    from types import TracebackType

_KINDS = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}
# the last two are int and str in the second version of the format
_FACTORIES = ("bool", "dict", "float", "int", "list", "str", "tuple", "long", "unicode")
# number that torch.save wrote first before torch 1.6
_OLD_FORMAT = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_REMEDY = "Copy or download the file again."


@dataclass(frozen=True)
class Storage:
    """A run of numbers in the file, of which a tensor is a view."""

    kind: str
    entry: str
    size: int


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that has not been read yet: where its numbers lie."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class TorchFile:
    """A file that `torch.save` wrote: its values at once, its tensors when they are asked for.

    Parameters
    ----------
    path
        The file.
    packages
        Packages whose classes become stand-ins without behaviour; the names of all others are refused.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is cut off, of another format, or asks for code.
    """

    def __init__(self, path: Path, packages: Collection[str] = ()) -> None:
        if not os.path.isfile(path):
            raise FileNotFoundError(f"There is no file {path}.")
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            if _OLD_FORMAT in _head(path):
                raise ValueError(
                    f"{path} is in the old format of torch.save (before torch 1.6), which is not read. If you trust whoever wrote it, "
                    "open it with torch.load and save it again with torch.save, which writes the new format."
                ) from error
            raise ValueError(
                f"{path} is cut off, or not a file that torch.save of torch 1.6 or later wrote ({error}). {_REMEDY}"
            ) from error
        try:
            self._root = self._find_root()
            self.values = self._read_values(packages)
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> TorchFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()

    def array(self, tensor: StoredTensor) -> np.ndarray:
        """Read a tensor; bfloat16 becomes float32, which holds it exactly.

        Raises
        ------
        ValueError
            If its numbers are not there, or it reaches beyond them.
        """
        storage = tensor.storage
        size = _item_size(storage.kind)
        content = self._entry(f"data/{storage.entry}", storage.size * size)
        kind = np.dtype("<u2" if storage.kind == "bfloat16" else storage.kind)
        strides = tuple(step * size for step in tensor.strides)
        try:
            # NumPy compares shape and strides with the size of the buffer
            view = np.ndarray(tensor.shape, kind, content, tensor.offset * size, strides)
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"A tensor of {self.path} reaches beyond its numbers ({error}). {_REMEDY}") from error
        array = np.array(view, order="C")
        return (array.astype(np.uint32) << 16).view(np.float32) if storage.kind == "bfloat16" else array

    # --------------------------------------------------------------------------------------------- the archive

    def _find_root(self) -> str:
        found = [n.removesuffix("data.pkl") for n in self._zip.namelist() if n.endswith("data.pkl")]
        if len(found) != 1:
            inside = listing(self._zip.namelist(), 4)
            raise ValueError(f"{self.path} is an archive, but not one that torch.save wrote (it holds {inside}).")
        order = f"{found[0]}byteorder"
        if order in self._zip.namelist() and self._zip.read(order) != b"little":
            raise ValueError(f"{self.path} was written on a machine of another byte order, and is not read.")
        return found[0]

    def _entry(self, name: str, size: int | None = None, largest: int | None = None) -> bytes:
        """Content of an entry. It is stored as it is, so that a small file cannot become a large one."""
        try:
            info = self._zip.getinfo(self._root + name)
        except KeyError:
            raise ValueError(f"{self.path} lacks the numbers of a tensor ({name}). {_REMEDY}") from None
        stored = info.compress_type == zipfile.ZIP_STORED and info.file_size == info.compress_size
        if not stored or info.file_size > self.path.stat().st_size or info.flag_bits & 1:
            raise ValueError(f"{self.path} holds a packed entry ({name}), which torch.save does not write.")
        if size is not None and info.file_size != size:
            raise ValueError(
                f"{self.path} states {size} bytes for a tensor ({name}) and holds {info.file_size}. {_REMEDY}"
            )
        if largest is not None and info.file_size > largest:
            raise ValueError(
                f"{self.path} holds {info.file_size} bytes of pickled values, and at most {largest} are read."
            )
        try:
            return self._zip.read(info)
        except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
            raise ValueError(f"{self.path} is cut off or changed ({error}). {_REMEDY}") from error

    def _read_values(self, packages: Collection[str]) -> Any:
        content = self._entry("data.pkl", largest=LARGEST_PICKLE)
        calls: dict[str, Callable[..., Any]] = {
            "torch._utils._rebuild_tensor_v2": _tensor,
            "torch._utils._rebuild_parameter": _parameter,
            "collections.OrderedDict": _dictionary,
            "collections.defaultdict": _with_default,
            # so are sets written in the second version of the format
            **dict.fromkeys(("__builtin__.set", "builtins.set"), list),
            # what makes the values of a defaultdict, which is never called
            **{f"{module}.{kind}": _not_called for module in ("__builtin__", "builtins") for kind in _FACTORIES},
            **NUMBERS,
            **ARRAYS,
            **{f"torch.{kind}": _refused for kind in _KINDS},
        }
        return read_pickle(content, str(self.path), calls=calls, packages=packages, persistent=_storage)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(32)
    except OSError:
        return b""


def _item_size(kind: str) -> int:
    return 2 if kind == "bfloat16" else np.dtype(kind).itemsize


def _storage(stated: Any) -> Storage:
    match stated:
        case ("storage", Named(module="torch", name=name), str(entry), str(), int(size)) if (
            name in _KINDS and size >= 0
        ):
            return Storage(_KINDS[name], entry, size)
    raise ValueError("the numbers of a tensor are not stated as torch.save does")


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_others: Any) -> StoredTensor:
    whole = [offset, *shape, *strides] if isinstance(shape, tuple) and isinstance(strides, tuple) else [None]
    if (
        not isinstance(storage, Storage)
        or len(shape) != len(strides)
        or not all(type(n) is int and n >= 0 for n in whole)
    ):
        raise ValueError("a tensor is not stated as torch.save does")
    # a view that repeats its numbers could be of any size
    if math.prod(shape) + offset > max(storage.size, offset):
        raise ValueError(f"a tensor of shape {shape} has more values than the {storage.size} that are stored")
    return StoredTensor(storage, offset, shape, strides)


def _parameter(tensor: Any, *_others: Any) -> Any:
    return tensor


def _dictionary(*args: Any) -> dict[Any, Any]:
    if args not in ((), ([],)):
        raise ValueError("an ordered dictionary is not stated as torch.save does")
    return {}


def _with_default(*args: Any) -> dict[Any, Any]:
    if len(args) > 1:
        raise ValueError("a defaultdict is not stated as Python does")
    return {}


def _not_called(*_args: Any) -> Any:
    raise ValueError("a type of Python is called, which plain values do not need")


def _refused(*_args: Any) -> Any:
    raise ValueError("numbers are stated in another way than torch.save does")
