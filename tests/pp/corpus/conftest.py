from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests import corpora


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of all sources. Read only."""
    return corpora.build(tmp_path_factory.mktemp("corpus") / "c")


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(built, tmp_path / "c"))
