"""A folder of JSON and safetensors: written whole or not at all, verified before anything is built, never unpickled.

Everything that the package stores is an `Artifact`: a model, its gene encoder, its vocabulary. One folder holds

- ``config.json``: what it is, plain values, the SHA-256 of every other file, and a digest over all of this;
- ``model.safetensors``: arrays;
- further files as they are, such as a tokenizer's;
- one subfolder per part, an artifact again, whose digest stands in the ``config.json`` of the whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from spatialwhisperer._messages import listing
from spatialwhisperer._schema import to_plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import numpy as np

CONFIG, TENSORS = "config.json", "model.safetensors"
FORMAT, FORMAT_VERSION = "spatialwhisperer", 1
_KEYS = {"format", "format_version", "kind", "written_by", "config", "files", "parts", "digest"}
_READ = {".json", ".safetensors"}
_READ_IN_PARTS = _READ | {".model", ".txt"}
_PICKLES = {".bin", ".ckpt", ".dill", ".joblib", ".npy", ".npz", ".pkl", ".pickle", ".pt", ".pth"}
_REMEDY = "Copy or download the folder again, or save what it holds again."
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Artifact:
    """What a folder holds, in memory.

    Attributes
    ----------
    kind
        What it is: "model", "gene encoder", ….
    config
        Values that `to_plain` turns into JSON.
    tensors
        Arrays by name.
    parts
        Artifacts that lie in subfolders, by the name of the folder.
    files
        Content of further files by name.
    """

    kind: str
    config: Mapping[str, Any]
    tensors: Mapping[str, np.ndarray] = field(default_factory=lambda: _NOTHING)
    parts: Mapping[str, Artifact] = field(default_factory=lambda: _NOTHING)
    files: Mapping[str, bytes] = field(default_factory=lambda: _NOTHING)

    def write(self, folder: str | Path) -> Path:
        """Write to a folder that appears whole or not at all; an artifact of the same kind there is replaced.

        Returns
        -------
        The folder.

        Raises
        ------
        FileExistsError
            If something else lies there.
        """
        folder = Path(folder).expanduser().resolve()
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists() and not _is_free(folder) and kind_of(folder) != self.kind:
            raise FileExistsError(
                f"{folder} exists and is not a folder of this kind ({self.kind}); choose another name or remove it."
            )
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            self.write_into(temporary)
            _open_to_others(folder.parent, [temporary])
            _exchange(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return folder

    def write_into(self, folder: Path) -> str:
        """Write the files into a folder that exists; returns the digest.

        The folder may be left half written. This is for callers that take care of that themselves; all others use `write`.
        """
        written: list[Path] = []
        sha = self._write(folder, written)
        _open_to_others(folder, written)
        return sha

    def _write(self, folder: Path, written: list[Path]) -> str:
        """Write the files, the configuration last; what was written is added to a list."""
        from safetensors.numpy import save_file

        sums: dict[str, str] = {}
        if self.tensors:
            import numpy as np

            save_file({k: np.asarray(v, order="C") for k, v in sorted(self.tensors.items())}, folder / TENSORS)
            sums[TENSORS] = _sha256((folder / TENSORS).read_bytes())
        for name, content in sorted(self.files.items()):
            (folder / name).write_bytes(content)
            sums[name] = _sha256(content)
        parts = {}
        for name, part in sorted(self.parts.items()):
            (folder / name).mkdir()
            parts[name] = part._write(folder / name, written)
        stated = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "kind": self.kind,
            "written_by": version("spatialwhisperer"),
            # as it will be read: keys are text, and what is no text, number or list has become one
            "config": to_plain(self.config),
            "files": sums,
            "parts": parts,
        }
        stated["digest"] = digest(stated)
        text = json.dumps(stated, indent=1, ensure_ascii=False, allow_nan=False)
        (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
        written += [folder / name for name in (*sums, *parts, CONFIG)]
        return str(stated["digest"])

    @classmethod
    def read(cls, folder: str | Path, kind: str) -> Artifact:
        """Read a folder. The bytes that are verified are the bytes that are used.

        Raises
        ------
        FileNotFoundError
            If the folder does not hold an artifact.
        ValueError
            If it holds one of another kind, a pickle, or a file that is cut off, changed, missing or not listed.
        """
        folder = Path(folder)
        stated = _stated(folder, kind)
        _refuse_pickles(folder)
        return cls._read(folder, stated, outermost=True)

    @classmethod
    def _read(cls, folder: Path, stated: Mapping[str, Any], *, outermost: bool) -> Artifact:
        _check_listing(folder, stated, outermost=outermost)
        contents = {name: _verified(folder / name, sha) for name, sha in stated["files"].items()}
        tensors = _tensors(folder / TENSORS, contents.pop(TENSORS)) if TENSORS in contents else {}
        parts = {}
        for name, sha in stated["parts"].items():
            inner = _stated(folder / name, None)
            if inner["digest"] != sha:
                raise ValueError(f"{folder / name} is not the folder that was written with {folder}. {_REMEDY}")
            parts[name] = cls._read(folder / name, inner, outermost=False)
        return cls(stated["kind"], stated["config"], tensors, parts, contents)


def digest(stated: Mapping[str, Any]) -> str:
    """SHA-256 over the canonical JSON of a configuration, its own digest left out."""
    rest = {key: value for key, value in stated.items() if key != "digest"}
    text = json.dumps(rest, sort_keys=True, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return _sha256(text.encode())


def kind_of(folder: Path) -> str | None:
    """Kind of the artifact in a folder, as it says itself; ``None`` where there is none."""
    try:
        stated = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        return str(stated["kind"]) if stated["format"] == FORMAT else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def names_in(folder: Path, known: Iterable[str]) -> list[str]:
    """Files and folders that an artifact with these parts would overwrite."""
    return [name for name in (CONFIG, TENSORS, *known) if (folder / name).exists()]


# ------------------------------------------------------------------------------------------------- writing


def _is_free(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _exchange(temporary: Path, folder: Path) -> None:
    """Move a finished folder into place; the one that was there comes back after an error."""
    if not folder.exists():
        os.replace(temporary, folder)
        return
    old = temporary.with_name(temporary.name + "-old")
    os.replace(folder, old)
    try:
        os.replace(temporary, folder)
    except BaseException:
        os.replace(old, folder)
        raise
    shutil.rmtree(old)


def _open_to_others(place: Path, paths: Iterable[Path]) -> None:
    """Give files and folders the permissions that the user's umask allows.

    safetensors and temporary folders keep them to the user alone, so that colleagues could not open a model on a shared disk.
    """
    # what a new file gets; asking for the umask would change it for the whole process
    with tempfile.TemporaryDirectory(dir=place) as within:
        probe = Path(within) / "probe"
        probe.touch()
        mode = probe.stat().st_mode & 0o666
    for path in paths:
        # a folder that may be read must be entered too
        path.chmod(mode | (mode & 0o444) >> 2 if path.is_dir() else mode)


# ------------------------------------------------------------------------------------------------- reading


def _stated(folder: Path, kind: str | None) -> dict[str, Any]:
    """Content of ``config.json`` after its own digest was found to be right."""
    path = folder / CONFIG
    if not path.is_file():
        there = listing(sorted(p.name for p in folder.iterdir())) if folder.is_dir() else "no such folder"
        raise FileNotFoundError(f"{folder} holds no {kind or 'part'}: {CONFIG} is needed (found: {there}).")
    try:
        stated = json.loads(path.read_bytes())
        actual = digest(stated) if isinstance(stated, dict) else None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not readable JSON ({error}). {_REMEDY}") from error
    if not isinstance(stated, dict) or stated.get("format") != FORMAT:
        raise ValueError(f"{path} was not written by spatialwhisperer.")
    if stated.get("format_version") != FORMAT_VERSION or set(stated) != _KEYS:
        raise ValueError(
            f"{path} has format version {stated.get('format_version')!r} and this version of the package reads "
            f"{FORMAT_VERSION}. Save it again with the version that wrote it last ({stated.get('written_by')!r}), or install "
            "that version."
        )
    if actual != stated["digest"]:
        raise ValueError(f"{path} is not the file that was written: its digest does not fit its content. {_REMEDY}")
    if kind is not None and stated["kind"] != kind:
        raise ValueError(f"{folder} holds a {stated['kind']}, not a {kind}.")
    _check_names(path, stated)
    return stated


def _check_names(path: Path, stated: Mapping[str, Any]) -> None:
    """Refuse a configuration whose list of files or parts is not one, or leads out of its folder."""
    if not all(isinstance(stated[key], dict) for key in ("config", "files", "parts")):
        raise ValueError(f"{path} does not list its files and parts by name. {_REMEDY}")
    names = [*stated["files"], *stated["parts"]]
    for name in names:
        if not name or name != Path(name).name or "\\" in name or name.startswith("."):
            raise ValueError(f"{path} names a file outside its folder or a hidden one: {name!r}.")
    if len({CONFIG, *names}) <= len(names):
        raise ValueError(f"{path} lists a name twice: {listing(sorted(names))}.")


def _check_listing(folder: Path, stated: Mapping[str, Any], *, outermost: bool) -> None:
    """Compare what lies in a folder with what its configuration lists.

    A README and other files that are never read may come and go in the outermost folder.
    """
    expected = {*stated["files"], CONFIG, *(f"{name}/{CONFIG}" for name in stated["parts"])}
    missing = sorted(name for name in expected if not (folder / name).is_file())
    if missing:
        raise ValueError(f"{folder} lacks {listing(missing, 4)}, which its configuration lists. {_REMEDY}")
    there = _readable(folder) if outermost else (p for p in folder.iterdir() if not p.name.startswith("."))
    added = sorted(p.name for p in there if p.name not in {*expected, *stated["parts"]})
    if added:
        raise ValueError(
            f"{folder} holds {listing(added, 4)}, which its configuration does not list. Remove what does not belong to it, or "
            "save to a new folder."
        )


def _readable(folder: Path) -> Iterator[Path]:
    """Files and folders that could be taken for part of the artifact."""
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_file() and path.suffix.lower() in _READ:
            yield path
        elif path.is_dir() and any(p.suffix.lower() in _READ_IN_PARTS for p in path.rglob("*")):
            yield path


def _verified(path: Path, expected: object) -> bytes:
    content = path.read_bytes()
    actual = _sha256(content)
    if actual != expected:
        raise ValueError(
            f"{path} is not the file that was written with {path.parent}: it is cut off or changed ({len(content)} bytes, "
            f"sha256 {actual[:12]}… and not {str(expected)[:12]}…). {_REMEDY}"
        )
    return content


def _tensors(path: Path, content: bytes) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(content)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}). {_REMEDY}") from error


def _refuse_pickles(folder: Path) -> None:
    pickles = [p.name for p in folder.rglob("*") if p.suffix.lower() in _PICKLES]
    if pickles:
        raise ValueError(
            f"{folder} holds files that can run code when opened ({listing(pickles, 4)}). Only JSON and safetensors are read; "
            "remove the others if you trust the rest."
        )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
