"""The table of protocols, and its copy in the docs."""

from __future__ import annotations

from pathlib import Path

import spatialwhisperer as sw
from spatialwhisperer.models.presets.catalogue import PRESETS

PAGE = Path(__file__).parents[3] / "docs" / "presets.md"


def test_every_published_method_is_compared() -> None:
    table = sw.models.compare_protocols()
    assert list(table.columns) == ["published", "peer", "strict"]
    assert set(table.index.unique("preset")) == set(PRESETS) - {"whisperer"}
    assert table.index.is_unique
    assert (table != "").all(axis=None)


def test_values_follow_from_the_presets() -> None:
    table = sw.models.compare_protocols()
    for name in ("spatialwhisperer", "bleep", "mclstexp", "omiclip-predex"):
        for protocol in ("peer", "strict"):
            rate = sw.models.get_preset(name, protocol).joint.learning_rate
            assert table.loc[(name, "learning rate, heads"), protocol] == f"{rate:g}"
    assert table.loc[("spatialwhisperer", "batch"), "peer"] == "512, last one dropped, natural mixture"
    assert table.loc[("bleep", "weight decay"), "peer"] == "0.001, all parameters"


def test_the_page_shows_the_table() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name, part, published, peer, strict in sw.models.compare_protocols().reset_index().itertuples(index=False):
        assert f"| `{name}` | {part} | {published} | {peer} | {strict} |" in page
