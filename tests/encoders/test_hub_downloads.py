"""What is fetched, what is said before, and what is said where it fails: against a hub on this machine."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer.encoders.hub import Wanted, fetch, in_cache
from spatialwhisperer.encoders.hub_record import files_of_commit, record_file
from spatialwhisperer.encoders.published.table import published
from tests.encoders.hub_mirror import fill_cache, serving, set_token, use_cache
from tests.loopback_hub import files_in, loopback_hub

if TYPE_CHECKING:
    from pathlib import Path

TINY = {"architecture": "test_vit", "model_args": {"img_size": 32}, "pretrained_cfg": {"input_size": [3, 32, 32]}}
FREE, GATED = "hf-hub:owner/free", "uni"
pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    use_cache(monkeypatch, tmp_path / "cache")
    set_token(monkeypatch, None)
    return tmp_path / "cache"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A tiny model of timm with its weights in two formats."""
    import timm
    import torch
    from safetensors.torch import save_file

    folder = tmp_path / "repository"
    folder.mkdir()
    network = timm.create_model("test_vit", img_size=32, num_classes=3)
    save_file(network.state_dict(), folder / "model.safetensors")
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(TINY))
    (folder / "README.md").write_text("read me")
    return folder


# --------------------------------------------------------------------------------------------- before a download


@pytest.mark.parametrize("name", [n for n, row in published().items() if row.spec.gated])
def test_a_gated_model_without_a_token_names_the_page_and_the_variable(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket, "create_connection", no_network)
    monkeypatch.setattr(socket.socket, "connect", no_network)
    with sw.settings.override(offline=False), pytest.raises(FileNotFoundError) as caught:
        sw.models.open_encoder(name, "image")
    for part in ("is gated", published()[name].spec.url, "HF_TOKEN", published()[name].spec.licence):
        assert part in str(caught.value)


@pytest.mark.slow
def test_that_error_comes_in_under_a_second() -> None:
    code = (
        "import time, spatialwhisperer as sw, huggingface_hub.constants as c\n"
        "c.HF_TOKEN_PATH = c.HF_HUB_CACHE = '/no/such'\n"
        "start = time.process_time()  # of this process: others may have the machine\n"
        "try: sw.models.open_encoder('uni2-h', 'image')\n"
        "except FileNotFoundError: print(time.process_time() - start)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_without_token()
    )
    assert float(done.stdout) < 1


def _without_token() -> dict[str, str]:
    import os

    return {k: v for k, v in os.environ.items() if k not in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")}


@pytest.mark.slow
def test_the_terms_are_shown_before_a_download(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(monkeypatch, {"MahmoodLab/UNI": repository}, gated="MahmoodLab/UNI") as asked:
        set_token(monkeypatch, "granted")
        with sw.settings.override(offline=False, verbose=True), pytest.raises(ValueError, match="does not fit"):
            # the tiny network is not that of UNI
            sw.models.open_encoder(GATED, "image")
    assert "licence: CC-BY-NC-ND-4.0; commercial use: no; gated: yes" in capfd.readouterr().err
    assert any("model.safetensors" in one for one in asked)


# --------------------------------------------------------------------------------------------- the download


def test_one_format_is_fetched_and_then_the_cache_is_enough(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(monkeypatch, {"owner/free": repository}) as asked, sw.settings.override(offline=False):
        encoder = sw.models.open_encoder(FREE, "image")
        assert not any("pytorch_model.bin" in one or "README" in one for one in asked)
        before = len(asked)
        again = sw.models.open_encoder(FREE, "image")
        assert not asked[before:]
    tiles = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    with sw.settings.override(offline=True):
        third = sw.models.open_encoder(FREE, "image")
    features = [one.encode(tiles, mpp=0.5, device="cpu") for one in (encoder, again, third)]
    np.testing.assert_array_equal(features[0], features[1])
    np.testing.assert_array_equal(features[0], features[2])


def test_a_token_that_was_not_granted_access_names_the_page(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_token(monkeypatch, "another")
    with (
        serving(monkeypatch, {"MahmoodLab/UNI": repository}, gated="MahmoodLab/UNI"),
        sw.settings.override(offline=False),
    ):
        with pytest.raises(
            FileNotFoundError, match=r"Request access at https://huggingface.co/MahmoodLab/UNI.*HF_TOKEN"
        ):
            sw.models.open_encoder(GATED, "image")
    assert in_cache("MahmoodLab/UNI", Wanted()) is None


def test_a_repository_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(monkeypatch, {}), sw.settings.override(offline=False):
        with pytest.raises(
            FileNotFoundError, match="could not be downloaded.*Check that https://huggingface.co/owner/free"
        ):
            sw.models.open_encoder(FREE, "image")


def test_a_repository_without_weights_is_refused(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in ("model.safetensors", "pytorch_model.bin"):
        (repository / file).unlink()
    with serving(monkeypatch, {"owner/free": repository}), sw.settings.override(offline=False):
        with pytest.raises(ValueError, match="holds no weights that are read .*; it has README.md, config.json"):
            sw.models.open_encoder(FREE, "image")


@pytest.mark.slow
def test_half_a_download_is_an_error_and_is_taken_up_again(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(monkeypatch, {"owner/free": repository}, cut=".safetensors"), sw.settings.override(offline=False):
        with pytest.raises(FileNotFoundError, match="could not be downloaded"):
            sw.models.open_encoder(FREE, "image")
    assert in_cache("owner/free", Wanted()) is None
    with sw.settings.override(offline=True), pytest.raises(FileNotFoundError, match="none are cached"):
        sw.models.open_encoder(FREE, "image")
    with serving(monkeypatch, {"owner/free": repository}), sw.settings.override(offline=False):
        assert sw.models.open_encoder(FREE, "image").spec.dim == 64


def test_weights_without_the_configuration_that_came_with_them_are_half_a_download(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with loopback_hub(monkeypatch) as hub, sw.settings.override(offline=False):
        commit = hub.add("owner/free", repository).head
        sw.models.open_encoder(FREE, "image")
        here = in_cache("owner/free", Wanted())
        assert here is not None
        assert here.name == commit
        assert files_of_commit("owner/free", commit) == sorted(files_in(repository))
        # as after a process that was killed between two files
        (here / "config.json").unlink()
        assert in_cache("owner/free", Wanted()) is None
        sw.models.open_encoder(FREE, "image")
    assert json.loads((here / "config.json").read_text()) == TINY


# --------------------------------------------------------------------------------------------- revisions


def other_weights(repository: Path) -> dict[str, bytes]:
    from safetensors.torch import load, save

    files = files_in(repository)
    state = load(files["model.safetensors"])
    return {**files, "model.safetensors": save({name: value + 0.5 for name, value in state.items()})}


def test_an_encoder_that_has_moved_is_said_and_can_be_pinned(
    cache: Path, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    with loopback_hub(monkeypatch) as hub, sw.settings.override(offline=False):
        served = hub.add("owner/free", repository)
        old = served.head
        first = sw.models.open_encoder(FREE, "image")
        assert first.commit == old
        assert first.identity.revision is None
        new = served.commit(other_weights(repository))
        # what the cache holds is used as before; an empty cache gets what the hub has now
        assert sw.models.open_encoder(FREE, "image").commit == old
        cache.rename(tmp_path / "gone")
        with pytest.warns(
            UserWarning, match=rf"owner/free has moved on the hub, from commit {old} to {new}.*revision='{old}'"
        ):
            moved = sw.models.open_encoder(FREE, "image")
        pinned = sw.models.image_encoder(FREE, revision=old)
    assert (moved.commit, pinned.commit) == (new, old)
    assert pinned.identity.revision == old
    assert pinned.identity.name == FREE
    one, two, three = (e.encode(tiles, mpp=0.5, device="cpu") for e in (first, moved, pinned))
    np.testing.assert_array_equal(one, three)
    assert np.abs(one - two).max() > 0.01
    # whoever means the new one says so
    record_file("owner/free").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sw.models.open_encoder(FREE, "image").commit == new


def test_features_keep_the_commit_and_are_not_taken_for_those_of_another(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sections, _ = sw.datasets.simulate_sections(1, 20, n_genes=20, n_reference_cells=20, random_state=0)
    section = sections["P1"]
    with loopback_hub(monkeypatch) as hub, sw.settings.override(offline=False, device="cpu"):
        served = hub.add("owner/free", repository)
        old = served.head
        served.commit(other_weights(repository))
        for encoder, commit in ((FREE, served.head), (sw.models.image_encoder(FREE, revision=old), old)):
            sw.pp.embed_images(section, encoder=encoder, key_added="X_free", tile_um=40, tile_px=32)
            stored = json.loads(section["table"].uns["spatialwhisperer"]["X_free"]["parameters"])
            assert stored["commit"] == commit
    assert stored["recipe"]["encoder"]["revision"] == old


@pytest.mark.parametrize(
    ("name", "modality"),
    [("stain_texture", "image"), ("resnet18", "image"), ("minilm", "text"), ("geneformer", "gene")],
)
def test_what_has_no_revisions_takes_none(name: str, modality: str) -> None:
    with pytest.raises(ValueError, match="no revisions to choose from|revision is for encoders from the hub"):
        sw.models.open_encoder(name, modality, revision="main", pretrained=name != "resnet18")


def test_a_revision_and_a_local_copy_are_one_too_many(repository: Path) -> None:
    with pytest.raises(ValueError, match="revision is for weights from the hub, and weights names a local copy"):
        sw.models.open_encoder("uni", "image", weights=repository, revision="main")


def test_a_cache_without_its_weights_or_a_shard_is_not_enough(cache: Path, repository: Path) -> None:
    snapshot = fill_cache(cache, "owner/free", repository)
    assert in_cache("owner/free", Wanted()) == snapshot
    (snapshot / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "gone.safetensors"}}))
    assert in_cache("owner/free", Wanted()) is None
    (snapshot / "model.safetensors.index.json").unlink()
    (snapshot / "model.safetensors").unlink()
    assert in_cache("owner/free", Wanted()) == snapshot  # the other format
    (snapshot / "pytorch_model.bin").unlink()
    assert in_cache("owner/free", Wanted()) is None


def test_a_checkpoint_that_holds_code_is_not_opened(cache: Path, repository: Path, tmp_path: Path) -> None:
    import torch

    (repository / "model.safetensors").unlink()
    torch.save(
        {"state_dict": {"w": torch.zeros(1)}, "epoch": Writes(tmp_path / "written")}, repository / "pytorch_model.bin"
    )
    fill_cache(cache, "owner/free", repository)
    with (
        sw.settings.override(offline=True),
        pytest.raises(ValueError, match="holds more than tensors, and is not opened"),
    ):
        sw.models.open_encoder(FREE, "image")
    assert not (tmp_path / "written").exists()


class Writes:
    """An object whose unpickling writes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.file), "w")


def test_patterns_take_the_first_format_and_no_inner_folder() -> None:
    names = ["a.safetensors", "onnx/b.safetensors", "pytorch_model.bin", "config.json", "1_Pooling/config.json"]
    assert Wanted().chosen(names) == ["a.safetensors", "config.json"]
    assert Wanted(others=("1_Pooling/config.json",)).chosen(names) == ["a.safetensors", "1_Pooling/config.json"]
    assert Wanted(weights=("x.pt",)).weights_in(names) == []


def test_an_id_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="is not a valid hub id"):
        fetch(sw.models.get_spec("uni"), "a/b/c", Wanted())
