"""Models on the Hugging Face hub: fetching one, and publishing one in a single commit."""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatialwhisperer._artifact.layout import CONFIG, TENSORS, kind_of, names_listed
from spatialwhisperer._messages import inform, listing
from spatialwhisperer._settings import settings
from spatialwhisperer.encoders.hub import HUB, first_line, hub_answers
from spatialwhisperer.encoders.hub_record import say_if_moved
from spatialwhisperer.encoders.text.files import TOKENIZER_FILES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from huggingface_hub import HfApi

README = "README.md"
_PATTERNS = (CONFIG, TENSORS, f"*/{CONFIG}", f"*/{TENSORS}", *(f"*_encoder/*{suffix}" for suffix in TOKENIZER_FILES))
_BESIDE = re.compile(r"\.gitattributes|\.gitignore|(README|LICEN[CS]E)(\.\w+)?", re.IGNORECASE)
_ID = re.compile(r"[\w.-]+/[\w.-]+")
_ADDRESS = re.compile(
    r"(?:hf://|(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/)?(?P<id>[\w.-]+/[\w.-]+)"
    r"(?:(?:@|/(?:tree|blob|resolve|commit)/)(?P<revision>[\w.-]+))?(?:/.*)?"
)
_OPTIONS = ("revision", "token", "cache_dir", "force_download", "local_files_only")
_TOKEN = f"Set the environment variable HF_TOKEN to a token of {HUB}settings/tokens (or run `hf auth login`)"


def check_options(names: Iterable[str]) -> None:
    """Refuse options that are not those of the hub: a revision that is written wrong would open another model without a word.

    Raises
    ------
    TypeError
        If there is one.
    """
    for name in names:
        if name not in _OPTIONS:
            near = get_close_matches(name, _OPTIONS, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise TypeError(
                f"There is no option {name!r} to open a model with.{hint} Those of the hub are {listing(_OPTIONS)}."
            )


def refuse_revision(source: object, hub: Mapping[str, Any]) -> None:
    """Refuse a revision of a model that is on this machine and has none.

    Raises
    ------
    ValueError
        If one was asked for.
    """
    if hub.get("revision") is not None:
        raise ValueError(
            f"revision={hub['revision']!r} names a commit of the hub, and {str(source)!r} is on this machine, where there is one "
            "version of it. Leave revision out, or rename the folder or file if a model of the hub is meant."
        )


def _check_id(text: str) -> None:
    """Refuse what is no id of the hub, before it is asked.

    Raises
    ------
    ValueError
        If it is none; the text names the id of an address.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    why = ""
    try:
        validate_repo_id(text)
        if _ID.fullmatch(text) is not None:
            return
    except HFValidationError as error:
        why = f" ({first_line(error)})"
    meant = _ADDRESS.fullmatch(text)
    hint = f" Did you mean {meant['id']!r}" if meant is not None and ("@" in text or "://" in text) else ""
    if meant is not None and hint:
        hint += f", revision={meant['revision']!r}?" if meant["revision"] else "?"
    raise ValueError(f"{text!r} is not a valid hub id; one is like 'owner/model'.{hint or why}")


def fetch_model(model_id: str, **hub: Any) -> Path:
    """Folder of a model of the hub: only files of the kinds that a model has are downloaded.

    Without ``revision`` it is the latest one, or what the cache holds where the hub cannot be reached. A warning says where that is not the
    commit that was opened first on this machine.

    Parameters
    ----------
    model_id
        Id on the hub.
    **hub
        ``revision``, ``token``, ``cache_dir``, ``force_download``, ``local_files_only``.

    Raises
    ------
    FileNotFoundError
        If there is no such model, it may not be read, or it cannot be reached and is not in the cache whole.
    ValueError
        If the id is not valid.
    """
    _check_id(model_id)
    options = {k: hub[k] for k in _OPTIONS if k != "local_files_only" and hub.get(k) is not None}
    offline = settings.offline if hub.get("local_files_only") is None else bool(hub["local_files_only"])
    reached = not offline and hub_answers()
    try:
        folder = _snapshot(model_id, local_files_only=not reached, **options)
    # the errors of whichever HTTP library the client has share no class
    except Exception as error:
        raise FileNotFoundError(_why_not(model_id, error, offline=offline, reached=reached)) from error
    commit = folder.name if folder.parent.name == "snapshots" else None
    if not reached and not offline:
        inform(f"the hub cannot be reached; {model_id} is opened from the cache (commit {commit}).")
    if commit is not None and options.get("revision") is None:
        say_if_moved(f"Model {model_id!r}", model_id, commit, f"sw.models.load({model_id!r}, revision='{{commit}}')")
    return folder


def _snapshot(model_id: str, **options: Any) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(model_id, allow_patterns=list(_PATTERNS), **options))


def _why_not(model_id: str, error: Exception, *, offline: bool, reached: bool) -> str:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    start = f"{model_id!r} is not a folder here, and the hub did not give a model of that name"
    otherwise = f"Or fetch it on another machine (hf download {model_id} --local-dir FOLDER) and open the folder."
    if isinstance(error, GatedRepoError):
        return f"{model_id} is gated. Accept its terms at {HUB}{model_id}. {_TOKEN} of the account that accepted them. {otherwise}"
    if isinstance(error, RevisionNotFoundError):
        return f"{start}: it has no such revision ({first_line(error)}). {HUB}{model_id}/commits/main lists them."
    if isinstance(error, RepositoryNotFoundError):
        return f"{start}: there is none, or it is private. For a private one: {_TOKEN}."
    if not reached:
        why = "the settings say offline" if offline else "the hub cannot be reached"
        return f"{start}: it is not in the cache whole, and {why}. Connect and call again. {otherwise}"
    return f"{start}: {first_line(error)} Call again: what has come is not downloaded a second time. {otherwise}"


# --------------------------------------------------------------------------------------------- publishing


def publish(
    repository: str,
    write: Callable[[Path], object],
    *,
    message: str,
    private: bool | None = None,
    token: str | None = None,
    branch: str | None = None,
    create_pr: bool = False,
) -> str:
    """Write a model to a repository of the hub in one commit, which replaces the model that is there.

    Parameters
    ----------
    repository
        Id on the hub; it is made where there is none.
    write
        Function that writes the files of the model into a folder.
    message
        Message of the commit.
    private
        Whether a repository that is made is private; ``None`` leaves that to the hub.
    token
        Token with the right to write; ``None`` takes that of the machine.
    branch
        Branch; ``None`` takes the main one.
    create_pr
        Open a pull request instead of changing the branch.

    Returns
    -------
    Address of the commit.

    Raises
    ------
    ValueError
        If the id is not valid.
    FileExistsError
        If the repository holds something else than a model of this package.
    OSError
        If the hub cannot be reached, or does not take it; nothing has changed there then.
    """
    _check_id(repository)
    if settings.offline:
        raise OSError("A model is not sent while the settings say offline. Set sw.settings.offline = False.")
    if not hub_answers():
        raise OSError("The hub cannot be reached, and nothing was sent. Connect to the network and call again.")
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        folder.mkdir()
        write(folder)
        try:
            return _commit(repository, folder, message, private, token, branch, create_pr)
        except FileExistsError:
            raise
        except Exception as error:
            raise OSError(_why_not_sent(repository, error)) from error


def _commit(
    repository: str,
    folder: Path,
    message: str,
    private: bool | None,
    token: str | None,
    branch: str | None,
    create_pr: bool,
) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi(token=token)
    api.create_repo(repository, private=private, exist_ok=True)
    if branch is not None:
        api.create_branch(repository, branch=branch, exist_ok=True)
    info = api.model_info(repository, revision=branch)
    there = {file.rfilename for file in info.siblings or []}
    # parts of a model that was there before would make the new one unreadable
    old = _files_of_model(api, repository, info.sha, there)
    mine = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    others = sorted((there if CONFIG not in there else there & mine.keys()) - old)
    if others := [name for name in others if _BESIDE.fullmatch(name) is None]:
        raise FileExistsError(
            f"{repository} holds {listing(others, 4)}, which belongs to no model of spatialwhisperer; choose another name, or remove "
            "it from the repository."
        )
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        *(CommitOperationDelete(path_in_repo=name) for name in sorted(old - mine.keys())),
        *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in mine.items()),
    ]
    done = api.create_commit(
        repository,
        [*operations],
        commit_message=message,
        revision=branch,
        create_pr=create_pr,
        # another commit that was made meanwhile is an error, and not mixed with this one
        parent_commit=None if create_pr else info.sha,
    )
    return str(done.pr_url or done.commit_url)


def _files_of_model(
    api: HfApi, repository: str, commit: str | None, there: Collection[str], inside: str = ""
) -> set[str]:
    """Paths of what the configuration of a model in a repository lists, with those of its parts; empty where there is none.

    Raises
    ------
    FileExistsError
        If the configuration is not one of a model of this package.
    """
    path = f"{inside}{CONFIG}"
    if path not in there:
        return set()
    held = Path(api.hf_hub_download(repository, path, revision=commit))
    kind = kind_of(held.parent)
    if kind is None or (not inside and kind != "model"):
        raise FileExistsError(
            f"{repository} holds another {path}, which spatialwhisperer did not write; choose another name."
        )
    files, parts = names_listed(held.parent)
    listed = {path, *(f"{inside}{name}" for name in files)} & {*there}
    return listed.union(*(_files_of_model(api, repository, commit, there, f"{inside}{part}/") for part in parts))


def _why_not_sent(repository: str, error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"The hub does not let this token write to {repository} ({first_line(error)}) {_TOKEN} that may write there."
    if status == 412:
        return f"{repository} was changed by somebody else at this moment, and nothing was sent. Look at it, and call again."
    return f"The hub did not take the model ({first_line(error)}), and {repository} is as it was. Call again."
