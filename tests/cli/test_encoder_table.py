from __future__ import annotations

from typing import TYPE_CHECKING, Any

import spatialwhisperer as sw

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest


def rows(lines: list[str]) -> dict[str, list[str]]:
    """Cells of each line of the table, by the first one."""
    table = lines[: lines.index("")]
    return {cells[0]: cells[1:] for cells in (line.split(maxsplit=5) for line in table)}


def test_every_registered_encoder_is_listed(run: Callable[..., Any]) -> None:
    done = run("encoders")
    found = rows(done.out)
    registered = sw.models.list_encoders()
    assert done.code == 0
    assert set(found) == {"name", *registered.index}
    assert found["name"] == ["modality", "loader", "gated", "offline", "licence"]
    assert found["stain_texture"] == ["image", "spatialwhisperer", "no", "yes", "BSD-3-Clause (no weights)"]
    assert found["uni2-h"][:3] == ["image", "timm", "yes"]
    assert found["scvi"][1] == "scvi-tools"


def test_one_modality_is_listed_alone(run: Callable[..., Any]) -> None:
    assert set(rows(run("encoders", "--modality", "text").out)) == {"name", *sw.models.list_encoders("text").index}
    done = run("encoders", "--modality", "sound")
    assert (done.code, len(done.err)) == (2, 1)


def test_weights_that_are_in_the_cache_work_offline(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    from spatialwhisperer.encoders.image._published import timm_source

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "none"))
    assert rows(run("encoders", "--modality", "image").out)["resnet18"][3] == "no"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(timm_source, "_cached", lambda name: tmp_path if name == "resnet18" else None)
    found = rows(run("encoders", "--modality", "image").out)
    assert (found["resnet18"][3], found["resnet50"][3]) == ("yes", "no")


def test_text_encoders_need_transformers(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from spatialwhisperer.encoders.text import transformer

    monkeypatch.setattr(transformer, "find_spec", lambda _: None)
    assert rows(run("encoders", "--modality", "text").out)["minilm"][3] == "no"
