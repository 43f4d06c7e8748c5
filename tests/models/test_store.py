"""Where a model lies: in a folder, in the package, or on the hub."""

from __future__ import annotations

import json
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

import pytest

import spatialwhisperer as sw
from spatialwhisperer.encoders.recipe import EncoderIdentity, FeatureRecipe
from spatialwhisperer.encoders.text.files import TOKENIZER_FILES
from spatialwhisperer.models import Whisperer, store

if TYPE_CHECKING:
    from pathlib import Path


def test_a_folder_is_itself_and_a_name_of_the_package_its_place(tmp_path: Path) -> None:
    assert store.locate(tmp_path) == tmp_path
    assert store.locate(str(tmp_path)) == tmp_path
    assert store.locate("her2st-mini") == store.embedded_folder()
    assert (store.embedded_folder() / "config.json").is_file()


def test_a_folder_of_the_name_of_the_embedded_model_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "her2st-mini").mkdir()
    assert store.locate("her2st-mini").resolve() == tmp_path / "her2st-mini"


def test_an_installation_without_the_embedded_model_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "embedded_folder", lambda: tmp_path / "none")
    with pytest.raises(
        FileNotFoundError, match="This installation holds no embedded model .*Install the package again"
    ):
        store.locate("her2st-mini")


def test_what_cannot_be_a_name_on_the_hub_is_a_folder_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "fetch", lambda *_, **__: pytest.fail("asked the hub"))
    for source in (tmp_path / "nothing", "nothing", "./a/b", "../a/b", "~/no/such"):
        with pytest.raises(FileNotFoundError, match="There is no folder"):
            store.locate(source)


@pytest.fixture
def asked(model: Whisperer, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the hub was asked for; it gives the trained model."""
    import huggingface_hub

    asked: dict[str, Any] = {}

    def download(repo: str, **options: Any) -> str:
        asked.clear()
        asked.update(options, repo=repo)
        return str(model.folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return asked


def test_the_hub_is_asked_for_files_of_a_model_alone(asked: dict[str, Any], model: Whisperer) -> None:
    assert store.locate("owner/name", revision="abc", force_filename="x") == model.folder
    assert (asked["repo"], asked["revision"]) == ("owner/name", "abc")
    assert "force_filename" not in asked
    patterns = asked["allow_patterns"]
    assert not [p for p in patterns if p.endswith((".bin", ".pt", ".py", "*"))]

    def files(folder: Path, at: str = "") -> list[str]:
        stated = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        own = [f"{at}{name}" for name in ("config.json", *stated["files"])]
        return own + [n for part in stated["parts"] for n in files(folder / part, f"{at}{part}/")]

    tokenizer = [f"text_encoder/tokenizer{suffix}" for suffix in TOKENIZER_FILES]
    for name in (*files(model.folder), *files(store.embedded_folder()), *tokenizer):
        assert any(fnmatch(name, pattern) for pattern in patterns), name


def test_offline_asks_the_cache_alone(asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for offline in (True, False):
        with sw.settings.override(offline=offline):
            store.locate("owner/name")
        assert asked["local_files_only"] is offline
    store.locate("owner/name", local_files_only=True)
    assert asked["local_files_only"] is True


def test_a_model_that_the_hub_does_not_have_says_so(tmp_path: Path) -> None:
    with (
        sw.settings.override(offline=True),
        pytest.raises(FileNotFoundError, match="'owner/no-such-model' is not a folder here, and the hub did not give"),
    ):
        store.locate("owner/no-such-model", cache_dir=tmp_path)


def test_a_trained_encoder_is_made_anew_where_its_name_is_enough() -> None:
    def fresh(name: str, modality: str = "image") -> dict[str, Any]:
        return store.fresh_encoder(
            modality, FeatureRecipe(EncoderIdentity(name, digest="of the weights it started from"))
        )

    for name in ("resnet18", "test_vit"):
        encoder = fresh(name)["image"]
        assert encoder.spec.name == name
        assert not encoder.identity.by_name
    for name in ("mine", "hf-hub:owner/model"):
        assert fresh(name) == {}
    assert store.fresh_encoder("image", FeatureRecipe(None, "X_mine")) == {}
