from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from spatialwhisperer.encoders.image.nuclei import NucleiEncoder, NucleusWords
from spatialwhisperer.protocols.__main__ import main

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_words_are_learnt_from_a_real_section(data_folder: Path, tmp_path: Path) -> None:
    main(["nuclei-words", "--data", str(data_folder), "--out", str(tmp_path), "--smoke"])
    words = NucleusWords.load(tmp_path / "words.safetensors")
    assert words.centroids.shape == (24, 17)
    assert "C2 of her2st" in words.source
    assert NucleiEncoder(words).identity.digest == words.digest
