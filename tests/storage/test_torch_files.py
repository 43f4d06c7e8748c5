"""Tensors of files of torch, read without torch."""

from __future__ import annotations

import collections
import io
import os
import pickle
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from spatialwhisperer._storage.pickles import StandIn, UnsafePickle
from spatialwhisperer._storage.torch_files import StoredTensor, TorchFile

if TYPE_CHECKING:
    from pathlib import Path

KINDS = ["float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_number_comes_back(kind: str, tmp_path: Path) -> None:
    values = (torch.arange(24).reshape(4, 6) - 7).to(getattr(torch, kind))
    torch.save({"x": values, "empty": values[:0], "one": values[1, 2]}, tmp_path / "f.pt")
    with TorchFile(tmp_path / "f.pt") as file:
        for name, expected in (("x", values), ("empty", values[:0]), ("one", values[1, 2])):
            wanted = expected.float() if kind == "bfloat16" else expected
            found = file.array(file.values[name])
            assert (found.dtype, found.shape) == (wanted.numpy().dtype, wanted.numpy().shape)
            np.testing.assert_array_equal(found, wanted.numpy())


def test_views_and_shared_numbers_come_back(tmp_path: Path) -> None:
    whole = torch.randn(6, 5, 4)
    views = {"t": whole.permute(2, 0, 1), "part": whole[1:3, ::2, 1], "same": whole, "p": torch.nn.Parameter(whole[0])}
    torch.save(views, tmp_path / "f.pt")
    with TorchFile(tmp_path / "f.pt") as file:
        assert len({tensor.storage for tensor in file.values.values()}) == 1
        for name, view in views.items():
            np.testing.assert_array_equal(file.array(file.values[name]), view.detach().numpy())


def forged(path: Path, content: bytes, numbers: bytes = b"\0" * 16, **entries: bytes) -> Path:
    """An archive like those of torch with a pickle of one's own."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", content)
        file.writestr("archive/data/0", numbers)
        for name, value in entries.items():
            file.writestr(f"archive/{name}", value)
    return path


class Tensor:
    """Pickled as a tensor that is stated in any way."""

    def __init__(
        self, size: Any, offset: Any, shape: Any, strides: Any, kind: Any = torch.FloatStorage, entry: Any = "0"
    ) -> None:
        self.stated = ("storage", kind, entry, "cpu", size)
        self.rest: tuple[Any, ...] = (offset, shape, strides, False, {})

    def __reduce__(self) -> Any:
        return torch._utils._rebuild_tensor_v2, (Outside(self.stated), *self.rest)


class Outside:
    def __init__(self, stated: Any) -> None:
        self.stated = stated


class Writer(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return obj.stated if isinstance(obj, Outside) else None


def written(value: Any) -> bytes:
    buffer = io.BytesIO()
    Writer(buffer, protocol=2).dump(value)
    return buffer.getvalue()


def test_a_forged_file_that_is_right_is_read(tmp_path: Path) -> None:
    path = forged(tmp_path / "f.pt", written({"x": Tensor(4, 0, (2, 2), (2, 1))}))
    with TorchFile(path) as file:
        np.testing.assert_array_equal(file.array(file.values["x"]), np.zeros((2, 2), np.float32))


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (Tensor(10**15, 0, (10**15,), (1,)), "states 4000000000000000 bytes for a tensor"),
        (Tensor(10**15, 0, (2,), (1,)), "states 4000000000000000 bytes"),
        (Tensor(4, 0, (10**9, 10**9), (0, 0)), "more values than the 4 that are stored"),
        (Tensor(4, 0, (3, 1), (2, 1)), "reaches beyond its numbers"),
        (Tensor(4, 3, (2,), (1,)), "more values than"),
        (Tensor(4, 10**9, (0,), (1,)), "reaches beyond its numbers"),
        (Tensor(4, 0, (2,), (-1,)), "not stated as torch.save does"),
        (Tensor(4, -1, (2,), (1,)), "not stated as torch.save does"),
        (Tensor(4, 0, (2, 1), (1,)), "not stated as torch.save does"),
        (Tensor(4, 0, (True,), (1,)), "not stated as torch.save does"),
        (Tensor(4, 0, [2], (1,)), "not stated as torch.save does"),
        (Tensor(-4, 0, (2,), (1,)), "numbers of a tensor are not stated"),
        (Tensor("4", 0, (2,), (1,)), "numbers of a tensor are not stated"),
        (Tensor(4, 0, (2,), (1,), entry="1"), "lacks the numbers of a tensor"),
        (Tensor(4, 0, (2,), (1,), entry="../data.pkl"), "lacks the numbers of a tensor"),
        (Tensor(4, 0, (2,), (1,), kind=torch.nn.Linear), "asks for 'torch.nn.modules.linear.Linear'"),
    ],
)
def test_tensors_that_do_not_fit_their_file_are_refused(tensor: Tensor, message: str, tmp_path: Path) -> None:
    path = forged(tmp_path / "f.pt", written([tensor]))
    with pytest.raises(ValueError, match=message), TorchFile(path) as file:
        file.array(file.values[0])


@pytest.mark.parametrize("package", [(), ("torch", "os")])
def test_code_is_refused_and_nothing_runs(package: tuple[str, ...], tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"state_dict": {"x": torch.zeros(2)}, "y": Attack()}, tmp_path / "f.pt")
    if package:
        # even where the name would be allowed, nothing stands behind it
        with TorchFile(tmp_path / "f.pt", (*package, "posix")) as file:
            assert isinstance(file.values["y"], StandIn)
            assert isinstance(file.values["state_dict"]["x"], StoredTensor)
    else:
        with pytest.raises(UnsafePickle, match="system"):
            TorchFile(tmp_path / "f.pt")
    assert not (tmp_path / "ran").exists()


def test_files_that_are_cut_off_or_changed_are_refused(tmp_path: Path) -> None:
    torch.save({"x": torch.arange(1000.0)}, tmp_path / "f.pt")
    whole = (tmp_path / "f.pt").read_bytes()
    for end in (0, 10, 500, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.pt").write_bytes(whole[:end])
        with pytest.raises(ValueError, match="cut off"):
            TorchFile(tmp_path / "cut.pt")
    numbers = torch.arange(1000.0).numpy().tobytes()
    at = whole.index(numbers) + 77
    (tmp_path / "bit.pt").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with TorchFile(tmp_path / "bit.pt") as file, pytest.raises(ValueError, match="cut off or changed"):
        file.array(file.values["x"])


def test_numbers_of_numpy_and_dictionaries_with_a_default_become_plain_values(tmp_path: Path) -> None:
    kinds = "f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8".split()
    stored = {
        "numbers": {kind: np.dtype(kind).type(3) for kind in kinds},
        "yes": np.bool_(True),
        "lists": collections.defaultdict(list, a=[1]),
        "counts": collections.defaultdict(int, a=2),
        "texts": collections.defaultdict(str),
        "dicts": collections.defaultdict(dict, b={"c": np.float64(0.1)}),
        "array": np.arange(3),
        "x": torch.ones(2),
    }
    for protocol in (2, 4):
        torch.save(stored, tmp_path / "f.pt", pickle_protocol=protocol)
        with TorchFile(tmp_path / "f.pt") as file:
            values = dict(file.values)
            # an array is nothing but its name and what was stored of it
            array = values.pop("array")
            assert isinstance(array, StandIn)
            assert str(array.named) == "numpy.ndarray"
            np.testing.assert_array_equal(file.array(values.pop("x")), [1, 1])
        numbers = values.pop("numbers")
        assert numbers == dict.fromkeys(kinds, 3)
        assert set(map(type, numbers.values())) == {int, float}
        assert values == {"yes": True, "lists": {"a": [1]}, "counts": {"a": 2}, "texts": {}, "dicts": {"b": {"c": 0.1}}}
        assert type(values["lists"]) is dict


def test_what_makes_the_values_of_a_dictionary_is_never_called(tmp_path: Path) -> None:
    class Attack:
        def __init__(self, function: Any, *args: Any) -> None:
            self.call = function, args

        def __reduce__(self) -> Any:
            return self.call

    for attack in (Attack(int, "1"), Attack(dict, [(1, 2)]), Attack(np.ndarray, (2,))):
        with pytest.raises(ValueError, match="not a pickle that can be read"):
            TorchFile(forged(tmp_path / "f.pt", written([attack])))
    evil: Any
    for evil in (
        collections.defaultdict(os.getcwd),
        np.array([Attack(os.system, f"touch {tmp_path / 'ran'}")], object),
    ):
        with pytest.raises(UnsafePickle, match="nothing of it was run"):
            TorchFile(forged(tmp_path / "f.pt", written([evil])))
    assert not (tmp_path / "ran").exists()


def test_other_archives_are_refused(tmp_path: Path) -> None:
    content = written({"x": Tensor(4, 0, (2, 2), (2, 1))})
    with pytest.raises(FileNotFoundError, match="There is no file"):
        TorchFile(tmp_path / "none.pt")
    torch.save([1], tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(
        ValueError, match=r"old format of torch.save \(before torch 1.6\).* save it again with torch.save"
    ):
        TorchFile(tmp_path / "old.pt")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as file:
        file.writestr("a.txt", "x")
    with pytest.raises(ValueError, match="not one that torch.save wrote"):
        TorchFile(tmp_path / "other.zip")
    with pytest.raises(ValueError, match="another byte order"):
        TorchFile(forged(tmp_path / "big.pt", content, byteorder=b"big"))
    with zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", content)
        file.writestr("archive/data/0", b"\0" * 10**6)
    with pytest.raises(ValueError, match="packed entry"):
        TorchFile(tmp_path / "packed.pt")
