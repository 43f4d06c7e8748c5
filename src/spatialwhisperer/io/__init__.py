"""Files in and out: slides, regions and cells of QuPath, alignments of Xenium, and features that other tools computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spatialwhisperer._lazy import lazy_namespace

if TYPE_CHECKING:
    from spatialwhisperer.io.features import from_hest, from_stamp, from_trident, from_wsidata
    from spatialwhisperer.io.qupath import read_qupath, write_qupath
    from spatialwhisperer.io.slide import read_slide
    from spatialwhisperer.io.xenium import align_xenium, read_xenium_alignment

_PLACES = {
    "align_xenium": "io.xenium",
    "from_hest": "io.features",
    "from_stamp": "io.features",
    "from_trident": "io.features",
    "from_wsidata": "io.features",
    "read_qupath": "io.qupath",
    "read_slide": "io.slide",
    "read_xenium_alignment": "io.xenium",
    "write_qupath": "io.qupath",
}

__all__ = lazy_namespace(__name__, _PLACES)
