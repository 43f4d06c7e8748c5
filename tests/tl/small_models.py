"""Models of expression for small data."""

from __future__ import annotations

from typing import Any

import spatialwhisperer as sw

TILES = sw.tl.ImageFeatures(tile_um=80, tile_px=64)


def few(name: str, protocol: str = "strict") -> Any:
    """A preset for small data."""
    frozen = {"locking": "LLL", "image_encoder": "stain_texture"}
    return sw.models.get_preset(name, protocol).replace(batch_size=64, **frozen)


def alone(table: Any) -> Any:
    """The table as an AnnData of its own."""
    out = table.copy()
    out.uns.pop("spatialdata_attrs", None)
    return out


def predict(model: Any, data: Any, **options: Any) -> Any:
    return sw.tl.predict_expression(data, model=model, inplace=False, **options)
