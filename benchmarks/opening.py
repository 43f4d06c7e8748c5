"""What the checks of a stored model cost: `Whisperer.load`, the first use of the embedded model, and features of tiles.

usage: python benchmarks/opening.py [--repeats 9] [--before FOLDER_OF_SOURCES]

With and without checks alternate, and medians are compared. What happens once in a process is measured in processes of their own. "Without" is this package with its checksums, its
comparisons and its cache of finished batches taken out, or other sources of the package (an earlier version) where ``--before`` names them.
The time of the processor is what a busy computer leaves unchanged; the time on the clock is what a user waits.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

MEASURE = """
import json, sys, tempfile, time, warnings
warnings.simplefilter("ignore")
import numpy as np
import anndata as ad

what, off = sys.argv[1], sys.argv[2] == "off"
import spatialwhisperer as sw
sw.settings.verbose = sw.settings.progress = False
sw.settings.cache_dir = tempfile.mkdtemp()

def switched_off():
    # checksums, comparisons and the cache of finished batches
    import contextlib, json as plain
    from unittest import mock
    from spatialwhisperer._artifact import artifact, verify
    from spatialwhisperer.models import opening
    from spatialwhisperer.pp.features import finished_batches
    nothing = lambda *_, **__: None
    stack = contextlib.ExitStack()
    for owner, name, instead in [
        (artifact, "verified", lambda path, *_: path.read_bytes()),
        (verify, "digest", lambda stated: stated["digest"]),
        (verify, "parse_json", lambda content, _: plain.loads(content)),
        *((artifact, name, nothing) for name in ("refuse_pickles", "check_listing", "check_link", "identity")),
        *((verify, name, nothing) for name in ("check_link", "_check_names")),
        (opening, "compare_shapes", nothing),
        (opening, "within", lambda _: contextlib.nullcontext()),
        (finished_batches.FinishedBatches, "features", lambda self, tiles, encode: encode(tiles)),
    ]:
        stack.enter_context(mock.patch.object(owner, name, instead))
    return stack

def section(n, size):
    draw = np.random.default_rng(0)
    adata = ad.AnnData(np.zeros((n, 0), np.float32))
    adata.obsm["spatial"] = draw.uniform(100, size - 100, (n, 2))
    pixels = draw.integers(60, 220, (size, size, 3), dtype=np.uint8)
    adata.uns["spatial"] = {"slide": {"images": {"fullres": pixels}, "scalefactors": {"microns_per_pixel": 0.5}}}
    return adata

clock, cpu = time.perf_counter, time.process_time
def timed(run):
    a, b = clock(), cpu()
    run()
    return clock() - a, cpu() - b

def alternating(run, repeats):
    run()
    pairs = []
    for _ in range(repeats):
        with switched_off():
            without = timed(run)
        pairs.append((timed(run), without))
    return np.median(pairs, axis=0).tolist()

if what in ("load", "embed_images"):
    if what == "load":
        from spatialwhisperer.models import Whisperer
        run = lambda: Whisperer.load("her2st-mini")
    else:
        adata = section(1000, 3000)
        run = lambda: sw.pp.embed_images(adata.copy(), tile_um=112, tile_px=224, mpp=0.5)
    if sys.argv[2] == "both":
        print(json.dumps(alternating(run, int(sys.argv[3]))))
        raise SystemExit
    run()
    runs = [timed(run) for _ in range(int(sys.argv[3]))]
else:
    if what == "default_model":
        from spatialwhisperer.models import default_model as run
    else:
        adata = section(100, 1200)
        run = lambda: sw.tl.zero_shot_annotate(adata)
    if off:
        switched_off()
    runs = [timed(run)]
print(json.dumps(np.median(runs, axis=0).tolist()))
"""
MEASURED = {
    "load": "Whisperer.load, again in a running process",
    "default_model": "sw.models.default_model(), first call in a process",
    "zero_shot_annotate": "sw.tl.zero_shot_annotate, first call in a process, 100 spots",
    "embed_images": "sw.pp.embed_images, 1,000 tiles of 224 pixels",
}


IN_ONE_PROCESS = ("load", "embed_images")


def measure(what: str, how: str, repeats: int, sources: Path | None = None) -> Any:
    """Seconds on the clock and of the processor, in a process of its own; of both ways where ``how`` is "both"."""
    env = dict(os.environ, OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1")
    if sources is not None:
        env["PYTHONPATH"] = str(sources)
    command = [sys.executable, "-c", MEASURE, what, how, str(repeats)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print a table: seconds with and without checks, and what they add."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--before", type=Path, help="src folder of an earlier version, in place of switched-off checks")
    parser.add_argument("--only", nargs="*", default=list(MEASURED), choices=list(MEASURED))
    chosen = parser.parse_args()
    print("| what | with checks, s | without, s | added | added, processor |\n|---|---|---|---|---|")
    for what in chosen.only:
        if what in IN_ONE_PROCESS and chosen.before is None:
            on, off = map(np.array, measure(what, "both", chosen.repeats))
        else:
            pairs = []
            for _ in range(chosen.repeats):
                without = measure(what, "off" if chosen.before is None else "on", 5, chosen.before)
                pairs.append((measure(what, "on", 5), without))
            on, off = np.median(pairs, axis=0)
        clock, cpu = 100 * (on / off - 1)
        print(
            f"| {MEASURED[what]} | {on[0]:.3f} ({on[1]:.3f}) | {off[0]:.3f} ({off[1]:.3f}) | {clock:+.1f} % | {cpu:+.1f} % |",
            flush=True,
        )
    print("\nMedians; in brackets the time of the processor.")


if __name__ == "__main__":
    main()
