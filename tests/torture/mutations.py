"""Ways to change the folder of a model, by accident or with intent."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._artifact.layout import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Random = np.random.Generator


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


NUMBERS: list[Any] = [-1, 0, 1, 3, 10**6, 10**9, 2**31, 2**62, 10**30, -(10**9), 1.5, -0.5, 1e308, 1e-320]
TEXTS: list[Any] = [
    "",
    "x",
    "../../etc/passwd",
    "owner/name",
    "hf-hub:owner/name",
    "/etc",
    ".",
    "a" * 99_999,
    "\x00",
    "\ud800",
]
OTHERS: list[Any] = [
    None,
    True,
    False,
    [],
    {},
    [[]],
    ["x"],
    {"x": 1},
    {"auto_map": "m--x.M"},
    [1, "x", None],
    nested(60),
    nested(900),
]
VALUES = [*NUMBERS, *TEXTS, *OTHERS, list(range(20_000))]
KINDS = ["F64", "I64", "BOOL", "BF16", "F8_E4M3", "X", "U64", "I8", "C64"]
ENCODERS = [
    "owner/name",
    "hf-hub:owner/name",
    "/tmp",
    ".",
    "vit_giant_patch14_224",
    "biobert",
    "resnet18",
    "convnext_xxlarge",
    "minilm",
]


def choose(rng: Random, values: list[Any]) -> Any:
    return values[int(rng.integers(len(values)))]


def files(folder: Path, pattern: str = "*") -> list[Path]:
    return sorted(p for p in folder.rglob(pattern) if p.is_file())


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*at, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value[:3]):
            yield from places(inner, (*at, i))


def replace(path: Path, rng: Random, within: Callable[[tuple[Any, ...]], bool], values: list[Any]) -> str:
    stated = json.loads(path.read_text(encoding="utf-8"))
    at = choose(rng, [p for p in places(stated) if p and within(p)])
    inner, value = stated, choose(rng, values)
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = value
    path.write_text(json.dumps(stated), encoding="utf-8")
    return f"{path.parent.name}/{path.name} {at} = {str(value)[:40]!r}"


def seal(folder: Path) -> str:
    """Compute all checksums and digests again, as the author of a folder can."""
    path = folder / "config.json"
    stated = json.loads(path.read_text(encoding="utf-8"))
    for name in stated["files"]:
        if (folder / name).is_file():
            stated["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    for name in stated["parts"]:
        if (folder / name / "config.json").is_file():
            stated["parts"][name] = seal(folder / name)
    stated["digest"] = digest(stated)
    path.write_text(json.dumps(stated), encoding="utf-8")
    return str(stated["digest"])


def truncated(folder: Path, rng: Random) -> str:
    path = choose(rng, files(folder))
    path.write_bytes(path.read_bytes()[: int(rng.integers(path.stat().st_size))])
    return f"truncated {path.name}"


def flipped(folder: Path, rng: Random) -> str:
    path = choose(rng, files(folder))
    changed = bytearray(path.read_bytes())
    for _ in range(int(rng.integers(1, 5))):
        changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
    path.write_bytes(bytes(changed))
    return f"flipped {path.name}"


def swapped(folder: Path, rng: Random) -> str:
    a, b = choose(rng, files(folder)), choose(rng, files(folder))
    contents = a.read_bytes(), b.read_bytes()
    a.write_bytes(contents[1])
    b.write_bytes(contents[0])
    return f"swapped {a.name} {b.name}"


def missing(folder: Path, rng: Random) -> str:
    path = choose(rng, files(folder))
    path.unlink()
    return f"missing {path.name}"


def value(folder: Path, rng: Random) -> str:
    return replace(choose(rng, files(folder, "config.json")), rng, lambda at: at[0] == "config", VALUES)


def size(folder: Path, rng: Random) -> str:
    """A number where a number is."""
    path = choose(rng, files(folder, "config.json"))
    stated = json.loads(path.read_text(encoding="utf-8"))

    def is_number(at: tuple[Any, ...]) -> bool:
        inner = stated
        for key in at:
            inner = inner[key]
        return at[0] == "config" and isinstance(inner, int | float)

    return replace(path, rng, is_number, NUMBERS) if any(p and is_number(p) for p in places(stated)) else "nothing"


def listed(folder: Path, rng: Random) -> str:
    return replace(choose(rng, files(folder, "config.json")), rng, lambda at: at[0] != "config", VALUES)


def tokenizer(folder: Path, rng: Random) -> str:
    found = files(folder, "tokenizer*.json")
    return replace(choose(rng, found), rng, lambda _: True, VALUES) if found else value(folder, rng)


def odd_json(folder: Path, rng: Random) -> str:
    path = choose(rng, files(folder, "*.json"))
    texts = [
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b"9" * 10_000,
        b"[" + b"0," * 10**6 + b"0]",
        b'{"a": NaN}',
        b"null",
        b"",
    ]
    path.write_bytes(choose(rng, texts))
    return f"odd {path.name}"


def header(folder: Path, rng: Random) -> str:
    path = choose(rng, files(folder, "model.safetensors"))
    whole = path.read_bytes()
    end = 8 + struct.unpack("<Q", whole[:8])[0]
    stated = json.loads(whole[8:end])
    name = choose(rng, [key for key in sorted(stated) if key != "__metadata__"])
    shapes: list[Any] = [[10**9] * 2, [2**63, 4], [-1], [*stated[name]["shape"], 1], [], nested(500)]
    changes = [("shape", shape) for shape in shapes] + [("dtype", kind) for kind in KINDS]
    key, new = choose(rng, [*changes, ("data_offsets", [0, 10**15]), ("data_offsets", [8, 0])])
    stated[name][key] = new
    text = json.dumps(stated).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + whole[end:])
    return f"header {name} {key} {str(new)[:40]}"


def tensor(folder: Path, rng: Random) -> str:
    from safetensors.numpy import load_file, save_file

    path = choose(rng, files(folder, "model.safetensors"))
    tensors = load_file(path)
    name = choose(rng, sorted(tensors))
    before = tensors[name]
    others: list[Any] = [
        *(before.astype(kind) for kind in (np.float64, np.int8, bool, np.complex64, np.uint16)),
        *(np.full(before.shape, number, np.float32) for number in (np.nan, np.inf, 1e30)),
        *(np.full(before.shape, number, np.int64) for number in (-7, 2**62)),
        before[:0] if before.ndim else before,
        before.reshape(-1),
        np.float32(1),
    ]
    tensors[name] = choose(rng, others)
    save_file({key: np.array(array) for key, array in tensors.items()}, path)
    return f"tensor {path.parent.name} {name} {tensors[name].dtype} {tensors[name].shape}"


def link(folder: Path, rng: Random) -> str:
    path = choose(rng, files(folder))
    target = choose(rng, ["elsewhere", "/dev/zero", path.name, "/etc/passwd", "pipe"])
    os.replace(path, folder.parent / "elsewhere")
    if target == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(folder.parent / target if target == "elsewhere" else target)
    return f"link {path.name} to {target}"


def outside(folder: Path, rng: Random) -> str:
    path = choose(rng, files(folder, "config.json"))
    stated = json.loads(path.read_text(encoding="utf-8"))
    name = choose(rng, ["../outside.json", "/etc/passwd", "..", "a/b", "\x00", "x" * 300, "C:x", "new\nline.json"])
    stated[choose(rng, ["files", "parts"])][name] = "0" * 64
    path.write_text(json.dumps(stated), encoding="utf-8")
    return f"outside {name!r}"


def added(folder: Path, rng: Random) -> str:
    place = choose(rng, files(folder, "config.json")).parent
    name = choose(rng, ["modeling.py", "__init__.py", "x.json", "x.pkl", "x.bin", "added_tokens.json", "a.jinja"])
    (place / name).write_text(f"open({str(folder.parent / 'ran')!r}, 'w')\n")
    if rng.random() < 0.5:
        path = place / "config.json"
        stated = json.loads(path.read_text(encoding="utf-8"))
        stated["files"][name] = "0"
        path.write_text(json.dumps(stated), encoding="utf-8")
    return f"added {place.name}/{name}"


def encoder(folder: Path, rng: Random) -> str:
    path = folder / "config.json"
    stated = json.loads(path.read_text(encoding="utf-8"))
    modality, name = choose(rng, sorted(stated["config"]["modalities"])), choose(rng, ENCODERS)
    inner = stated["config"]["modalities"][modality]
    inner["features"]["encoder"]["name"], inner["trained"] = name, bool(rng.random() < 0.6)
    part = folder / f"{modality}_encoder"
    if part.exists() and rng.random() < 0.5:
        shutil.rmtree(part)
        del stated["parts"][part.name]
    path.write_text(json.dumps(stated), encoding="utf-8")
    return f"encoder {modality} {name}"


DAMAGES = [truncated, flipped, swapped, missing, listed]
SEALED = [
    *DAMAGES,
    value,
    value,
    value,
    size,
    size,
    size,
    tokenizer,
    tokenizer,
    odd_json,
    header,
    tensor,
    tensor,
    outside,
    added,
]
MUTATIONS = [(change, False) for change in [*DAMAGES, link]] + [
    (change, True) for change in [*SEALED, encoder, encoder]
]
