"""Memory and time of `sw.pp.embed_images` for very many cells of a slide of 100,000 x 100,000 pixels.

usage: python benchmarks/whole_slide.py [--cells 1000000] [--edge-px 100000] [--encoder mean]

The image is a pyramid of zarr arrays without any chunk on the disk, which zarr reads as one colour: reading costs no decoding, and takes
the memory of a slide all the same. "mean" is a network that averages the pixels of a tile; another name is an image encoder.
Memory is the largest that the process had, above what it had when the object was there.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import spatialwhisperer as sw

MPP, CHUNK_PX, TILE_PX = 0.25, 1024, 64
_MIB = 2**20


def slide(n: int, edge_px: int, folder: Path) -> Any:
    """A slide with cells at random places."""
    import anndata as ad
    import dask.array as da
    import geopandas as gpd
    import shapely
    import zarr
    from spatialdata import SpatialData
    from spatialdata.models import ShapesModel, TableModel

    from spatialwhisperer._access.elements.pyramid import multiscale
    from spatialwhisperer.datasets._sections.elements import n_levels, transformations

    levels = []
    for level in range(n_levels((3, edge_px, edge_px))):
        shape = (3, edge_px >> level, edge_px >> level)
        array = zarr.create_array(
            folder / f"{level}.zarr", shape=shape, chunks=(3, CHUNK_PX, CHUNK_PX), dtype="uint8", fill_value=200
        )
        levels.append(da.from_zarr(array))
    systems = dict(transformations("slide", MPP))
    places = np.random.default_rng(0).uniform(TILE_PX, edge_px - TILE_PX, (n, 2))
    cells = gpd.GeoDataFrame({"radius": np.full(n, 20.0)}, geometry=shapely.points(places))
    table = ad.AnnData(np.zeros((n, 0), np.float32))
    table.obs["region"], table.obs["cell"] = "cells", np.arange(n)
    table.obs["region"] = table.obs["region"].astype("category")
    return SpatialData(
        images={"slide": multiscale(levels, systems)},
        shapes={"cells": ShapesModel.parse(cells, transformations=systems)},
        tables={"table": TableModel.parse(table, region="cells", region_key="region", instance_key="cell")},
    )


def _mean() -> Any:
    from torch import nn

    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--edge-px", type=int, default=100_000)
    parser.add_argument("--encoder", default="mean")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sdata = slide(args.cells, args.edge_px, Path(folder))
        encoder = _mean() if args.encoder == "mean" else args.encoder
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        before, start, cpu = pages * resource.getpagesize() / _MIB, time.perf_counter(), time.process_time()
        sw.pp.embed_images(sdata, encoder=encoder, tile_um=TILE_PX * MPP, tile_px=TILE_PX, key_added="X_features")
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    features = sdata["table"].obsm["X_features"]
    print(
        f"{args.cells:,} cells of {args.edge_px:,} x {args.edge_px:,} px: {seconds:.0f} s, {cpu:.0f} s of the processor, "
        f"{peak - before:.0f} MiB above the object, of which {features.nbytes / _MIB:.0f} MiB are the features"
    )


if __name__ == "__main__":
    main()
