"""Features and tissue darkness of the sections of a benchmark, computed once and kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

import spatialwhisperer as sw
from spatialwhisperer._messages import inform
from spatialwhisperer._storage.files import whole_file
from spatialwhisperer.tl.evaluation.baselines import DARKNESS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from spatialwhisperer.encoders.image.base import ImageEncoder
    from spatialwhisperer.protocols.benchmarks.folder.sections import BenchmarkSection, Pixels


@dataclass
class Materials:
    """What all measurements of a run use.

    Attributes
    ----------
    cache
        Folder of the features that are kept. A file is used where encoder, rows, tiles and pixels are those that it was made of.
    opened
        Encoders by name.
    """

    cache: Path
    opened: dict[str, ImageEncoder] = field(default_factory=dict)

    def encoder(self, name: str) -> ImageEncoder:
        """The encoder of a registered name, opened once."""
        if name not in self.opened:
            self.opened[name] = sw.models.image_encoder(name)
        return self.opened[name]

    def add_features(self, section: BenchmarkSection, name: str) -> str:
        """Write the features of an encoder to ``.obsm`` of a section's table, and return their key."""
        key = f"X_{name}"
        if key not in section.table.obsm:
            encoder, pixels = self.encoder(name), _pixels(section)
            identity = encoder.identity
            path = self._path(section, f"{identity.name} {identity.revision} {identity.digest}")
            section.table.obsm[key] = _kept(path, f"{section.name}: {name}", lambda: pixels.features(encoder))
        return key

    def add_darkness(self, section: BenchmarkSection) -> None:
        """Write the tissue darkness to ``.obs`` of a section's table."""
        if DARKNESS not in section.table.obs:
            pixels = _pixels(section)
            path = self._path(section, "darkness")
            section.table.obs[DARKNESS] = _kept(path, f"{section.name}: darkness", pixels.darkness)

    def _path(self, section: BenchmarkSection, what: str) -> Path:
        pixels = _pixels(section)
        made_of = [what, pixels.stamp, f"{pixels.tile_um:g} {pixels.tile_px}", *map(str, section.table.obs_names)]
        digest = sha256("\n".join(made_of).encode()).hexdigest()[:16]
        return self.cache / "features" / f"{section.name}-{what.split()[0].replace('/', '_')}-{digest}.npy"


def _pixels(section: BenchmarkSection) -> Pixels:
    if section.pixels is None:
        raise ValueError(f"Section {section.name} has no image.")
    return section.pixels


def _kept(path: Path, what: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
    if not path.is_file():
        inform(what)
        values = np.asarray(compute(), np.float32)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part, part.open("wb") as file:
            np.save(file, values)
    return np.load(path, allow_pickle=False)
