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
from spatialwhisperer._storage.folders import beside, make_durable, present, put, sweep
from spatialwhisperer._storage.untrusted import LARGEST_JSON, REMEDY, opening, parse_json, read_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import numpy as np

CONFIG, TENSORS = "config.json", "model.safetensors"
FORMAT, FORMAT_VERSION = "spatialwhisperer", 1
_KEYS = {"format", "format_version", "kind", "written_by", "config", "files", "parts", "digest"}
_READ = {".json", ".safetensors"}
_READ_IN_PARTS = _READ | {".model", ".txt"}
_PICKLES = {".bin", ".ckpt", ".dill", ".joblib", ".npy", ".npz", ".pkl", ".pickle", ".pt", ".pth"}
_NUMBERS = "biuf"
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

    def write(self, folder: str | Path, *, notes: Mapping[str, str] = _NOTHING) -> Path:
        """Write to a folder that appears whole or not at all; an artifact of the same kind there is replaced.

        A process that is killed leaves the old one or the new one. What it left beside them is removed by a later call.

        Parameters
        ----------
        folder
            Where to write.
        notes
            Texts for people by the name of their file, such as a README. They are no part of the artifact and may be edited.

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
        # one that another process replaces at this moment may look like nothing of this kind
        if all(_holds_another(folder, self.kind) for _ in range(3)):
            raise FileExistsError(
                f"{folder} exists and is not a folder of this kind ({self.kind}); choose another name or remove it."
            )
        temporary = beside(folder)
        try:
            self.write_into(temporary, notes=notes)
            _open_to_others(temporary, [temporary])
            make_durable(temporary)
            put(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        sweep(folder)
        return folder

    def write_into(self, folder: Path, *, notes: Mapping[str, str] = _NOTHING) -> str:
        """Write the files into a folder that exists; returns the digest.

        The folder may be left half written. This is for callers that take care of that themselves; all others use `write`.
        """
        written = [folder / name for name in notes]
        for path, text in zip(written, notes.values(), strict=True):
            path.write_text(text, encoding="utf-8")
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

        A folder that is replaced meanwhile is read again. Links are followed inside the folder, and into the cache of the hub.

        Raises
        ------
        FileNotFoundError
            If the folder does not hold an artifact.
        ValueError
            If it holds one of another kind, a pickle, a file that is cut off, changed, missing or not listed, or a link that leads
            elsewhere; or if it is replaced again and again while it is read.
        """
        asked = Path(folder)
        for again in (True, True, False):
            folder = present(asked, CONFIG) or asked
            begun = _which(folder)
            try:
                found = cls._read_once(folder, kind)
                # one that is whole in itself is right, though another took its place meanwhile
                if not again or _which(folder) == begun:
                    return found
            except (OSError, ValueError) as error:
                # an old folder that was moved away is being removed once the new one is in its place
                settled = _which(folder) == begun and folder == (present(asked, CONFIG) or asked)
                if settled and (begun is not None or _which(present(asked, CONFIG) or asked) is None):
                    raise
                if not again:
                    raise ValueError(
                        f"{asked} is replaced again and again while it is read. Read it when whatever writes to it has finished."
                    ) from error
        raise ValueError(f"{asked} could not be read.")

    @classmethod
    def _read_once(cls, folder: Path, kind: str) -> Artifact:
        stated = _stated(folder, kind, folder)
        _refuse_pickles(folder)
        return cls._read(folder, stated, folder)

    @classmethod
    def _read(cls, folder: Path, stated: Mapping[str, Any], root: Path) -> Artifact:
        _check_listing(folder, stated, outermost=folder == root)
        contents = {name: _verified(folder / name, sha, root) for name, sha in stated["files"].items()}
        tensors = _tensors(folder / TENSORS, contents.pop(TENSORS)) if TENSORS in contents else {}
        parts = {}
        for name, sha in stated["parts"].items():
            _check_link(folder / name, root)
            inner = _stated(folder / name, None, root)
            if inner["digest"] != sha:
                raise ValueError(f"{folder / name} is not the folder that was written with {folder}. {REMEDY}")
            parts[name] = cls._read(folder / name, inner, root)
        return cls(stated["kind"], stated["config"], tensors, parts, contents)


def digest(stated: Mapping[str, Any]) -> str:
    """SHA-256 over the canonical JSON of a configuration, its own digest left out."""
    rest = {key: value for key, value in stated.items() if key != "digest"}
    text = json.dumps(rest, sort_keys=True, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return _sha256(text.encode())


def stated_config(folder: Path, kind: str) -> Mapping[str, Any]:
    """The configuration of the artifact in a folder, without its arrays; its digest is compared, and those of other files are not.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it is of another kind, changed, or cut off.
    """
    config: Mapping[str, Any] = _stated(folder, kind, folder)["config"]
    return config


def kind_of(folder: Path) -> str | None:
    """Kind of the artifact in a folder, as it says itself; ``None`` where there is none."""
    try:
        stated = parse_json(read_bytes(folder / CONFIG, LARGEST_JSON), CONFIG)
        return str(stated["kind"]) if stated["format"] == FORMAT else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def names_in(folder: Path, known: Iterable[str]) -> list[str]:
    """Files and folders that an artifact with these parts would overwrite."""
    return [name for name in (CONFIG, TENSORS, *known) if os.path.exists(folder / name)]


# ------------------------------------------------------------------------------------------------- writing


def _holds_another(folder: Path, kind: str) -> bool:
    """Whether something else than an artifact of this kind lies in the place of a folder."""
    try:
        if os.path.isdir(folder) and not any(folder.iterdir()):
            return False
    except FileNotFoundError:
        return False
    return os.path.exists(folder) and kind_of(folder) != kind


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
        path.chmod(mode | (mode & 0o444) >> 2 if os.path.isdir(path) else mode)


# ------------------------------------------------------------------------------------------------- reading


def _stated(folder: Path, kind: str | None, root: Path) -> dict[str, Any]:
    """Content of ``config.json`` after its own digest was found to be right."""
    path = folder / CONFIG
    if not os.path.isfile(path):
        there = listing(sorted(p.name for p in folder.iterdir())) if os.path.isdir(folder) else "no such folder"
        raise FileNotFoundError(f"{folder} holds no {kind or 'part'}: {CONFIG} is needed (found: {there}).")
    _check_link(path, root)
    stated = parse_json(read_bytes(path, LARGEST_JSON), str(path))
    try:
        actual = digest(stated) if isinstance(stated, dict) else None
    except ValueError as error:
        raise ValueError(f"{path} is not readable JSON ({error}). {REMEDY}") from error
    if not isinstance(stated, dict) or stated.get("format") != FORMAT:
        raise ValueError(f"{path} was not written by spatialwhisperer.")
    if stated.get("format_version") != FORMAT_VERSION or set(stated) != _KEYS:
        raise ValueError(
            f"{path} has format version {stated.get('format_version')!r} and this version of the package reads "
            f"{FORMAT_VERSION}. Save it again with the version that wrote it last ({stated.get('written_by')!r}), or install "
            "that version."
        )
    if actual != stated["digest"]:
        raise ValueError(f"{path} is not the file that was written: its digest does not fit its content. {REMEDY}")
    if kind is not None and stated["kind"] != kind:
        raise ValueError(f"{folder} holds a {stated['kind']}, not a {kind}.")
    _check_names(path, stated)
    return stated


def _check_names(path: Path, stated: Mapping[str, Any]) -> None:
    """Refuse a configuration whose list of files or parts is not one, or leads out of its folder."""
    lists = all(isinstance(stated[key], dict) for key in ("config", "files", "parts"))
    if not lists or not isinstance(stated["kind"], str):
        raise ValueError(f"{path} does not list its files and parts by name. {REMEDY}")
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
    missing = sorted(name for name in expected if not os.path.isfile(folder / name))
    if missing:
        raise ValueError(f"{folder} lacks {listing(missing, 4)}, which its configuration lists. {REMEDY}")
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
        if os.path.isfile(path) and path.suffix.lower() in _READ:
            yield path
        elif os.path.isdir(path) and any(p.suffix.lower() in _READ_IN_PARTS for p in path.rglob("*")):
            yield path


def _verified(path: Path, expected: object, root: Path) -> bytes:
    _check_link(path, root)
    content = read_bytes(path)
    actual = _sha256(content)
    if actual != expected:
        raise ValueError(
            f"{path} is not the file that was written with {path.parent}: it is cut off or changed ({len(content)} bytes, "
            f"sha256 {actual[:12]}… and not {str(expected)[:12]}…). {REMEDY}"
        )
    return content


def _check_link(path: Path, root: Path) -> None:
    """Refuse a link out of a folder, other than one into the files of the same cache of the hub."""
    if not os.path.islink(path):
        return
    target, root = path.resolve(), root.resolve()
    places = [root]
    if root.parent.name == "snapshots":
        # files of the repository, and those that newer clients keep once for all repositories of a cache
        repository = root.parent.parent
        places += [
            repository / "blobs",
            *([repository.parent / "blobs"] if repository.name.startswith("models--") else []),
        ]
    if not any(target.is_relative_to(place) for place in places):
        raise ValueError(
            f"{path} is a link that leads out of its folder, to {target}. If you trust it, copy the folder with the files that its "
            "links lead to (cp -rL)."
        )


def _which(folder: Path) -> tuple[int, ...] | None:
    """Tell the outermost configuration from another one that takes its place; ``None`` where there is none."""
    try:
        found = os.stat(folder / CONFIG)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _tensors(path: Path, content: bytes) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        with opening(str(path), own=(SafetensorError,)):
            tensors = load(content)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}). {REMEDY}") from error
    odd = sorted(name for name, value in tensors.items() if value.dtype.kind not in _NUMBERS)
    if odd:
        raise ValueError(f"{path} holds {listing(odd, 4)} in a type of number that is not read. {REMEDY}")
    return tensors


def _refuse_pickles(folder: Path) -> None:
    names = (name for _, inner, outer in os.walk(folder) for name in (*inner, *outer))
    pickles = sorted(name for name in names if os.path.splitext(name)[1].lower() in _PICKLES)
    if pickles:
        raise ValueError(
            f"{folder} holds files that can run code when opened ({listing(pickles, 4)}). Only JSON and safetensors are read; "
            "remove the others if you trust the rest."
        )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
