"""A check of the stated scale against the spots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spatialwhisperer._access.sections.lattice import scale_differs, squared
from spatialwhisperer._messages import warn

if TYPE_CHECKING:
    from spatialwhisperer._access.sections.section import Section


def check_scale(section: Section) -> None:
    """Warn where the scale of a section does not fit the array of its spots."""
    if section.scale is None:
        return
    found = scale_differs(squared(section.xy_px, section.scale.stretch), section.scale.mpp)
    if found is None:
        return
    apart, lattice = found
    name = "Visium" if lattice.kind == "hexagonal" else "the first Spatial Transcriptomics arrays"
    known = " or ".join(f"{um:.0f}" for um in lattice.known_um)
    # in the pixels that an mpp of the caller is about
    pitch = lattice.pitch_px * section.pixel.per_pixel
    scales = " or ".join(f"{um / pitch:.4g}" for um in lattice.known_um)
    warn(
        f"With {section.scale.mpp:.4g} µm per pixel (by {section.scale.rule}) the spots of section {section.name!r} are {apart:.4g} µm apart. "
        f"They lie on a {lattice.kind} lattice like that of {name}, whose spots are {known} µm apart: mpp would be {scales}. Check it; where the "
        "spots are those of another array, ignore this."
    )
