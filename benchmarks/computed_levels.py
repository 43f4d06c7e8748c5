"""Labels of a real section: levels of the pyramid made once, computed by dask when they are read, or none.

usage: python benchmarks/computed_levels.py FOLDER [--section C2] [--rounds 3]

FOLDER holds her2st/. The first call imports and compiles and does not count; then the three objects are annotated in turn, each
opened anew, and the best round counts. Opening is not part of the time.
"""

from __future__ import annotations

import argparse
import time
import warnings
from typing import TYPE_CHECKING

import numpy as np
from spatialdata.models import Image2DModel
from spatialdata.transformations import get_transformation

import spatialwhisperer as sw

if TYPE_CHECKING:
    from spatialdata import SpatialData


def opened(folder: str, name: str, kind: str) -> SpatialData:
    """The section, with the kind of pyramid."""
    sdata = sw.datasets.her2st(name, data_dir=folder)
    image = sdata.images[f"{name}_image"]
    if kind != "made once":
        pixels = np.asarray(image["scale0"]["image"].data)
        factors = [2] * (len(image.children) - 1) if kind == "computed" else None
        systems = get_transformation(image, get_all=True)
        sdata.images[f"{name}_image"] = Image2DModel.parse(
            pixels, dims=("c", "y", "x"), c_coords=["r", "g", "b"], scale_factors=factors, transformations=systems
        )
    return sdata


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--section", default="C2")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    sw.tl.zero_shot_annotate(opened(arguments.folder, arguments.section, "made once"))
    best: dict[str, float] = {}
    for _ in range(arguments.rounds):
        for kind in ("made once", "computed", "none"):
            sdata = opened(arguments.folder, arguments.section, kind)
            start = time.perf_counter()
            sw.tl.zero_shot_annotate(sdata)
            best[kind] = min(best.get(kind, np.inf), time.perf_counter() - start)
    for kind, seconds in best.items():
        print(f"{kind:10} {seconds:6.2f} s   {seconds / best['made once']:.2f}")


if __name__ == "__main__":
    main()
