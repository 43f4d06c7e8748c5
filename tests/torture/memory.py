"""Features of a section whose image never is in memory: its peak grows with the result alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.torture.frame import Campaign, Trial

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

MEASURED = """
import json, resource, sys, tempfile
import anndata as ad
import dask.array as da
import numpy as np
import spatialwhisperer as sw
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, ShapesModel, TableModel

n, size, chunk = int(sys.argv[1]), int(sys.argv[2]), 1024

def block(block_info=None):
    (_, _), (top, bottom), (left, right) = block_info[None]["array-location"]
    # a value of its own in each place, computed when it is asked for
    # in uint8, which goes around at 256: making the pixels must take less time than encoding them
    rows, columns = (np.arange(*ends).astype(np.uint8) for ends in ((top, bottom), (left, right)))
    channels = np.array([0, 40, 80], np.uint8)[:, None, None]
    return (rows * np.uint8(7))[:, None] + (columns * np.uint8(3))[None] + channels

sw.settings.cache_dir, sw.settings.verbose = tempfile.mkdtemp(), False
chunks = da.core.normalize_chunks((3, chunk, chunk), shape=(3, size, size))
image = da.map_blocks(block, chunks=chunks, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8))
side = int(np.ceil(n ** 0.5))
at = np.linspace(100, size - 100, side)
xy = np.stack([a.ravel() for a in np.meshgrid(at, at)], 1)[:n]
table = ad.AnnData(np.zeros((n, 0), np.float32))
table.obs["region"] = "spots"
table.obs["region"] = table.obs["region"].astype("category")
table.obs["id"] = np.arange(n)
sdata = SpatialData(
    images={"he": Image2DModel.parse(image, dims=("c", "y", "x"))},
    shapes={"spots": ShapesModel.parse(xy, geometry=0, radius=20.0)},
    tables={"table": TableModel.parse(table, region="spots", region_key="region", instance_key="id")},
)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
# what a first call imports and compiles is in memory before
first = SpatialData(images=sdata.images, shapes={"spots": sdata.shapes["spots"][:50]}, tables={"table": sdata.tables["table"][:50].copy()})
how = dict(encoder="stain_texture", tile_um=16, tile_px=32, mpp=0.5, inplace=False)
sw.pp.embed_images(first, **how)
before = peak()
features = sw.pp.embed_images(sdata, **how)
print(json.dumps([peak() - before, int(np.asarray(features).nbytes), int(np.isfinite(features).all())]))
"""
ALLOWED = 400 * 2**20
"""What may come on top of the result, whatever the number of tiles and the size of the image.

It is strips in which the axes are compared, the look at the image, blocks that are read ahead, and a batch. The images have 768 MB and
7.5 GB.
"""
LONG = [(5_000, 50_000), (20_000, 50_000)]
SHORT = [(400, 16_000), (1600, 16_000)]
LIMIT_S = 3600
"""More than ten times what the largest takes on one core."""


def trials(_rng: np.random.Generator, n: int) -> Iterator[Trial]:
    """A small number of tiles and four times as many; with ``make torture`` on an image of 50,000 pixels a side."""
    for tiles, size in (SHORT if n <= len(SHORT) else [*SHORT, *LONG])[:n]:
        try:
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", MEASURED, str(tiles), str(size)],
                cwd=Path(__file__).parents[2],
                capture_output=True,
                text=True,
                check=False,
                timeout=LIMIT_S,
            )
        except subprocess.TimeoutExpired:
            yield Trial("no end", f"{tiles:,} tiles: no end after {LIMIT_S} s")
            continue
        if done.returncode:
            yield Trial("error", f"{tiles:,} tiles: {done.stderr[-400:]}")
            continue
        grown, result, finite = json.loads(done.stdout.splitlines()[-1])
        wrong = "" if finite else "features are not finite"
        if grown > ALLOWED + 4 * result:
            wrong = f"{grown / 2**20:.0f} MB more than before, for a result of {result / 2**20:.0f} MB"
        yield Trial(f"{tiles:,} tiles: +{grown / 2**20:.0f} MB", wrong and f"{tiles:,} tiles: {wrong}")


CAMPAIGN = Campaign("memory: large lazy image", trials, bounded=2, long=4, posix=True)
