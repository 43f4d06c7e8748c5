"""What makes a training run the same run: a digest of its data and every argument that shapes its numbers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._storage.schema import to_plain
from spatialwhisperer.training.resuming.files import leftovers, write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from spatialwhisperer.models.presets.recipe import Recipe

NAME = "run.json"
"""File of the identity in the folder of a run."""

_FORMAT, _VERSION = "spatialwhisperer run", 1
_LONGEST = 100
_ABSENT = "nothing"
_REMEDY = "Train in another folder, or remove this one and train with resume=False."


@dataclass(frozen=True)
class RunIdentity:
    """Everything that shapes the numbers of a run.

    Attributes
    ----------
    parts
        Plain values by name, in groups: data as fingerprints, arguments as they are.
    remarks
        What does not tell runs apart, such as versions of packages.
    """

    parts: Mapping[str, Any]
    remarks: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 of the parts."""
        return _sha256(_canonical(self.parts))

    def differences(self, earlier: RunIdentity) -> list[str]:
        """What is not as in an earlier run, one text for each value: its name, the earlier value, and this one."""
        old, new = dict(_flat(_plain(earlier.parts))), dict(_flat(_plain(self.parts)))
        return [
            f"{name}: {_changed(old.get(name, _ABSENT), new.get(name, _ABSENT))}"
            for name in dict.fromkeys([*new, *old])
            if old.get(name, _ABSENT) != new.get(name, _ABSENT)
        ]

    def write(self, folder: Path) -> None:
        """Write to the folder of a run."""
        stated = {
            "format": _FORMAT,
            "format_version": _VERSION,
            "digest": self.digest,
            "identity": _plain(self.parts),
            "remarks": _plain(self.remarks),
        }
        text = json.dumps(stated, indent=1, ensure_ascii=False)
        write_whole(folder / NAME, (text + "\n").encode())

    @classmethod
    def read(cls, folder: Path) -> RunIdentity | None:
        """Read from the folder of a run; ``None`` where there is none.

        Raises
        ------
        ValueError
            If the file was changed.
        """
        path = folder / NAME
        if not path.is_file():
            return None
        try:
            stated = json.loads(path.read_bytes())
            if (stated["format"], stated["format_version"]) != (_FORMAT, _VERSION):
                raise ValueError(f"format {stated['format']!r}, version {stated['format_version']!r}")
            found = cls(dict(stated["identity"]), dict(stated["remarks"]))
            if found.digest != stated["digest"]:
                raise ValueError("its digest does not fit its content")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"{path} is not the file that was written with the run ({error}). {_REMEDY}") from error
        return found

    def check_resumed(self, folder: Path, *, whole: bool = True) -> None:
        """Refuse to continue another run than this one. A folder in which no run has begun is accepted.

        Parameters
        ----------
        folder
            Folder of the run.
        whole
            Whether this identity is whole. If it is not, only the groups that it has are compared: the arguments are known before the
            features are computed, which may take long.

        Raises
        ------
        ValueError
            If the folder holds another run, or a run of which is not known what it was trained on.
        """
        earlier = RunIdentity.read(folder)
        if earlier is None:
            if any((folder / name).exists() for name in ("phases", "model")):
                raise ValueError(
                    f"{folder} holds a run without {NAME}, so that nobody can tell whether it was trained on the same data with the same "
                    f"arguments. {_REMEDY}"
                )
            return
        if not whole:
            earlier = RunIdentity({name: value for name, value in earlier.parts.items() if name in self.parts})
        changed = self.differences(earlier)
        if changed:
            lines = "".join(f"\n- {text}" for text in changed) + (
                "" if whole else "\n(The data were not compared yet.)"
            )
            raise ValueError(
                f"{folder} holds another run, and resume=True continues the same run only. What differs:{lines}\nGive what the run was "
                f"begun with. To train with other values: {_REMEDY[0].lower()}{_REMEDY[1:]}"
            )


def check_epochs(before: int, now: int, recipe: Recipe, *, several_phases: bool) -> None:
    """Refuse another number of epochs where the steps that were made would have been other steps.

    Parameters
    ----------
    before, now
        Number of epochs when the checkpoint was saved, and now.
    recipe
        Learning rates and their schedule.
    several_phases
        Whether other phases precede or follow this one.

    Raises
    ------
    ValueError
        If a run with the new number of epochs from the start would not be the same.
    """
    if before == now:
        return
    found = f"The run was begun with {before} epochs, and {now} are asked for now."
    remedy = f"Give max_epochs={before}, or train in another folder."
    if now < before:
        raise ValueError(f"{found} A run cannot be continued to fewer epochs. {remedy}")
    if recipe.schedule != "constant" or recipe.warmup > 0:
        raise ValueError(
            f"{found} The learning rate of every step depends on the number of epochs (schedule={recipe.schedule!r}, "
            f"warmup={recipe.warmup:g}), so the steps so far are not those of the longer run. {remedy}"
        )
    if several_phases:
        raise ValueError(
            f"{found} The schedule is sequential, and a longer first phase would change what the second starts from. {remedy}"
        )


def fingerprint(x: Any) -> str:
    """Shape, type and SHA-256 of an array, a sparse matrix, a list of texts, tiles that are not read yet, or ``None``."""
    if x is None:
        return "none"
    if hasattr(x, "digest"):
        return f"{_shape(x.shape)} {x.dtype}, sha256 of the tiles {x.digest()}"
    if hasattr(x, "tocsr"):
        x = x.tocsr()
        content = [np.asarray(part) for part in (x.data, x.indices.astype(np.int64), x.indptr.astype(np.int64))]
        return f"{_shape(x.shape)} sparse {x.dtype}, sha256 {_sha256(*map(_bytes, content))}"
    if isinstance(x, list | tuple):
        return f"{len(x)} values, sha256 {_sha256(_canonical(x))}"
    x = np.asarray(x)
    if x.dtype == object:
        return f"{_shape(x.shape)} values, sha256 {_sha256(_canonical(x))}"
    return f"{_shape(x.shape)} {x.dtype}, sha256 {_sha256(_bytes(x))}"


def sweep_run(folder: Path) -> None:
    """Remove what killed runs left in the folder of a run: files and models without their final name."""
    import shutil

    for path in leftovers(folder):
        path.unlink(missing_ok=True)
    # a model is written to a folder of such a name, and then renamed
    for path in folder.glob(".model-*"):
        shutil.rmtree(path, ignore_errors=True)


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


def _bytes(x: np.ndarray) -> memoryview:
    return memoryview(np.ascontiguousarray(x)).cast("B") if x.size else memoryview(b"")


def _sha256(*contents: Any) -> str:
    sha = hashlib.sha256()
    for content in contents:
        sha.update(content)
    return sha.hexdigest()


def _plain(value: Any) -> Any:
    """Plain values as they are read back from JSON."""
    # an object that JSON does not have counts by its type: its address would differ in every process
    return json.loads(json.dumps(to_plain(value), default=lambda x: type(x).__qualname__))


def _canonical(value: Any) -> bytes:
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":")).encode()


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Values by their dotted names, as JSON."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, json.dumps(value, ensure_ascii=False)


def _changed(old: str, new: str) -> str:
    """Both values, with the parts left out that are too long to read."""
    start = 0
    while len(old) > _LONGEST and len(new) > _LONGEST and old[: start + 20] == new[: start + 20]:
        start += 20
    return f"{_short(old, start)} before, {_short(new, start)} now"


def _short(text: str, start: int) -> str:
    cut = text[start : start + _LONGEST]
    return ("…" if start else "") + cut + ("…" if start + _LONGEST < len(text) else "")
