from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.torture import small_models

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of 16 dimensions, as a local folder."""
    return small_models.tiny_bert(tmp_path_factory.mktemp("text") / "tiny")


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> dict[str, Path]:
    """Folders of three models by name. Read only."""
    return small_models.model_folders(tmp_path_factory.mktemp("folders"), tiny_bert)
