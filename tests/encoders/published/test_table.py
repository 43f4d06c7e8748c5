"""The table of published encoders says what their networks are."""

from __future__ import annotations

from typing import Any

import pytest

import spatialwhisperer as sw
from spatialwhisperer.encoders.image._published.timm_source import Source
from spatialwhisperer.encoders.published.table import published, specs

TIMM = [row for row in published().values() if row.spec.loader == "timm"]


def test_every_row_is_registered_with_its_facts() -> None:
    table = sw.models.list_encoders("image")
    assert set(published()) <= set(table.index)
    for name, row in published().items():
        assert sw.models.get_spec(name, "image") == row.spec
        assert row.spec.loader in ("timm", "transformers", "open_clip", "custom")
        assert row.spec.pooling


def test_no_encoder_is_opened_by_two_classes() -> None:
    loaders = [specs(name) for name in ("timm", "transformers", "open_clip", "custom")]
    names = [spec.name for some in [*loaders, specs("custom", lent=True)] for spec in some]
    assert sorted(names) == sorted(published())


def test_fields_of_view_fit_the_pixels() -> None:
    for row in published().values():
        spec = row.spec
        if spec.tile_um is not None and spec.mpp is not None and spec.input_px is not None:
            # a tile may be shrunk to the input of the network, and is never blown up
            assert spec.tile_um >= spec.input_px * spec.mpp


def test_a_licence_that_forbids_it_allows_no_commercial_use() -> None:
    for row in published().values():
        if "NC" in row.spec.licence or "non-commercial" in row.spec.licence:
            assert row.spec.commercial is False
        if row.spec.licence == "unknown":
            assert row.spec.commercial is None


@pytest.mark.slow
@pytest.mark.parametrize("row", TIMM, ids=lambda row: row.spec.name)
def test_networks_have_the_published_size(row) -> None:
    import torch

    with torch.device("meta"):
        network: Any = Source(row.spec, pretrained=False).network()
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(row.parameters_m, abs=0.06)
    wide = 2 if row.spec.pooling == "cls+mean" else 1
    assert network.num_features * wide == row.spec.dim
    assert not hasattr(network, "pos_embed") or network.num_prefix_tokens == 1 + row.options.get(
        "reg_tokens", 4 if "reg4" in row.architecture else 0
    )
