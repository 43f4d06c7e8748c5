"""How the images of a data set become tiles."""

from __future__ import annotations

from typing import Any

import pytest

from spatialwhisperer.datasets._nuclei.layout import Layout, choose


def layout(**options: Any) -> Layout:
    usual: dict[str, Any] = {
        "dataset": "d",
        "source": "s",
        "licence": "MIT",
        "classes": ("a",),
        "mpp": 0.5,
        "tile_px": 32,
        "always_drop": False,
    }
    return Layout(**usual | options)


@pytest.mark.parametrize("tile_px", [1, 2, 3])
def test_a_tile_of_one_pixel_is_the_smallest(tile_px: int) -> None:
    assert layout(tile_px=tile_px).tile_px == tile_px


@pytest.mark.parametrize("tile_px", [0, -1, 32.0, True, "32"])
def test_the_edge_of_a_tile_is_a_positive_whole_number(tile_px: Any) -> None:
    with pytest.raises(ValueError, match=f"tile_px must be a positive whole number, not {tile_px!r}"):
        layout(tile_px=tile_px)


def test_images_are_chosen_by_name() -> None:
    assert choose(None, ["a", "b"], "here") == ["a", "b"]
    assert choose("b", ["a", "b"], "here") == ["b"]
    assert choose(["b", "a"], ["a", "b"], "here") == ["b", "a"]
    with pytest.raises(ValueError, match="here has no image c; it has a, b"):
        choose(["a", "c"], ["a", "b"], "here")
    with pytest.raises(ValueError, match="can be asked for once"):
        choose(["a", "a"], ["a", "b"], "here")
