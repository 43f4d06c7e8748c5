"""A folder of JSON and safetensors: written whole or not at all, verified before anything is built, never unpickled.

Everything that the package stores is an `Artifact`: a model, its gene encoder, its vocabulary. One folder holds

- ``config.json``: what it is, plain values, the SHA-256 of every other file, and a digest over all of this;
- ``model.safetensors``: arrays;
- further files as they are, such as a tokenizer's;
- one subfolder per part, an artifact again, whose digest stands in the ``config.json`` of the whole.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from spatialwhisperer._artifact.carrying import carry_over
from spatialwhisperer._artifact.layout import CONFIG, FORMAT, FORMAT_VERSION, TENSORS, digest, kind_of, sha256
from spatialwhisperer._artifact.verify import (
    check_link,
    check_listing,
    identity,
    refuse_pickles,
    stated_by,
    tensors_of,
    verified,
)
from spatialwhisperer._storage.folders import beside, make_durable, present, put, sweep
from spatialwhisperer._storage.permissions import as_usual, take_over
from spatialwhisperer._storage.schema import to_plain
from spatialwhisperer._storage.untrusted import REMEDY

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

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

        Files in the folder that are no part of that artifact stay, except texts of the same names as ``notes``.

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
            If something else lies there, or a file that is in the way.
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
            as_usual(temporary, [temporary])
            take_over(folder, temporary)
            carry_over(folder, temporary, replaced=notes)
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
        as_usual(folder, written)
        return sha

    def _write(self, folder: Path, written: list[Path]) -> str:
        """Write the files, the configuration last; what was written is added to a list."""
        from safetensors.numpy import save_file

        sums: dict[str, str] = {}
        if self.tensors:
            import numpy as np

            save_file({k: np.asarray(v, order="C") for k, v in sorted(self.tensors.items())}, folder / TENSORS)
            sums[TENSORS] = sha256((folder / TENSORS).read_bytes())
        for name, content in sorted(self.files.items()):
            (folder / name).write_bytes(content)
            sums[name] = sha256(content)
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
        asked = Path(folder).expanduser()
        for again in (True, True, False):
            folder = present(asked, CONFIG) or asked
            begun = identity(folder)
            try:
                found = cls._read_once(folder, kind)
                # one that is whole in itself is right, though another took its place meanwhile
                if not again or identity(folder) == begun:
                    return found
            except (OSError, ValueError) as error:
                # an old folder that was moved away is being removed once the new one is in its place
                settled = identity(folder) == begun and folder == (present(asked, CONFIG) or asked)
                if settled and (begun is not None or identity(present(asked, CONFIG) or asked) is None):
                    raise
                if not again:
                    raise ValueError(
                        f"{asked} is replaced again and again while it is read. Read it when whatever writes to it has finished."
                    ) from error
        raise ValueError(f"{asked} could not be read.")

    @classmethod
    def _read_once(cls, folder: Path, kind: str) -> Artifact:
        stated = stated_by(folder, kind, folder)
        refuse_pickles(folder)
        return cls._read(folder, stated, folder)

    @classmethod
    def _read(cls, folder: Path, stated: Mapping[str, Any], root: Path) -> Artifact:
        check_listing(folder, stated, outermost=folder == root)
        contents = {name: verified(folder / name, sha, root) for name, sha in stated["files"].items()}
        tensors = tensors_of(folder / TENSORS, contents.pop(TENSORS)) if TENSORS in contents else {}
        parts = {}
        for name, sha in stated["parts"].items():
            check_link(folder / name, root)
            inner = stated_by(folder / name, None, root)
            if inner["digest"] != sha:
                raise ValueError(f"{folder / name} is not the folder that was written with {folder}. {REMEDY}")
            parts[name] = cls._read(folder / name, inner, root)
        return cls(stated["kind"], stated["config"], tensors, parts, contents)


def _holds_another(folder: Path, kind: str) -> bool:
    """Whether something else than an artifact of this kind lies in the place of a folder."""
    try:
        if os.path.isdir(folder) and not any(folder.iterdir()):
            return False
    except FileNotFoundError:
        return False
    return os.path.exists(folder) and kind_of(folder) != kind
