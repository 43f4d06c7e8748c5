"""Folders that somebody wrote to run code, reach the network, read other files or fill the memory: opening them does nothing."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import tempfile
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatialwhisperer.models import Whisperer
from tests.torture.frame import Campaign, Trial
from tests.torture.mutated_folders import ENDS, outcome
from tests.torture.mutations import seal
from tests.torture.small_models import shared_folders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np

TEXT, IMAGE, EMBEDDED = "trained text", "trained image", "embedded"
CODE = "import os\nopen(os.environ['SPATIALWHISPERER_TORTURE'], 'w').write('ran')\nclass Evil: pass\n"
MARK = "SPATIALWHISPERER_TORTURE"
MOST_MEMORY = 400 * 2**20
ENDLESS = ("links to", "terabyte", "pipe")
"""Attacks whose files nobody should read to the end, also not to compute their checksums."""


class _Runs:
    def __reduce__(self) -> Any:
        return exec, (CODE,)


def _change(path: Path, *at: str, value: Any) -> None:
    stated = json.loads(path.read_text(encoding="utf-8"))
    inner = stated
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = value
    path.write_text(json.dumps(stated), encoding="utf-8")


def _set(*at: str, value: Any, part: str = "") -> Callable[[Path], None]:
    return lambda folder: _change(folder / part / "config.json", "config", *at, value=value)


def _tokenizer(key: str, value: Any) -> Callable[[Path], None]:
    return lambda folder: _change(folder / "text_encoder" / "tokenizer_config.json", key, value=value)


def _listed(name: str, content: bytes, part: str = "") -> Callable[[Path], None]:
    """A file that the configuration lists, with its checksum."""

    def add(folder: Path) -> None:
        (folder / part / name).write_bytes(content)
        _change(folder / part / "config.json", "files", name, value="0")

    return add


def _beside(name: str, content: bytes) -> Callable[[Path], None]:
    def add(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)

    return add


def _named(name: str, key: str = "files") -> Callable[[Path], None]:
    """A name in the list of files or parts that leads elsewhere."""
    return lambda folder: _change(folder / "config.json", key, name, value="0" * 64)


def _link(name: str, target: str) -> Callable[[Path], None]:
    def link(folder: Path) -> None:
        os.replace(folder / name, folder.parent / "elsewhere")
        (folder / name).symlink_to(target)

    return link


def _pipe(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")


def _large_file(folder: Path) -> None:
    with (folder / "config.json").open("r+b") as file:
        file.truncate(2**40)


def _content(name: str, content: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return write


def _header(shape: Any) -> Callable[[Path], None]:
    """The header of the weights states another shape."""

    def change(folder: Path) -> None:
        path = folder / "model.safetensors"
        whole = path.read_bytes()
        end = 8 + struct.unpack("<Q", whole[:8])[0]
        stated = json.loads(whole[8:end])
        stated[next(key for key in stated if key != "__metadata__")]["shape"] = shape
        text = json.dumps(stated).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + whole[end:])

    return change


def _both(*changes: Callable[[Path], None]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for one in changes:
            one(folder)

    return change


HEAD = ("modalities", "image", "head", "in_dim")
CONTEXT = ("modalities", "image", "context", "options")
SIZES: list[tuple[str, str, tuple[str, ...]]] = [
    (EMBEDDED, "", HEAD),
    (TEXT, "", HEAD),
    (TEXT, "", ("modalities", "text", "feature_dim")),
    (TEXT, "", ("projection_dim",)),
    (TEXT, "", ("decoder_dim",)),
    (TEXT, "", (*CONTEXT, "depth")),
    (TEXT, "", (*CONTEXT, "head_dim")),
    (EMBEDDED, "gene_encoder", ("n_layers",)),
    (EMBEDDED, "gene_encoder", ("n_hidden",)),
    (TEXT, "gene_encoder", ("n_blocks",)),
    (TEXT, "gene_encoder", ("dim",)),
    (TEXT, "text_encoder", ("transformer", "vocab_size")),
    (TEXT, "text_encoder", ("transformer", "max_position_embeddings")),
    (TEXT, "text_encoder", ("transformer", "num_labels")),
    (IMAGE, "text_encoder", ("transformer", "num_hidden_layers")),
    (IMAGE, "text_encoder", ("transformer", "hidden_size")),
]
EVIL, PICKLE = CODE.encode(), pickle.dumps(_Runs())
AUTO_MAP = {"AutoTokenizer": ["evil.Evil", "evil.Evil"], "AutoModel": "evil.Evil", "AutoConfig": "evil.Evil"}
ON_HUB = {"AutoTokenizer": ["owner/name--evil.Evil", None], "AutoModel": "owner/name--evil.Evil"}
IMAGE_NAME = ("modalities", "image", "features", "encoder", "name")

ATTACKS: list[tuple[str, str, Callable[[Path], None]]] = [
    *[
        (f"{what}, {'listed' if code else 'beside it'}", TEXT, _both(change, add))
        for what, change in [
            ("auto_map of the tokenizer", _tokenizer("auto_map", AUTO_MAP)),
            ("auto_map of the architecture", _set("transformer", "auto_map", value=AUTO_MAP, part="text_encoder")),
            (
                "custom pipelines",
                _set("transformer", "custom_pipelines", value={"x": {"impl": "evil.Evil"}}, part="text_encoder"),
            ),
        ]
        for code, add in [
            (True, _listed("evil.py", EVIL, "text_encoder")),
            (False, _beside("text_encoder/evil.py", EVIL)),
        ]
    ],
    ("auto_map to the hub, tokenizer", TEXT, _tokenizer("auto_map", ON_HUB)),
    ("auto_map to the hub, architecture", TEXT, _set("transformer", "auto_map", value=ON_HUB, part="text_encoder")),
    ("a kernel of the hub", TEXT, _set("transformer", "_attn_implementation", value="owner/name", part="text_encoder")),
    ("a backbone of the hub", TEXT, _set("transformer", "backbone", value="owner/name", part="text_encoder")),
    ("a tokenizer class", TEXT, _tokenizer("tokenizer_class", "evil.Evil")),
    ("a template", TEXT, _tokenizer("chat_template", "{{ ''.__class__.__mro__[1].__subclasses__() }}")),
    *[(f"tokenizer names {v}", TEXT, _tokenizer("vocab_file", v)) for v in ("/etc/passwd", "../elsewhere")],
    *[
        (f"image encoder {name}", IMAGE, _set(*IMAGE_NAME, value=name))
        for name in (
            "owner/name",
            "hf-hub:owner/name",
            "../elsewhere",
            "/etc",
            "local-dir:/etc",
            "uni2-h",
            "vit_giant_patch14_224",
        )
    ],
    *[
        (f"text encoder of gene sentences {name}", IMAGE, _set("text_encoder", value=name, part="gene_encoder"))
        for name in ("owner/name", "/etc", "../elsewhere", "~/model")
    ],
    *[
        (f"{key} name {name!r}", EMBEDDED, _named(name, key))
        for key in ("files", "parts")
        for name in ("../elsewhere", "/etc/passwd", "..", ".", "a/b", "a\\b", "\x00", "x" * 300, ".hidden")
    ],
    *[
        (f"{name} links to {target}", TEXT, _link(name, target))
        for name in ("config.json", "model.safetensors", "text_encoder", "text_encoder/config.json")
        for target in ("/etc/passwd", "../elsewhere", "/dev/zero", "config.json", "/nowhere")
    ],
    ("weights are a pipe", EMBEDDED, _pipe),
    *[
        (f"Python file {name}", TEXT, _beside(name, EVIL))
        for name in (
            "__init__.py",
            "sitecustomize.py",
            "modeling_bert.py",
            "text_encoder/__init__.py",
            "gene_encoder/x.py",
            "json.py",
        )
    ],
    *[
        (f"pickle {name}, {how}", TEXT, make(name, PICKLE))
        for name in ("pytorch_model.bin", "x.pkl", "x.PT", "x.npy", "x.joblib")
        for how, make in (("listed", _listed), ("beside it", _beside))
    ],
    ("pickle in a hidden folder", TEXT, _beside(".cache/x.pkl", PICKLE)),
    ("weights are a pickle", EMBEDDED, _content("model.safetensors", PICKLE)),
    ("tokenizer is a pickle", TEXT, _content("text_encoder/tokenizer.json", PICKLE)),
    *[
        (f"{at[-1]} of {part or 'the model'} is {value}", name, _set(*at, value=value, part=part))
        for name, part, at in SIZES
        for value in (10**9, -1, 10**30)
    ],
    *[(f"header with shape {shape}", EMBEDDED, _header(shape)) for shape in ([10**9, 10**9], [2**63], [-1], [0])],
    ("header of 2**60 bytes", EMBEDDED, _content("model.safetensors", struct.pack("<Q", 2**60) + b"{}")),
    *[
        (f"{path} is {what}", TEXT, _content(path, content))
        for path in (
            "config.json",
            "text_encoder/config.json",
            "text_encoder/tokenizer.json",
            "text_encoder/tokenizer_config.json",
        )
        for what, content in (
            ("a deep list", b"[" * 200_000),
            ("a deep object", b'{"a":' * 200_000),
            ("a long number", b"9" * 10_000),
            ("a long list", b"[" + b"0," * 10**6 + b"0]"),
        )
    ],
    ("config.json of a terabyte", EMBEDDED, _large_file),
]


def trials(rng: np.random.Generator, n: int) -> Iterator[Trial]:
    """One attack after another, with checksums that fit."""
    order = [ATTACKS[int(i)] for i in rng.permutation(len(ATTACKS))]
    with tempfile.TemporaryDirectory() as place:
        # what a first use imports is no part of the trial
        for folder in shared_folders().values():
            Whisperer.load(folder)
        for i, (what, name, attack) in enumerate(islice(cycle(order), n)):
            yield _attacked(Path(place) / str(i), what, name, attack)


def _attacked(place: Path, what: str, name: str, attack: Callable[[Path], None]) -> Trial:
    folder = place / "m"
    shutil.copytree(shared_folders()[name], folder)
    attack(folder)
    if not any(text in what for text in ENDLESS):
        try:
            seal(folder)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass  # those that cannot be sealed are tried as they are
    os.environ[MARK] = str(place / "ran")
    before = _peak()
    try:
        ended, said = outcome(folder, seconds=60)
    finally:
        del os.environ[MARK]
    wrong = ""
    if ended not in ENDS:
        wrong = f"{ended}: {said[:200]}"
    elif (place / "ran").exists():
        wrong = "its code ran"
    elif _peak() - before > MOST_MEMORY:
        wrong = f"{(_peak() - before) / 2**20:.0f} MB"
    shutil.rmtree(place)
    return Trial("opens, does nothing" if ended == "opens" else ended, wrong and f"{what}: {wrong}")


def _peak() -> int:
    """Most bytes of memory that this process had so far."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


CAMPAIGN = Campaign("hostile model folder", trials, bounded=40, long=len(ATTACKS), posix=True)
