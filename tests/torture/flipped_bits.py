"""One flipped bit in a configuration: it is refused, or means the same."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatialwhisperer._artifact.artifact import Artifact
from tests.torture.frame import Campaign, Trial
from tests.torture.guard import at_the_end
from tests.torture.small_models import shared_folders

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

    import numpy as np

_STRING = rb'"(?:[^"\\]|\\.)*"'
_TOKENS = re.compile(
    rb"(?P<key>%s(?=:))|(?P<text>%s)|(?P<number>-?[0-9][0-9.eE+-]*)|(?P<word>true|false|null)|(?P<blank>\s+)|(?P<mark>[\[\]{},:])"
    % (_STRING, _STRING)
)
_ENTRY = re.compile(rb'^ "(\w+)":', re.MULTILINE)


def content(artifact: Artifact) -> Any:
    """Everything that an artifact says."""
    tensors = {name: (str(value.dtype), value.shape, value.tobytes()) for name, value in artifact.tensors.items()}
    parts = {name: content(part) for name, part in artifact.parts.items()}
    return artifact.kind, json.dumps(artifact.config, sort_keys=True), tensors, dict(artifact.files), parts


def classes(text: bytes) -> dict[tuple[str, str], list[int]]:
    """Positions in a configuration by what stands there (key, text, number, …) and in which of its entries."""
    out: dict[tuple[str, str], list[int]] = {}
    entries = [(found.start(), found[1].decode()) for found in _ENTRY.finditer(text)]
    for token in _TOKENS.finditer(text):
        entry = max((e for e in entries if e[0] <= token.start()), default=(0, ""))[1]
        out.setdefault((str(token.lastgroup), entry), []).extend(range(*token.span()))
    return out


def trials(rng: np.random.Generator, n: int) -> Iterator[Trial]:
    """All kinds of positions of all configurations of three models, one after another."""
    return at_the_end(_flips(rng, n), n, _mostly_refused)


def _flips(rng: np.random.Generator, n: int) -> Iterator[Trial]:
    with tempfile.TemporaryDirectory() as temporary:
        whole, places = {}, []
        for name, source in shared_folders().items():
            folder = Path(temporary) / name
            shutil.copytree(source, folder)
            whole[folder] = content(Artifact.read(folder, "model"))
            for path in sorted(folder.rglob("config.json")):
                places += [(folder, path, kind, at) for kind, at in classes(path.read_bytes()).items()]
        order = [int(i) for _ in range(-(-n // len(places))) for i in rng.permutation(len(places))]
        for i in order[:n]:
            folder, path, kind, at = places[i]
            position, bit = at[int(rng.integers(len(at)))], int(rng.integers(8))
            yield _flipped(folder, path, position, bit, whole[folder], " of ".join(kind))


def _flipped(folder: Path, path: Path, position: int, bit: int, whole: Any, kind: str) -> Trial:
    before = path.read_bytes()
    changed = bytearray(before)
    changed[position] ^= 1 << bit
    path.write_bytes(bytes(changed))
    where = f"{path.parent.name}/{path.name}, byte {position} ({kind}), bit {bit}"
    try:
        same = content(Artifact.read(folder, "model")) == whole
    except ValueError:
        return Trial("own error")
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is an outcome
        return Trial("other error", f"{where}: {type(error).__name__}: {error}")
    finally:
        path.write_bytes(before)
    return Trial("same meaning", "" if same else f"{where}: another meaning is read")


def _mostly_refused(outcomes: Counter[str]) -> str:
    n = sum(outcomes.values())
    return "" if outcomes["own error"] > 0.9 * n else f"{n - outcomes['own error']} of {n} are not refused"


CAMPAIGN = Campaign("one flipped bit in config.json", trials, bounded=180, long=1200, posix=True)
