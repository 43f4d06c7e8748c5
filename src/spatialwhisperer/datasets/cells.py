"""Images with labelled nuclei: what the readers of such data sets return, and under which keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from spatialwhisperer._messages import listing

if TYPE_CHECKING:
    from spatialdata import SpatialData

TILE_PX = 224
"""Edge of a tile in pixels, as in the published benchmark."""

COUNTS = "cell_counts"
"""Key of ``.obsm`` with the nuclei of each tile by class; ``.uns[COUNTS]["classes"]`` names the columns."""

CELL_TYPE = "cell_type"
"""Column of ``.obs``: most frequent class of a tile, class of a nucleus."""


class CellImages(Mapping[str, "SpatialData"]):
    """Images by name, each read from its file whenever it is asked for and not kept.

    Parameters
    ----------
    names
        Names in order.
    read
        Reads one image as a SpatialData.
    classes
        Names of the nuclear classes, in the order of the counts.
    """

    def __init__(self, names: Sequence[str], read: Callable[[str], SpatialData], classes: Sequence[str]) -> None:
        self.names = list(names)
        self.classes = list(classes)
        self._read = read
        self._known = set(self.names)

    def __getitem__(self, name: str) -> SpatialData:
        if name not in self._known:
            raise KeyError(f"There is no image {name!r} (found: {listing(self.names)}).")
        return self._read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def __repr__(self) -> str:
        return f"CellImages of {len(self)} images ({listing(self.names, 3)}), classes: {listing(self.classes)}"
