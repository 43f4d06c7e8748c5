"""What is read is bounded before it is believed."""

from __future__ import annotations

import json
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
import torch

from spatialwhisperer._storage import untrusted
from spatialwhisperer._storage.untrusted import networks_within, opening, parse_json, read_bytes

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = ['"', "\\", '\\"', "[", "{", "]]]", '["', "a\nb\\", '\\\\"', "", "ü", "\\u0022"]


def test_json_of_any_text_is_parsed() -> None:
    value = {text: [text, {"x": [text, *TEXTS]}] for text in TEXTS}
    for indent in (None, 1):
        for ascii_only in (True, False):
            assert parse_json(json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode(), "it") == value


@pytest.mark.parametrize(("start", "end"), [("[", "]"), ('{"a":', "}"), ('[{"[": ', "}]")])
def test_depth_is_bounded_exactly(start: str, end: str) -> None:
    n = 64 if start != '[{"[": ' else 32
    parse_json((start * (n - 1) + "[]" + end * (n - 1)).encode(), "it")
    with pytest.raises(ValueError, match="it is not readable JSON .nested deeper than 64 levels"):
        parse_json((start * n + "[]" + end * n).encode(), "it")
    with pytest.raises(ValueError, match="nested deeper than 64 levels"):
        parse_json((start * 100_000).encode(), "it")


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.json").write_bytes(b"[" + b" " * 100 + b"]")
    assert read_bytes(tmp_path / "a.json", 102) == (tmp_path / "a.json").read_bytes()
    with pytest.raises(ValueError, match="has 102 bytes, and at most 101 are read"):
        read_bytes(tmp_path / "a.json", 101)
    monkeypatch.setattr(untrusted, "LARGEST_JSON", 50)
    with pytest.raises(ValueError, match="it has 102 bytes, and at most 50 are read"):
        parse_json((tmp_path / "a.json").read_bytes(), "it")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2**43)
    with pytest.raises(ValueError, match=f"has {2**43} bytes"):
        read_bytes(tmp_path / "sparse")


@pytest.mark.parametrize(
    "error", [TypeError("no"), RecursionError(), MemoryError(), AttributeError("x\ny"), KeyError(1)]
)
def test_errors_of_a_library_become_ones_that_name_what_was_opened(error: Exception) -> None:
    with pytest.raises(ValueError, match=rf"^The part cannot be opened \({type(error).__name__}: .*Copy or download"):
        with opening("The part"):
            raise error


def test_other_errors_pass() -> None:
    for error, own in ((KeyError("a"), (KeyError,)), (ImportError("b"), ()), (KeyboardInterrupt(), ())):
        with pytest.raises(type(error)) as caught, opening("The part", own=own):
            raise error
        assert caught.value is error

    class PanicException(BaseException):
        pass

    with pytest.raises(ValueError, match="PanicException: without a message"), opening("The part"):
        raise PanicException


def test_networks_that_are_larger_than_their_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrusted, "_UNSTORED_VALUES", 0)
    monkeypatch.setattr(untrusted, "_UNSTORED_TENSORS", 0)
    before = torch.nn.Linear(9, 9)
    with networks_within(12, 2, "it"):
        torch.nn.Linear(3, 3)
    makes: list[Any] = [
        lambda: torch.nn.Linear(3, 4),
        lambda: torch.nn.Linear(20_000, 20_000),
        lambda: torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(10**9)),
        lambda: before.register_buffer("more", torch.zeros(13)),
    ]
    for make in makes:
        with pytest.raises(ValueError, match="it asks for larger networks than its 2 tensors of 12 values"):
            with networks_within(12, 2, "it"):
                make()
    torch.nn.Linear(30, 30)


def test_other_threads_build_what_they_like() -> None:
    built: list[Any] = []
    with networks_within(0, 0, "it"):
        thread = Thread(target=lambda: built.append(torch.nn.Linear(3000, 3000)))
        thread.start()
        thread.join()
    assert built
