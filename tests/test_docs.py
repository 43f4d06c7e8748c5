from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

import spatialwhisperer as sw

API = Path(__file__).parents[1] / "docs" / "api"
NAMESPACES = ("pp", "tl", "pl", "models", "datasets")


def documented(namespace: str) -> list[str]:
    """Names that the namespace's page lists for autosummary."""
    text = (API / f"{namespace}.md").read_text(encoding="utf-8")
    return re.findall(rf"^\s+{namespace}\.(\w+)$", text, flags=re.MULTILINE)


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_pages_and_namespaces_agree(namespace: str) -> None:
    module = import_module(f"spatialwhisperer.{namespace}")
    names = documented(namespace)
    assert len(names) == len(set(names)), "a name is listed twice"
    assert set(names) == set(module.__all__)
    for name in names:
        assert getattr(module, name).__doc__, f"sw.{namespace}.{name} has no docstring"


def test_every_namespace_has_a_page() -> None:
    index = (API.parent / "api.md").read_text(encoding="utf-8")
    for page in [*NAMESPACES, "settings"]:
        assert (API / f"{page}.md").is_file()
        assert f"api/{page}" in index
    assert set(NAMESPACES) <= set(sw.__all__)


def test_settings_page_names_every_setting() -> None:
    """The page lists the environment variables, one for each setting."""
    from dataclasses import fields

    from spatialwhisperer.settings import Settings

    text = (API / "settings.md").read_text(encoding="utf-8")
    for field in fields(Settings):
        assert f"SPATIALWHISPERER_{field.name.upper()}" in text


def test_presets_page_shows_the_presets() -> None:
    """Its table is typed; the presets are what counts."""
    text = (API.parent / "presets.md").read_text(encoding="utf-8")
    for name, row in sw.models.presets().iterrows():
        shown = [row[c] for c in ("context", "heads", "norm", "temperature", "loss", "retrieval")]
        cells = [f"`{name}`", sw.models.get_preset(name).gene_encoder, *shown]
        assert f"| {' | '.join(cells)} |" in text
        assert f"| `{name}` | {row['paper']} |" in text
