"""The published checkpoint from a hub: one that answers on this machine, and one that does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import spatialwhisperer as sw
from tests.encoders.hub_mirror import set_token, use_cache
from tests.loopback_hub import LoopbackHub, Repository, loopback_hub
from tests.models.published.conftest import converted
from tests.models.published.generator import Sizes, state_dict, write_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("transformers")

NAME, FILE = "Good-Lab/spatialwhisperer", "spatialwhisperer.ckpt"


@pytest.fixture
def hub(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A hub on this machine, and a token of it."""
    use_cache(monkeypatch, tmp_path / "hub")
    set_token(monkeypatch, "granted")
    with loopback_hub(monkeypatch) as served, sw.settings.override(offline=False, cache_dir=cache):
        yield served


@pytest.fixture
def repository(hub: LoopbackHub, checkpoint: Path) -> Repository:
    """The repository that holds the checkpoint."""
    return hub.add(NAME, {FILE: checkpoint.read_bytes()})


@pytest.mark.usefixtures("repository")
def test_it_is_downloaded_once_and_opens_without_a_network(
    hub: LoopbackHub, vocabulary: Path, cache: Path, state: Any
) -> None:
    model = sw.models.load(NAME, tokenizer=vocabulary)
    assert f"GET {NAME}/resolve/main/{FILE}" in hub.asked
    assert model.config.card is not None
    assert model.config.card.name == NAME
    np.testing.assert_array_equal(model.log_scale.detach().numpy(), state["model.discriminator.temperature"].numpy())
    hub.asked.clear()
    with sw.settings.override(offline=True):
        again = sw.models.load(NAME, tokenizer=vocabulary)
    assert hub.asked == []
    assert again.folder == model.folder
    assert model.folder is not None
    assert converted(cache) == ["Good-Lab--spatialwhisperer.json", model.folder.name]


@pytest.mark.usefixtures("repository")
def test_other_calls_take_the_name_too(vocabulary: Path, cache: Path) -> None:
    import anndata as ad

    data = ad.AnnData(np.zeros((4, 1), np.float32))
    with pytest.raises(FileNotFoundError, match="The tokenizer of dmis-lab/biobert-v1.1 is not in the .* cache"):
        sw.tl.embed(data, model=NAME, modality="gene", device="cpu")
    assert converted(cache) == []
    # afterwards the calls that cannot say which tokenizer find the model that was converted
    model = sw.models.load(NAME, tokenizer=vocabulary)
    assert sw.models.load(NAME).folder == model.folder
    with pytest.raises(FileNotFoundError, match="The files of Geneformer are not in the Hugging Face cache"):
        sw.tl.embed(data, model=NAME, modality="gene", device="cpu")


def test_a_revision_that_moved_is_refused_until_it_is_named(
    repository: Repository, vocabulary: Path, cache: Path, tmp_path: Path
) -> None:
    first = sw.models.load(NAME, tokenizer=vocabulary)
    before = converted(cache)
    old = repository.head
    new_one = write_checkpoint(tmp_path / "new.ckpt", state_dict(Sizes(), seed=7))
    repository.commit({FILE: new_one.read_bytes()})
    for _ in range(2):
        with pytest.raises(ValueError, match="its revision has moved.*revision="):
            sw.models.load(NAME, tokenizer=vocabulary)
    assert converted(cache) == before
    new = sw.models.load(NAME, tokenizer=vocabulary, revision=repository.head)
    assert new.folder != first.folder
    assert not np.array_equal(*(m.state_dict()["heads.image.shortcut.weight"].numpy() for m in (first, new)))
    with sw.settings.override(offline=True):
        assert sw.models.load(NAME, tokenizer=vocabulary, revision=old).folder == first.folder
    # whoever removes the record means the new one
    (cache / "published" / "Good-Lab--spatialwhisperer.json").unlink()
    assert sw.models.load(NAME, tokenizer=vocabulary).folder == new.folder


@pytest.mark.slow
@pytest.mark.usefixtures("repository")
def test_half_a_download_leaves_nothing_and_is_finished_by_the_next_call(
    hub: LoopbackHub, vocabulary: Path, cache: Path, state: Any
) -> None:
    hub.cut = ".ckpt"
    with pytest.raises(FileNotFoundError, match=f"The hub did not give {FILE}"):
        sw.models.load(NAME, tokenizer=vocabulary)
    assert converted(cache) == []
    with sw.settings.override(offline=True), pytest.raises(FileNotFoundError, match="is not in the Hugging Face cache"):
        sw.models.load(NAME, tokenizer=vocabulary)
    assert converted(cache) == []
    hub.cut = ""
    model = sw.models.load(NAME, tokenizer=vocabulary)
    np.testing.assert_array_equal(model.log_scale.detach().numpy(), state["model.discriminator.temperature"].numpy())


def test_a_file_that_was_cut_off_on_the_hub_is_refused_and_not_remembered_as_opened(
    repository: Repository, vocabulary: Path, cache: Path, checkpoint: Path
) -> None:
    whole = checkpoint.read_bytes()
    repository.commit({FILE: whole[: len(whole) // 2]})
    with pytest.raises(ValueError, match="cut off|not a checkpoint|cannot be read|is no"):
        sw.models.load(NAME, tokenizer=vocabulary)
    assert converted(cache) == []
    repository.commit({FILE: whole})
    assert sw.models.load(NAME, tokenizer=vocabulary).modalities == ("gene", "image", "text")


@pytest.mark.parametrize("token", [None, "another"])
def test_a_gated_repository_says_where_to_ask_and_what_to_set(
    hub: LoopbackHub,
    vocabulary: Path,
    cache: Path,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    token: str | None,
) -> None:
    hub.add(NAME, {FILE: checkpoint.read_bytes()}, gated=True)
    set_token(monkeypatch, token)
    with pytest.raises(
        FileNotFoundError, match=rf"is gated. Accept its terms at https://huggingface.co/{NAME}.*HF_TOKEN"
    ):
        sw.models.load(NAME, tokenizer=vocabulary)
    assert converted(cache) == []
    set_token(monkeypatch, "granted")
    assert sw.models.load(NAME, tokenizer=vocabulary).config.card is not None


@pytest.mark.parametrize("held", [None, "README.md"])
def test_a_hub_without_the_file_says_so(hub: LoopbackHub, vocabulary: Path, cache: Path, held: str | None) -> None:
    if held is not None:
        hub.add(NAME, {held: b"words"})
    with pytest.raises(FileNotFoundError, match=f"The hub did not give {FILE}"):
        sw.models.load(NAME, tokenizer=vocabulary)
    assert converted(cache) == []


@pytest.mark.parametrize("offline", [True, False])
def test_no_network_is_an_error_at_once(
    offline: bool, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("spatialwhisperer.models.published.loading.hub_answers", lambda: False)
    why = "settings.offline is set" if offline else "the hub cannot be reached"
    with sw.settings.override(offline=offline), pytest.raises(FileNotFoundError, match=f"{why}.*hf download {NAME}"):
        sw.models.load(NAME)
    assert converted(cache) == []
