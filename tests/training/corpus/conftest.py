from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from spatialwhisperer.training.corpus.shards import Corpus
from tests import corpora

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of 150 rows with image and genes in three slides, and 90 with genes and captions; several shards each. Read only."""
    return corpora.build(tmp_path_factory.mktemp("corpus") / "c", shard_rows=30)


@pytest.fixture(scope="session")
def corpus(folder: Path) -> Corpus:
    return Corpus.open(folder)
