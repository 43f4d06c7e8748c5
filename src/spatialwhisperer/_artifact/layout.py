"""Names of the files in the folder of an artifact, and what it says of itself."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

from spatialwhisperer._storage.untrusted import LARGEST_JSON, parse_json, read_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

CONFIG, TENSORS = "config.json", "model.safetensors"
FORMAT, FORMAT_VERSION = "spatialwhisperer", 1


def digest(stated: Mapping[str, Any]) -> str:
    """SHA-256 over the canonical JSON of a configuration, its own digest left out."""
    rest = {key: value for key, value in stated.items() if key != "digest"}
    text = json.dumps(rest, sort_keys=True, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return sha256(text.encode())


def kind_of(folder: Path) -> str | None:
    """Kind of the artifact in a folder, as it says itself; ``None`` where there is none."""
    try:
        stated = parse_json(read_bytes(folder / CONFIG, LARGEST_JSON), CONFIG)
        return str(stated["kind"]) if stated["format"] == FORMAT else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def names_listed(folder: Path) -> tuple[list[str], list[str]]:
    """Files and parts that the configuration in a folder lists, as it says itself; none where it lists none."""
    stated = parse_json(read_bytes(folder / CONFIG, LARGEST_JSON), CONFIG)
    files, parts = (stated.get(key) if isinstance(stated, dict) else None for key in ("files", "parts"))
    return [*(files if isinstance(files, dict) else ())], [*(parts if isinstance(parts, dict) else ())]


def names_in(folder: Path, known: Iterable[str]) -> list[str]:
    """Files and folders that an artifact with these parts would overwrite."""
    return [name for name in (CONFIG, TENSORS, *known) if os.path.exists(folder / name)]


def sha256(content: bytes) -> str:
    """SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
