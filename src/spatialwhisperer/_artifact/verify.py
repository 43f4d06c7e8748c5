"""What is checked before anything of a folder is used: digests, names, links, and that nothing in it can run code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatialwhisperer._artifact.layout import CONFIG, FORMAT, FORMAT_VERSION, digest, kind_of, sha256
from spatialwhisperer._messages import listing
from spatialwhisperer._storage.untrusted import LARGEST_JSON, REMEDY, opening, parse_json, read_bytes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    import numpy as np

_KEYS = {"format", "format_version", "kind", "written_by", "config", "files", "parts", "digest"}
_READ = {".json", ".safetensors"}
_PICKLES = {".bin", ".ckpt", ".dill", ".joblib", ".npy", ".npz", ".pkl", ".pickle", ".pt", ".pth"}
_NUMBERS = "biuf"


def stated_config(folder: Path, kind: str) -> Mapping[str, Any]:
    """The configuration of the artifact in a folder, without its arrays; its digest is compared, and those of other files are not.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it is of another kind, changed, or cut off.
    """
    config: Mapping[str, Any] = stated_by(folder, kind, folder)["config"]
    return config


def stated_by(folder: Path, kind: str | None, root: Path) -> dict[str, Any]:
    """Content of ``config.json`` after its own digest was found to be right."""
    path = folder / CONFIG
    if not os.path.isfile(path):
        there = listing(sorted(p.name for p in folder.iterdir())) if os.path.isdir(folder) else "no such folder"
        raise FileNotFoundError(f"{folder} holds no {kind or 'part'}: {CONFIG} is needed (found: {there}).")
    check_link(path, root)
    stated = parse_json(read_bytes(path, LARGEST_JSON), str(path))
    try:
        actual = digest(stated) if isinstance(stated, dict) else None
    except ValueError as error:
        raise ValueError(f"{path} is not readable JSON ({error}). {REMEDY}") from error
    if not isinstance(stated, dict) or stated.get("format") != FORMAT:
        raise ValueError(f"{path} was not written by spatialwhisperer.")
    if stated.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {stated.get('format_version')!r} and this version of the package reads "
            f"{FORMAT_VERSION}. Save it again with the version that wrote it last ({stated.get('written_by')!r}), or install "
            "that version."
        )
    changed = {"lacks": _KEYS - set(stated), "has the unknown": set(stated) - _KEYS}
    if any(changed.values()):
        what = " and ".join(f"{verb} {listing(sorted(keys))}" for verb, keys in changed.items() if keys)
        raise ValueError(f"{path} is not the file that was written: it {what}. {REMEDY}")
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


def check_listing(folder: Path, stated: Mapping[str, Any], *, outermost: bool) -> None:
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


def in_the_way(folder: Path, listed: Collection[str]) -> list[str]:
    """Names in a folder that are refused beside an artifact: what could be taken for a part of it, and pickles.

    Parameters
    ----------
    folder
        A folder, with or without an artifact.
    listed
        Names that belong to the artifact that is there.
    """
    refused = {path.name for path in _readable(folder)}
    refused |= {path.name for path in folder.iterdir() if _is_pickle(path.name) or _pickles_in(path)}
    return sorted(refused.difference(listed))


def _readable(folder: Path) -> Iterator[Path]:
    """Files and folders that could be taken for part of the artifact.

    Of folders these are other artifacts. What else lies in a folder that is not listed is never read.
    """
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.suffix.lower() in _READ if os.path.isfile(path) else kind_of(path) is not None:
            yield path


def verified(path: Path, expected: object, root: Path) -> bytes:
    """Bytes of a file whose checksum is the expected one."""
    check_link(path, root)
    content = read_bytes(path)
    actual = sha256(content)
    if actual != expected:
        raise ValueError(
            f"{path} is not the file that was written with {path.parent}: it is cut off or changed ({len(content)} bytes, "
            f"sha256 {actual[:12]}… and not {str(expected)[:12]}…). {REMEDY}"
        )
    return content


def check_link(path: Path, root: Path) -> None:
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


def identity(folder: Path) -> tuple[int, ...] | None:
    """Tell the outermost configuration from another one that takes its place; ``None`` where there is none."""
    try:
        found = os.stat(folder / CONFIG)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def tensors_of(path: Path, content: bytes) -> dict[str, np.ndarray]:
    """Arrays of a safetensors file, by name."""
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


def refuse_pickles(folder: Path) -> None:
    """Refuse a folder with files that can run code when they are opened."""
    pickles = _pickles_in(folder)
    if pickles:
        raise ValueError(
            f"{folder} holds files that can run code when opened ({listing(pickles, 4)}). Only JSON and safetensors are read; "
            "remove the others if you trust the rest."
        )


def _pickles_in(folder: Path) -> list[str]:
    names = (name for _, inner, outer in os.walk(folder) for name in (*inner, *outer))
    return sorted(filter(_is_pickle, names))


def _is_pickle(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in _PICKLES
