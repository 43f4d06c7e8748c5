"""Images whose coarse levels are there, as in a file, and not computed from the finest one when they are read."""

from __future__ import annotations

from typing import Any


def computed(image: Any) -> Any:
    """A DataTree with all its pixels in memory; a flat image comes back as it is."""
    return image.map_over_datasets(lambda level: level.persist()) if hasattr(image, "children") else image
