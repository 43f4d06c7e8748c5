from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from spatialwhisperer.protocols import nuclei
from spatialwhisperer.protocols.__main__ import main
from tests.pp.nuclei_slides import draw

if TYPE_CHECKING:
    from pathlib import Path


def test_an_overlap_above_a_half_is_a_match_and_counts_once() -> None:
    truth, found = np.zeros((20, 20), np.int64), np.zeros((20, 20), np.int64)
    truth[:6, :6], truth[10:16, :6] = 1, 2
    found[:6, :5] = 1
    found[10:13, :6] = 2
    found[10:16, 12:18] = 3
    counts = nuclei.count(truth, found)
    assert (counts.drawn, counts.found, counts.matched, counts.typical_px) == (2, 3, 1, 36)
    scores = nuclei.scores([counts, counts])
    assert scores["f1_pooled"] == scores["f1_mean"] == pytest.approx(0.4)
    assert (scores["precision"], scores["recall"]) == (pytest.approx(1 / 3), 0.5)


def test_nothing_found_scores_nothing() -> None:
    truth = np.ones((4, 4), np.int64)
    counts = nuclei.count(truth, np.zeros_like(truth))
    assert nuclei.scores([counts])["f1_mean"] == 0
    assert nuclei.find(np.full((60, 60, 3), 250, np.uint8), 0.5, "watershed").max() == 0


def test_labels_of_the_outlines_are_the_pixels_that_were_found() -> None:
    import spatialwhisperer as sw
    from tests.pp.nuclei_slides import slide_of

    drawn = draw(200, 240)
    labels = nuclei.find(np.moveaxis(drawn.image, 0, -1).copy(), 0.5, "watershed")
    frame = sw.pp.nuclei(slide_of(drawn.image), inplace=False)
    assert frame is not None
    np.testing.assert_allclose(np.bincount(labels.ravel())[1:] * 0.25, frame["area_um2"])


def test_halves_are_disjoint_and_always_the_same() -> None:
    names = [f"i{k}" for k in range(85)]
    first, second = nuclei.halves(names)
    assert sorted(first + second) == sorted(names)
    assert (first, second) == nuclei.halves(names)
    assert len(second) == 43


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Drawn images and their nuclei, as the labelled images are stored."""
    images = tmp_path / "nuclei" / "dsb2018_he"
    images.mkdir(parents=True)
    for seed in range(6):
        drawn = draw(200, 240, seed=seed)
        pixels = np.moveaxis(drawn.image, 0, -1)
        y, x = np.mgrid[:200, :240]
        labels = np.zeros((200, 240), np.uint16)
        for number, ((a, b), area) in enumerate(zip(drawn.centres, drawn.area_um2, strict=True), 1):
            labels[(x + 0.5 - a) ** 2 + (y + 0.5 - b) ** 2 <= area / 0.25 / np.pi] = number
        Image.fromarray(pixels).save(images / f"i{seed}.png")
        Image.fromarray(labels).save(images / f"i{seed}_labels.png")
    pd.DataFrame({"id": [f"i{k}" for k in range(6)]}).to_csv(tmp_path / "nuclei" / "index.csv")
    return tmp_path


@pytest.mark.slow
def test_the_command_writes_table_and_picture(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["nuclei", "--data", str(folder), "--out", str(tmp_path / "out")])
    table = pd.read_csv(tmp_path / "out" / "nuclei.csv")
    assert {"held back", "constants chosen on"} == set(table["images"])
    row = table[(table["images"] == "held back") & (table["method"] == "all images, watershed")].iloc[0]
    assert row["n_images"] == 3
    assert row["f1_mean"] > 0.9
    text = (tmp_path / "out" / "nuclei.md").read_text()
    assert "0.5 µm per pixel is assumed" in text
    assert "F1, all nuclei" in capsys.readouterr().out
    assert (tmp_path / "out" / "nuclei.png").stat().st_size > 1000


def test_a_folder_without_the_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nuclei/index.csv"):
        main(["nuclei", "--data", str(tmp_path)])
