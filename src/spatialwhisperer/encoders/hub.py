"""Files of the Hugging Face hub: what is allowed before a download, which files it takes, and what to say where it fails."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from spatialwhisperer._messages import inform, listing
from spatialwhisperer._settings import settings
from spatialwhisperer.encoders.hub_record import files_of_commit, note_files, say_if_moved

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spatialwhisperer.encoders.spec import EncoderSpec

HUB = "https://huggingface.co/"
WAIT_SECONDS = 5.0
"""How long a connection may take."""


@dataclass(frozen=True)
class Wanted:
    """Which files of a repository an encoder needs. Patterns do not reach into folders that they do not name.

    Attributes
    ----------
    weights
        Patterns of the weights; the files of the first one that matches any are taken, and the others are not.
    others
        Patterns of further files; all that match are taken.
    """

    weights: tuple[str, ...] = ("*.safetensors", "pytorch_model.bin")
    others: tuple[str, ...] = ("config.json",)

    def weights_in(self, names: Iterable[str]) -> list[str]:
        """Names of the files with weights."""
        names = sorted(names)
        found = ([n for n in names if _matches(n, pattern)] for pattern in self.weights)
        return next((files for files in found if files), [])

    def chosen(self, names: Iterable[str]) -> list[str]:
        """Names of all files that are taken."""
        names = sorted(names)
        index = [f"{pattern}.index.json" for pattern in self.weights]
        others = [n for n in names if any(_matches(n, pattern) for pattern in (*self.others, *index))]
        return [*self.weights_in(names), *others]


def check_access(spec: EncoderSpec) -> None:
    """Refuse weights that must be requested where no token of the hub is set; no network is needed to know.

    Raises
    ------
    FileNotFoundError
        If there is no token.
    """
    if not spec.gated:
        return
    from huggingface_hub import get_token

    if get_token() is None:
        raise FileNotFoundError(
            f"Encoder {spec.name!r} is gated: its weights (licence: {spec.licence}) are given to those who ask for them. Accept the "
            f"conditions at {spec.url}, then set the environment variable HF_TOKEN to a token of {HUB}settings/tokens "
            f"(or run `hf auth login`). {local_copy(spec)}, or take an encoder that is not gated: sw.models.list_encoders({spec.modality!r})."
        )


def announce(spec: EncoderSpec) -> None:
    """Say under which terms weights come, before they are downloaded."""
    use = {True: "commercial use: yes", False: "commercial use: no", None: "commercial use: not known"}[spec.commercial]
    gate = "gated: yes, access is granted by the authors" if spec.gated else "gated: no"
    inform(f"downloading the weights of {spec.name!r} from {spec.url} (licence: {spec.licence}; {use}; {gate}).")


def fetch(spec: EncoderSpec, repository: str, wanted: Wanted, *, revision: str | None = None) -> Path:
    """Folder with the files of a repository: what the cache of the hub holds, else a download. Its name is the commit.

    Parameters
    ----------
    spec
        Encoder whose files they are.
    repository
        Id on the hub.
    wanted
        Which files.
    revision
        Revision; ``None`` takes the one that the cache holds, else the latest, and warns where it is not the one that was opened
        first on this machine.

    Raises
    ------
    FileNotFoundError
        If the files are not there and cannot be fetched; the message says what would help.
    ValueError
        If the id is not valid, or the repository holds no weights that are read.
    """
    if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repository) is None:
        raise ValueError(f"{repository!r} is not a valid hub id; one is like 'owner/model'.")
    folder = in_cache(repository, wanted, revision) or _download(spec, repository, wanted, revision)
    if revision is None:
        pin = f"sw.models.open_encoder({spec.name!r}, {spec.modality!r}, revision='{{commit}}')"
        say_if_moved(f"Encoder {spec.name!r}", repository, folder.name, pin)
    return folder


def _download(spec: EncoderSpec, repository: str, wanted: Wanted, revision: str | None) -> Path:
    check_access(spec)
    check_network(spec)
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        info = HfApi().model_info(repository, revision=revision)
        names = [file.rfilename for file in info.siblings or []]
        if not wanted.weights_in(names):
            raise _NoWeights(
                f"{repository} holds no weights that are read ({listing(wanted.weights)}); it has {listing(names, 8)}."
            )
        announce(spec)
        note_files(repository, str(info.sha), names)
        return Path(snapshot_download(repository, revision=revision, allow_patterns=wanted.chosen(names)))
    except HFValidationError as error:
        raise ValueError(f"{repository!r} is not a valid hub id ({first_line(error)}).") from error
    except _NoWeights:
        raise
    # a connection that breaks raises errors of whichever HTTP library the client has, which share no class
    except Exception as error:
        raise FileNotFoundError(failed(spec, error)) from error


class _NoWeights(ValueError):
    """A repository holds nothing that is read."""


def in_cache(repository: str, wanted: Wanted, revision: str | None = None) -> Path | None:
    """Folder of a repository in the cache of the hub; ``None`` where files are missing, as after a download that was cut off."""
    from huggingface_hub import constants

    # the client of the hub takes a second to import, and tells a whole download from half of one no better
    room = Path(constants.HF_HUB_CACHE) / ("models--" + repository.replace("/", "--"))
    reference = room / "refs" / (revision or "main")
    commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else revision
    folder = room / "snapshots" / commit if commit else None
    if folder is None or not folder.is_dir():
        return None
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    there = set(wanted.weights_in(names))
    known = files_of_commit(repository, folder.name)
    needed = _shards(folder, names) | set(wanted.chosen(known or []))
    return folder if there and needed <= set(names) else None


def check_network(spec: EncoderSpec) -> None:
    """Refuse a download that the settings forbid, or that cannot be made now.

    Raises
    ------
    FileNotFoundError
        If there is no way to the hub.
    """
    why, then = "the hub cannot be reached", "connect to the network."
    if settings.offline:
        why, then = "the settings say offline", "set sw.settings.offline = False."
    elif hub_answers():
        return
    raise FileNotFoundError(
        f"Encoder {spec.name!r} needs weights (licence: {spec.licence}), none are cached, and {why}. {local_copy(spec)}, take "
        f"encoder='stain_texture', which has no weights, or {then}"
    )


def failed(spec: EncoderSpec, error: Exception) -> str:
    """What to say of a download that failed."""
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    page = spec.url or HUB
    if isinstance(error, RevisionNotFoundError):
        hint = f"The revision is gone from {page}; take another one. "
    elif spec.gated or type(error).__name__ == "GatedRepoError":
        hint = (
            f"Request access at {page}: accept its conditions with the account whose token HF_TOKEN holds, "
            "or log in with `hf auth login`. "
        )
    elif isinstance(error, RepositoryNotFoundError):
        hint = f"Check that {page} exists; a private one needs HF_TOKEN. "
    else:
        hint = ""
    return (
        f"The weights of {spec.name!r} (licence: {spec.licence}) could not be downloaded: {first_line(error)} {hint}"
        f"{local_copy(spec)}."
    )


def local_copy(spec: EncoderSpec) -> str:
    """How to open an encoder from files that are here."""
    return f"With a local copy: sw.models.open_encoder({spec.name!r}, {spec.modality!r}, weights='folder/with/model.safetensors')"


def folder_digest(folder: Path) -> str:
    """SHA-256 over the weights and configurations in a folder, wherever it lies."""
    sha = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors", ".bin")):
        with path.open("rb") as file:
            sha.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return sha.hexdigest()


def first_line(error: Exception) -> str:
    """First line of what an error says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def hub_answers() -> bool:
    """Whether a connection to the hub, or to the proxy in front of it, can be made now: its client tries for most of a minute."""
    from huggingface_hub import constants

    place = urlsplit(constants.ENDPOINT)
    if place.hostname is None:
        return True  # its client knows what to say of an odd address
    proxy = None if proxy_bypass(place.hostname) else getproxies().get(place.scheme)
    if proxy is not None:
        place = urlsplit(proxy if "//" in proxy else f"//{proxy}", scheme="http")
    try:
        port = place.port or (443 if place.scheme == "https" else 80)
        with socket.create_connection((place.hostname or "", port), timeout=WAIT_SECONDS):
            return True
    except (OSError, ValueError):
        return False


def _matches(name: str, pattern: str) -> bool:
    return name.count("/") == pattern.count("/") and fnmatch.fnmatchcase(name, pattern)


def _shards(folder: Path, names: Iterable[str]) -> set[str]:
    """Files that the indices of weights in several files name."""
    out: set[str] = set()
    for name in names:
        if name.endswith(".index.json"):
            held = json.loads((folder / name).read_text(encoding="utf-8")).get("weight_map", {})
            out |= {str(file) for file in held.values()}
    return out
