"""Where a model lies: in a folder, in the package, or on the hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import spatialwhisperer as sw
from spatialwhisperer.encoders.recipe import EncoderIdentity, FeatureRecipe
from spatialwhisperer.encoders.text.files import TOKENIZER_FILES
from spatialwhisperer.models import Whisperer, store
from tests.encoders.hub_mirror import use_cache
from tests.loopback_hub import files_in, loopback_hub

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
    monkeypatch.setattr(store, "fetch_model", lambda *_, **__: pytest.fail("asked the hub"))
    for source in (tmp_path / "nothing", "nothing", "./a/b", "../a/b", "~/no/such", "results/run/model"):
        with pytest.raises(FileNotFoundError, match="There is no folder"):
            store.locate(source)


@pytest.mark.parametrize("opens", [store.locate, Whisperer.load, sw.models.load, Whisperer.from_pretrained])
def test_an_option_that_is_written_wrong_is_refused(
    opens: Any, model: Whisperer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "fetch_model", lambda *_, **__: pytest.fail("asked the hub"))
    for source in (model.folder, "her2st-mini", "owner/name", "Good-Lab/spatialwhisperer", "keep"):
        with pytest.raises(
            TypeError, match=r"no option 'revison'.*Did you mean revision\? Those of the hub are revision, tok"
        ):
            opens(source, revison="0123")
        with pytest.raises(TypeError, match="no option 'zzz' to open a model with. Those"):
            opens(source, zzz=None)


@pytest.mark.parametrize("opens", [store.locate, Whisperer.load, sw.models.load])
def test_a_model_on_this_machine_has_no_revision(opens: Any, model: Whisperer) -> None:
    assert model.folder is not None
    for source in (model.folder, "her2st-mini"):
        with pytest.raises(ValueError, match="revision='0123' names a commit of the hub, and .* is on this machine"):
            opens(source, revision="0123")
        opens(source, revision=None, force_download=True)


def test_a_checkpoint_file_has_no_revision(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(b"not read")
    with pytest.raises(ValueError, match=r"a\.ckpt' is on this machine"):
        sw.models.load(tmp_path / "a.ckpt", revision="0123")


def test_the_hub_is_asked_for_files_of_a_model_alone(
    model: Whisperer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_cache(monkeypatch, tmp_path / "cache")
    tokenizer = {f"text_encoder/tokenizer{suffix}": b"{}" for suffix in TOKENIZER_FILES}
    others = {
        "README.md": b"words",
        "run.py": b"",
        "x/weights.bin": b"",
        "figures/a.png": b"",
        "runs/events.json": b"{}",
    }
    with loopback_hub(monkeypatch) as hub, sw.settings.override(offline=False):
        for name, folder in {"owner/trained": model.folder, "owner/embedded": store.embedded_folder()}.items():
            wanted = {path: held for path, held in files_in(folder).items() if path != "README.md"} | tokenizer
            hub.add(name, wanted | others)
            found = store.locate(name, revision="main")
            assert found.name == hub.repositories[name].head
            assert files_in(found) == wanted


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
