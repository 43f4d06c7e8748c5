from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer._access.slide import Slide
from spatialwhisperer.encoders.image.stain_texture import StainTextureEncoder
from spatialwhisperer.encoders.recipe import EncoderIdentity
from spatialwhisperer.pp.features.encoder_choice import choose_encoder
from spatialwhisperer.pp.features.finished_batches import FinishedBatches, kept_until_done
from spatialwhisperer.pp.features.images import image_features, image_recipe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TILES = np.random.default_rng(0).integers(0, 255, (3, 3, 8, 8), dtype=np.uint8)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sw.settings, "cache_dir", tmp_path)
    return tmp_path / "features"


@pytest.fixture
def section() -> Any:
    rng = np.random.default_rng(1)
    import anndata as ad

    adata = ad.AnnData(np.zeros((40, 0), np.float32))
    adata.obsm["spatial"] = rng.uniform(20, 380, (40, 2))
    image = rng.integers(0, 255, (400, 400, 3), dtype=np.uint8)
    adata.uns["spatial"] = {"slide": {"images": {"fullres": image}, "scalefactors": {}}}
    return adata


class Counted:
    """Counts the batches that the encoder sees, and interrupts it before one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches, self.stop = 0, -1
        encode = StainTextureEncoder.encode

        def counted(encoder: Any, *args: Any, **kwargs: Any) -> np.ndarray:
            if self.batches == self.stop:
                raise KeyboardInterrupt
            self.batches += 1
            return encode(encoder, *args, **kwargs)

        monkeypatch.setattr(StainTextureEncoder, "encode", counted)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


def embed(section: Any, **options: Any) -> np.ndarray:
    how: dict[str, Any] = {"tile_um": (20, 40), "tile_px": 32, "mpp": 0.5, "batch_size": 8, "inplace": False}
    return np.asarray(sw.pp.embed_images(section, **({"encoder": "stain_texture"} | how | options)))


def files(cache: Path) -> list[Path]:
    return [p for p in cache.rglob("*") if p.is_file()] if cache.exists() else []


def test_an_interrupted_call_loses_one_batch_at_most(section: Any, counted: Counted, cache: Path) -> None:
    fresh = embed(section)
    n, counted.batches, counted.stop = counted.batches, 0, 7
    with pytest.raises(KeyboardInterrupt):
        embed(section)
    assert len(files(cache)) == 7
    counted.stop = -1
    again = embed(section)
    assert counted.batches == n == 10
    assert np.array_equal(fresh, again)


def test_nothing_is_left_after_a_finished_call(section: Any, counted: Counted, cache: Path) -> None:
    counted.stop = 3
    with pytest.raises(KeyboardInterrupt):
        embed(section)
    counted.stop = -1
    embed(section)
    assert not files(cache)
    assert not list(cache.iterdir())


@pytest.mark.filterwarnings("ignore::spatialwhisperer._messages.SpatialWhispererWarning")
def test_annotation_finds_the_batches_of_an_interrupted_annotation(section: Any, counted: Counted) -> None:
    how: dict[str, Any] = {"mpp": 0.5, "batch_size": 8}
    sw.tl.zero_shot_annotate(section.copy(), **how)
    n, counted.batches, counted.stop = counted.batches, 0, 4
    with pytest.raises(KeyboardInterrupt):
        sw.tl.zero_shot_annotate(section, **how)
    assert "X_stain_texture" not in section.obsm
    counted.stop = -1
    sw.tl.zero_shot_annotate(section, **how)
    assert counted.batches == n


@pytest.mark.slow
def test_training_finds_the_batches_of_an_interrupted_training(counted: Counted, cache: Path) -> None:
    sections, reference = sw.datasets.simulate_sections(2, 40, n_genes=60, n_reference_cells=60, random_state=0)
    objects = [*sections.values(), reference]
    image = sw.tl.ImageFeatures(tile_um=80, tile_px=32)
    counted.stop = 4
    with sw.settings.override(batch_size=16):
        with pytest.raises(KeyboardInterrupt):
            sw.tl.train(objects, image=image, max_epochs=1)
        counted.stop = -1
        sw.tl.train(objects, image=image, max_epochs=1)
    assert counted.batches == 6  # of 16, 16 and 8 spots in each section
    assert not files(cache)


@pytest.mark.parametrize("change", ["pixels", "tile size", "batch size"])
def test_other_batches_are_computed(section: Any, counted: Counted, change: str) -> None:
    counted.stop = 7
    with pytest.raises(KeyboardInterrupt):
        embed(section)
    counted.batches, counted.stop = 0, -1
    options: dict[str, Any] = {}
    if change == "pixels":
        section.uns["spatial"]["slide"]["images"]["fullres"][::8, ::8] = 0
    elif change == "tile size":
        options = {"tile_um": (30, 50)}
    else:
        options = {"batch_size": 40}
    got = embed(section, **options)
    assert counted.batches == (2 if change == "batch size" else 10)
    assert np.array_equal(got, embed(section, **options))


@pytest.mark.parametrize(
    "other",
    [
        {"encoder": EncoderIdentity("b")},
        {"encoder": EncoderIdentity("a", digest="1")},
        {"mpp": 0.25},
        {"device": "cuda"},
    ],
)
def test_another_encoder_scale_or_device_has_other_features(other: dict[str, Any]) -> None:
    mine: dict[str, Any] = {"encoder": EncoderIdentity("a"), "mpp": 0.5, "device": "cpu"}
    FinishedBatches(**mine).features(TILES, lambda _: np.ones((3, 2), np.float32))
    got = FinishedBatches(**(mine | other)).features(TILES, lambda _: np.zeros((3, 2), np.float32))
    assert (got == 0).all()


def kept(encode: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    return FinishedBatches(EncoderIdentity("a"), mpp=0.5, device="cpu").features(TILES, encode)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", b"\x93NUMPY", b"not numpy at all"])
def test_a_damaged_file_is_computed_again(cache: Path, damage: bytes) -> None:
    kept(lambda _: np.ones((3, 2), np.float32))
    (path,) = files(cache)
    path.write_bytes(damage)
    assert (kept(lambda _: np.zeros((3, 2), np.float32)) == 0).all()


def test_a_pickle_is_never_opened(cache: Path) -> None:
    kept(lambda _: np.ones((3, 2), np.float32))
    (path,) = files(cache)
    np.savez(path, features=np.array([{}, {}, {}], object), sha256="0")
    assert (kept(lambda _: np.zeros((3, 2), np.float32)) == 0).all()


def test_a_folder_that_cannot_be_written_is_no_obstacle(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache.write_text("a file")
    assert (kept(lambda _: np.ones((3, 2), np.float32)) == 1).all()
    assert "sw.settings.cache_dir" in capsys.readouterr().err


def test_only_the_outermost_block_removes(cache: Path) -> None:
    with kept_until_done():
        with kept_until_done():
            kept(lambda _: np.ones((3, 2), np.float32))
        assert len(files(cache)) == 1
    assert not files(cache)


def test_files_of_calls_never_made_again_go_after_a_week(cache: Path) -> None:
    kept(lambda _: np.ones((3, 2), np.float32))
    (path,) = files(cache)
    with kept_until_done():
        pass
    assert path.exists()
    old = time.time() - 8 * 24 * 3600
    os.utime(path, (old, old))
    with kept_until_done():
        pass
    assert not path.exists()


def test_parts_of_files_go_after_an_hour(cache: Path) -> None:
    kept(lambda _: np.ones((3, 2), np.float32))
    (path,) = files(cache)
    mine, theirs = path.with_name("old.part"), path.with_name("new.part")
    for part in (mine, theirs):
        part.touch()
    old = time.time() - 2 * 3600
    for place in (path, mine):
        os.utime(place, (old, old))
    with kept_until_done():
        pass
    assert sorted(files(cache)) == sorted([path, theirs])


def test_a_batch_that_was_changed_on_the_disk_is_computed_again(section: Any, counted: Counted, cache: Path) -> None:
    fresh = embed(section)
    counted.batches, counted.stop = 0, 7
    with pytest.raises(KeyboardInterrupt):
        embed(section)
    for path in files(cache):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
    counted.batches, counted.stop = 0, -1
    assert np.array_equal(embed(section), fresh)
    assert counted.batches == 10


class Streamed:
    """An encoder of the caller's, of which a generator cannot be read; it is interrupted before one of its batches."""

    spec = sw.models.EncoderSpec("streamed", "image", 3)

    def __init__(self, factor: float, stop: int = -1) -> None:
        self.factor, self.stop, self.numbers = factor, stop, (i for i in range(100))

    def encode(self, tiles: np.ndarray, **_: Any) -> np.ndarray:
        if next(self.numbers) == self.stop:
            raise KeyboardInterrupt
        return self.factor * tiles.mean(axis=(2, 3))


def test_nothing_of_an_encoder_that_cannot_be_read_is_used_again(
    section: Any, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        embed(section, encoder=Streamed(1, stop=3))
    assert not files(cache)
    first, other = embed(section, encoder=Streamed(1)), embed(section, encoder=Streamed(2))
    np.testing.assert_allclose(other, 2 * first, rtol=1e-6)
    slide = Slide.open(section, mpp=0.5)
    for factor in (1, 2):
        choice = choose_encoder(Streamed(factor))  # type: ignore[arg-type]
        features = image_features(slide, image_recipe(slide, choice, tile_um=20, tile_px=32), choice.open)
        np.testing.assert_allclose(features.values, factor * first[:, :3], rtol=1e-6)
        slide.put(*features.results)
    assert (
        "this encoder is never recognised, because its attribute numbers (of type generator) cannot be read"
        in capsys.readouterr().err
    )
