"""Publishing a model and opening it again, against a hub on this machine: what comes back, what half of it is, what moved."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("transformers")
import torch

import spatialwhisperer as sw
from spatialwhisperer.encoders.hub_record import record_file
from spatialwhisperer.encoders.recipe import FeatureRecipe
from spatialwhisperer.models import Whisperer
from spatialwhisperer.models.configuration.model import HeadConfig, ModalityConfig, ModelConfig
from tests.encoders.hub_mirror import set_token
from tests.loopback_hub import files_in

if TYPE_CHECKING:
    from pathlib import Path

    from tests.loopback_hub import LoopbackHub

NAME = "owner/name"
pytestmark = pytest.mark.filterwarnings("ignore:This model holds weights")


def small(seed: int = 0) -> Whisperer:
    """A model of two modalities without encoders."""
    recipes = {"image": FeatureRecipe(None, "X_a"), "gene": FeatureRecipe(None, "X_b")}
    modalities = {name: ModalityConfig(recipe, 6, HeadConfig("linear", 6)) for name, recipe in recipes.items()}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Whisperer(ModelConfig(4, modalities, labels=("fat",))).eval()


def same(a: Whisperer, b: Whisperer) -> bool:
    one, two = a.state_dict(), b.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one) and a.config == b.config


@pytest.mark.parametrize("name", ["embedded", "trained text", "trained image"])
def test_what_is_published_comes_back_to_the_last_bit(hub: LoopbackHub, folders: dict[str, Path], name: str) -> None:
    model = Whisperer.load(folders[name])
    address = model.push_to_hub(NAME)
    served = hub.repositories[NAME]
    assert address == f"{hub.address}/{NAME}/commit/{served.head}"
    # the repository was made, and everything came in one commit
    assert len(served.commits) == 2
    opened = sw.models.load(NAME)
    assert same(model, opened)
    assert opened.folder is not None
    assert opened.folder.name == served.head
    again = model.save(hub_folder(hub, "again"))
    for path, content in files_in(again).items():
        if path != "README.md":
            assert served.files[path] == content, path
    # and from the cache without a network
    before = len(hub.asked)
    with sw.settings.override(offline=True):
        assert same(model, sw.models.load(NAME))
    assert hub.asked[before:] == []


def hub_folder(hub: LoopbackHub, name: str) -> Path:  # noqa: ARG001
    return sw.settings.cache_dir / name


def test_a_trained_encoder_computes_the_same(hub: LoopbackHub, folders: dict[str, Path]) -> None:  # noqa: ARG001
    model = Whisperer.load(folders["trained image"])
    model.push_to_hub(NAME)
    opened = sw.models.load(NAME)
    tiles = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)
    np.testing.assert_array_equal(model.project("image", tiles), opened.project("image", tiles))


def test_the_card_goes_with_it_and_the_hub_checks_it(hub: LoopbackHub) -> None:
    model = small()
    model.push_to_hub(NAME, licence="cc-by-4.0")
    card = hub.repositories[NAME].files["README.md"].decode()
    assert card == str(model.generate_model_card(address=NAME, licence="cc-by-4.0"))
    assert hub.checked_cards == [card]
    assert f'sw.models.load("{NAME}")' in card
    # it is not fetched to open the model
    before = len(hub.asked)
    sw.models.load(NAME)
    assert not [one for one in hub.asked[before:] if "README" in one]


def test_a_model_with_fewer_parts_takes_the_place_of_one_with_more(hub: LoopbackHub, folders: dict[str, Path]) -> None:
    Whisperer.load(folders["embedded"]).push_to_hub(NAME)
    served = hub.repositories[NAME]
    served.commit({**served.files, "figure.png": b"drawn by hand"})
    model = small()
    model.push_to_hub(NAME)
    assert served.files.keys() == {".gitattributes", "figure.png", "README.md", "config.json", "model.safetensors"}
    assert same(model, sw.models.load(NAME))


def test_somebody_who_was_faster_is_not_overwritten(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi

    small().push_to_hub(NAME)
    served = hub.repositories[NAME]
    commit = HfApi.create_commit

    def late(self: HfApi, *arguments: Any, **options: Any) -> Any:
        served.commit({**served.files, "theirs.txt": b"1"})
        return commit(self, *arguments, **options)

    monkeypatch.setattr(HfApi, "create_commit", late)
    with pytest.raises(OSError, match="was changed by somebody else at this moment, and nothing was sent"):
        small(1).push_to_hub(NAME)
    assert "theirs.txt" in served.files


@pytest.mark.parametrize("token", [None, "another"])
def test_without_the_right_to_write_it_says_what_to_set(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    set_token(monkeypatch, token)
    with pytest.raises(OSError, match="does not let this token write to owner/name.*HF_TOKEN"):
        small().push_to_hub(NAME)
    assert hub.repositories == {}
    small().push_to_hub(NAME, token="granted", private=True)
    assert hub.repositories[NAME].private


def test_nothing_is_sent_offline_nor_to_an_odd_address(hub: LoopbackHub) -> None:
    with sw.settings.override(offline=True), pytest.raises(OSError, match="settings say offline"):
        small().push_to_hub(NAME)
    for wrong in ("name", "a/b/c", "owner/na me", "owner/..", "owner/name.git", f"owner/{'x' * 120}"):
        with pytest.raises(ValueError, match="is not a valid hub id"):
            small().push_to_hub(wrong)
    assert hub.asked == []


# --------------------------------------------------------------------------------------------- half of it


def test_a_download_that_was_killed_is_not_taken_for_whole_and_is_finished(
    hub: LoopbackHub, folders: dict[str, Path]
) -> None:
    model = Whisperer.load(folders["embedded"])
    model.push_to_hub(NAME)
    folder = sw.models.load(NAME).folder
    assert folder is not None
    # as a process leaves it that was killed between two files, and in the middle of one
    half = [folder / "vocabulary" / "model.safetensors", folder / "config.json"]
    for path in half:
        blob = path.resolve()
        blob.with_name(blob.name + ".incomplete").write_bytes(blob.read_bytes()[:10])
        path.unlink()
        blob.unlink()
    with sw.settings.override(offline=True), pytest.raises((FileNotFoundError, ValueError), match="whole|lacks"):
        sw.models.load(NAME)
    before = len(hub.asked)
    assert same(model, sw.models.load(NAME))
    fetched = {
        one.rpartition("/resolve/")[2].partition("/")[2]
        for one in hub.asked[before:]
        if one.startswith("GET") and "/resolve/" in one
    }
    assert fetched == {"vocabulary/model.safetensors", "config.json"}


@pytest.mark.slow
def test_a_connection_that_breaks_is_an_own_error_and_the_next_call_goes_on(hub: LoopbackHub) -> None:
    model = small()
    model.push_to_hub(NAME)
    hub.cut = ".safetensors"
    with pytest.raises(FileNotFoundError, match="did not give a model.*Call again: what has come is not downloaded"):
        sw.models.load(NAME)
    with sw.settings.override(offline=True), pytest.raises(FileNotFoundError, match="not in the cache whole"):
        sw.models.load(NAME)
    hub.cut = ""
    assert same(model, sw.models.load(NAME))


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_downloads_leaves_nothing_that_is_taken_for_whole(
    hub: LoopbackHub, cache: Path
) -> None:
    model = small()
    model.push_to_hub(NAME)
    hub.cut, hub.holds = ".safetensors", True
    code = f"import spatialwhisperer as sw; sw.models.load({NAME!r})"
    places = {
        "HF_ENDPOINT": hub.address,
        "HF_HUB_CACHE": str(cache),
        "SPATIALWHISPERER_CACHE_DIR": str(sw.settings.cache_dir),
    }
    child = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **places, "HF_HUB_DISABLE_XET": "1"})
    try:
        assert hub.holding.wait(60)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == -signal.SIGKILL
    hub.cut, hub.holds = "", False
    hub.go_on.set()
    with sw.settings.override(offline=True), pytest.raises((FileNotFoundError, ValueError), match="whole|lacks"):
        sw.models.load(NAME)
    assert same(model, sw.models.load(NAME))
    with sw.settings.override(offline=True):
        assert same(model, sw.models.load(NAME))


def test_a_changed_file_on_the_hub_is_refused(hub: LoopbackHub) -> None:
    small().push_to_hub(NAME)
    served = hub.repositories[NAME]
    served.commit({**served.files, "model.safetensors": served.files["model.safetensors"][:-1]})
    with pytest.raises(ValueError, match="cut off or changed"):
        sw.models.load(NAME)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_of_the_cache_that_was_damaged_is_downloaded_again_by_the_call_that_is_named(
    hub: LoopbackHub,  # noqa: ARG001
    name: str,
) -> None:
    model = small()
    model.push_to_hub(NAME)
    folder = sw.models.load(NAME).folder
    assert folder is not None
    blob = (folder / name).resolve()
    blob.write_bytes(blob.read_bytes()[:-5])
    for opens in (sw.models.load, Whisperer.load):
        with pytest.raises(
            ValueError, match=r"again: sw\.models\.load\('owner/name', force_download=True\)\.$"
        ) as raised:
            opens(NAME)
        assert "Copy or" not in str(raised.value)
        with pytest.raises(ValueError, match=r"\('owner/name', revision='main', force_download=True\)\.$"):
            opens(NAME, revision="main")
    # the same folder as a path was not downloaded by this name
    with pytest.raises(ValueError, match=r"save what it holds again\.$"):
        sw.models.load(folder)
    assert same(model, sw.models.load(NAME, force_download=True))
    assert same(model, sw.models.load(NAME))


# --------------------------------------------------------------------------------------------- which one


def test_a_model_that_has_moved_is_said_and_the_old_one_opens_by_its_revision(hub: LoopbackHub) -> None:
    first, second = small(1), small(2)
    first.push_to_hub(NAME)
    old = hub.repositories[NAME].head
    assert same(first, sw.models.load(NAME))
    second.push_to_hub(NAME)
    new = hub.repositories[NAME].head
    with pytest.warns(
        UserWarning, match=rf"owner/name has moved on the hub, from commit {old} to {new}.*revision='{old}'"
    ):
        assert same(second, sw.models.load(NAME))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(first, sw.models.load(NAME, revision=old))
        assert same(second, sw.models.load(NAME, revision=new))
    record_file(NAME).unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(second, sw.models.load(NAME))
    with pytest.raises(FileNotFoundError, match="it has no such revision"):
        sw.models.load(NAME, revision="no-such")


def test_results_name_the_commit_of_their_model(hub: LoopbackHub) -> None:
    from spatialwhisperer.tl._embedding.models import describe_model

    small().push_to_hub(NAME)
    assert describe_model(sw.models.load(NAME))["folder"] == hub.repositories[NAME].head


# --------------------------------------------------------------------------------------------- no way there


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub at a port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("cache", "nobody")
def test_no_network_is_an_error_at_once() -> None:
    from huggingface_hub import HfApi, snapshot_download  # noqa: F401  (imported when they are first used)

    start = time.process_time(), time.monotonic()
    with sw.settings.override(offline=False):
        with pytest.raises(
            FileNotFoundError, match="the hub cannot be reached. Connect and call again.*hf download owner/name"
        ):
            sw.models.load(NAME)
        with pytest.raises(OSError, match="cannot be reached, and nothing was sent"):
            small().push_to_hub(NAME)
    assert time.process_time() - start[0] < 2
    assert time.monotonic() - start[1] < 20  # the client of the hub would try for most of a minute


def test_without_a_network_the_cache_is_enough(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    model = small()
    model.push_to_hub(NAME)
    sw.models.load(NAME)
    monkeypatch.setattr("spatialwhisperer.models.sharing.hub.hub_answers", lambda: False)
    with sw.settings.override(verbose=True):
        assert same(model, sw.models.load(NAME))
    assert f"opened from the cache (commit {hub.repositories[NAME].head})" in capfd.readouterr().err


def test_a_gated_model_names_the_page_and_the_variable(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small()
    model.push_to_hub(NAME)
    hub.repositories[NAME].gated = True
    for token in (None, "another"):
        set_token(monkeypatch, token)
        with pytest.raises(FileNotFoundError, match="Accept its terms at https://huggingface.co/owner/name.*HF_TOKEN"):
            sw.models.load(NAME)
    set_token(monkeypatch, "granted")
    assert same(model, sw.models.load(NAME))


@pytest.mark.usefixtures("hub")
def test_a_name_that_is_not_there_may_be_private() -> None:
    with pytest.raises(FileNotFoundError, match="there is none, or it is private.*HF_TOKEN"):
        sw.models.load("owner/no-such")


def test_files_that_a_client_keeps_for_all_repositories_are_followed(tmp_path: Path) -> None:
    """Newer clients of the hub keep large files once for a whole cache: a link to a link out of the repository."""
    model = small()
    source = model.save(tmp_path / "saved")
    repository = tmp_path / "cache" / "models--owner--name"
    snapshot = repository / "snapshots" / "0123"
    for path in ("blobs", "snapshots/0123"):
        (repository / path).mkdir(parents=True)
    store = tmp_path / "cache" / "blobs" / "ab"
    store.mkdir(parents=True)
    shutil.copy(source / "config.json", repository / "blobs" / "c")
    shutil.copy(source / "model.safetensors", store / "abcd")
    (repository / "blobs" / "m").symlink_to(store / "abcd")
    (snapshot / "config.json").symlink_to(repository / "blobs" / "c")
    (snapshot / "model.safetensors").symlink_to(repository / "blobs" / "m")
    assert same(model, Whisperer.load(snapshot))
    # a folder that is no repository of a cache has no such store
    shutil.move(repository, tmp_path / "cache" / "elsewhere")
    moved = tmp_path / "cache" / "elsewhere" / "snapshots" / "0123"
    for name, target in (("config.json", source / "config.json"), ("model.safetensors", store / "abcd")):
        (moved / name).unlink()
        (moved / name).symlink_to(target) if name.startswith("model") else shutil.copy(target, moved / name)
    with pytest.raises(ValueError, match="is a link that leads out of its folder"):
        Whisperer.load(moved)
