from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "T",
    "t",
    "B",
    "cell",
    "##s",
    "plasma",
    "tumor",
    "stroma",
    "of",
    "a",
    "sample",
]


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small vocabulary that tells upper from lower case, in 40 tokens."""
    path = tmp_path_factory.mktemp("tokenizer") / "vocab.txt"
    words = [*WORDS, *(f"[unused{i}]" for i in range(40 - len(WORDS)))]
    path.write_text("\n".join(words) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def state() -> Any:
    """Small random weights of the published layout. Read only."""
    pytest.importorskip("transformers")
    from tests.models.published.generator import Sizes, state_dict

    return state_dict(Sizes())


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, state: Any) -> Path:
    from tests.models.published.generator import write_checkpoint

    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "spatialwhisperer.ckpt", state)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Path]:
    """An empty cache of the package."""
    import spatialwhisperer as sw

    with sw.settings.override(cache_dir=tmp_path / "cache"):
        yield tmp_path / "cache"


def converted(cache: Path) -> list[str]:
    """What lies in the cache, hidden leftovers too."""
    place = cache / "published"
    return sorted(path.name for path in place.iterdir()) if place.is_dir() else []
