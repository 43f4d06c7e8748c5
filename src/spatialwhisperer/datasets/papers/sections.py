"""Sections of a published data set as a mapping: each is opened when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from spatialwhisperer._messages import listing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spatialdata import SpatialData

    from spatialwhisperer.datasets._sections.section import Section


@dataclass(frozen=True)
class PublishedSections(Mapping[str, Any]):
    """Sections of a published data set, by name.

    ``sections[name]`` opens a section as SpatialData: its image ``<name>_image``, its spots ``<name>_spots`` and its ``table``, as
    :func:`~spatialwhisperer.datasets.her2st` does. Nothing is kept in memory.

    Attributes
    ----------
    dataset
        Name of the data set, which is also the key of ``.uns`` with source and microns per pixel.
    patients
        Patient of each section.
    read
        Reads the files of a section by its name.
    """

    dataset: str
    patients: Mapping[str, str]
    read: Callable[[str], Section] = field(repr=False)

    def __getitem__(self, name: str) -> SpatialData:
        from spatialwhisperer.datasets._sections.section import assemble, check_inside

        if name not in self.patients:
            raise KeyError(f"There is no section {name!r} of {self.dataset} here (found: {listing(self, 12)}).")
        section = self.read(name)
        check_inside(section)
        return assemble([section], record=self.dataset)

    def __iter__(self) -> Iterator[str]:
        return iter(self.patients)

    def __len__(self) -> int:
        return len(self.patients)

    def __repr__(self) -> str:
        of = len(set(self.patients.values()))
        return f"PublishedSections({self.dataset}: {len(self)} sections of {of} patients: {listing(self, 12)})"
