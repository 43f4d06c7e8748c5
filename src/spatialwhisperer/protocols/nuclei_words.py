"""The words of nuclei that the image encoder ``nuclei`` comes with: ``python -m spatialwhisperer.protocols nuclei-words``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import spatialwhisperer as sw
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.tiles.plan import plan_tiles
from spatialwhisperer._access.tiles.sample import image_sample
from spatialwhisperer._messages import inform
from spatialwhisperer.encoders.image.nuclei import TILE_PX, TILE_UM, fit_words, measure_tiles
from spatialwhisperer.encoders.image.stain import SlideStain

if TYPE_CHECKING:
    from pathlib import Path

    from spatialdata import SpatialData

    from spatialwhisperer.encoders.image.nuclei import Nuclei, NucleusWords

SECTIONS = ("C2", "C3", "C4", "C5")
"""Sections of her2st with an image at full resolution."""

PITCH_UM = 200.0
NAME = "words.safetensors"


def run(data: Path, out: Path, *, smoke: bool = False) -> NucleusWords:
    """Learn the words and write ``words.safetensors``, whose place in the package is ``encoders/image/_nuclei``.

    Parameters
    ----------
    data
        Folder that holds ``her2st/``.
    out
        Folder of the file.
    smoke
        Take one section, to show that it runs.
    """
    names = SECTIONS[:1] if smoke else SECTIONS
    source = f"sections {', '.join(names)} of her2st (Andersson et al. 2021, Nat Commun 12:6012; CC BY 4.0)"
    words = fit_words(
        [nuclei_of(sw.datasets.her2st(name, data_dir=data)) for name in names], pitch_um=PITCH_UM, source=source
    )
    out.mkdir(parents=True, exist_ok=True)
    words.save(out / NAME)
    inform(f"{out / NAME}: {len(words.centroids)} words, digest {words.digest[:12]}")
    return words


def nuclei_of(section: SpatialData) -> list[Nuclei]:
    """Nuclei of the tile around each spot of a section."""
    plan = plan_tiles(Slide.open(section))
    sample, mpp = image_sample(plan.sections[0])
    stain = SlideStain.estimate(sample, mpp=mpp)
    return [n for _, tiles in plan.read(TILE_UM, TILE_PX) for n in measure_tiles(tiles, stain, TILE_UM / TILE_PX)]
