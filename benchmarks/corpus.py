"""A simulated corpus of N image–gene and N gene–text pairs, built, and trained on for one pass: speed, waiting and memory.

usage: python benchmarks/corpus.py [--pairs 10000 100000] [--folder FOLDER] [--dtype float16] [--annbatch]

Features have 1,536 (image), 512 (gene) and 768 (text) columns, and a batch 512 rows. Each step is a process of its own, so that its peak
memory is its own; the memory after the imports is subtracted. ``--annbatch`` reads the image features of the corpus by annbatch too,
which has no batches of several kinds and no order that continues in the middle, for its speed alone.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

DIMS = {"image": 1536, "gene": 512, "text": 768}
SLIDE_ROWS = 16_384
BATCH = 512


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def table(first: int, n: int, *, captions: bool) -> Any:
    """Rows whose features are random maps of few hidden factors."""
    import anndata as ad
    import pandas as pd

    rng = np.random.default_rng([first, captions])
    hidden = rng.standard_normal((n, 16), np.float32)
    obs = pd.DataFrame({"patient": f"{'C' if captions else 'P'}{first}"}, index=[f"{first + i}" for i in range(n)])
    out = ad.AnnData(obs=obs)
    for name in ("gene",) if captions else ("image", "gene"):
        weights = np.random.default_rng(DIMS[name]).normal(size=(16, DIMS[name])).astype(np.float32)
        out.obsm[f"X_{name}"] = hidden @ weights + rng.standard_normal((n, DIMS[name]), np.float32)
    if captions:
        out.obs["text"] = [f"a made-up caption of cell {first + i}" for i in range(n)]
    return out


def build(folder: Path, pairs: int, dtype: str) -> dict[str, float]:
    """Build the corpus."""
    import anndata.io  # noqa: F401 - imports are not measured
    import zarr.codecs  # noqa: F401

    import spatialwhisperer as sw
    from spatialwhisperer.encoders.spec import EncoderSpec
    from spatialwhisperer.encoders.text.base import TextEncoder

    class Made(TextEncoder):
        """Random features by the number of the cell."""

        def __init__(self) -> None:
            self.spec = EncoderSpec("made", "text", DIMS["text"], licence="MIT")
            self.rows = np.random.default_rng(0).normal(size=(4096, DIMS["text"])).astype(np.float32)

        def encode(self, inputs: Sequence[str], **_: Any) -> np.ndarray:
            number = np.array([int(text.rpartition(" ")[2]) for text in inputs])
            return self.rows[number % 4096] + self.rows[(number * 7 + number // 4096) % 4096]

    def slides(captions: bool) -> dict[str, Any]:
        starts = range(0, pairs, SLIDE_ROWS)
        return {f"{s}": lambda s=s: table(s, min(SLIDE_ROWS, pairs - s), captions=captions) for s in starts}

    sw.settings.verbose = False
    image, gene = sw.tl.ImageFeatures(key="X_image"), sw.tl.GeneFeatures(key="X_gene")
    build_corpus = sw.pp.build_corpus
    sources = [
        sw.pp.CorpusSource("slides", slides(False), licence="CC0"),
        sw.pp.CorpusSource("cells", slides(True), licence="CC0"),
    ]
    before, start = peak_mib(), time.perf_counter()
    build_corpus(sources, folder, image=image, gene=gene, text=Made(), dtype=dtype)
    seconds = time.perf_counter() - start
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    return {"seconds": seconds, "pairs_per_s": 2 * pairs / seconds, "gb": size / 1e9, "peak_mib": peak_mib() - before}


def train(folder: Path, pairs: int) -> dict[str, float]:  # noqa: ARG001
    """Train one pass, and measure what the training waits for."""
    import lightning.pytorch as pl
    import zarr.codecs  # noqa: F401 - imports are not measured
    from lightning.pytorch.profilers import SimpleProfiler

    import spatialwhisperer as sw
    from spatialwhisperer.tl._training.corpus import run as _  # noqa: F401 - imports are not measured
    from spatialwhisperer.training import callbacks, lightning  # noqa: F401

    sw.settings.verbose = False
    del pl
    profiler = SimpleProfiler()
    preset = sw.models.get_preset("spatialwhisperer").replace(batch_size=BATCH, min_steps=1)
    before, start = peak_mib(), time.perf_counter()
    trainer = {"accelerator": "cpu", "profiler": profiler}
    model = sw.tl.train(folder, preset=preset, max_epochs=1, trainer=trainer)
    whole = time.perf_counter() - start
    durations = profiler.recorded_durations
    waited = sum(durations["[_TrainingEpochLoop].train_dataloader_next"])
    fitted = sum(durations["run_training_epoch"])
    steps = int(model.history["step"].iloc[-1])
    return {
        "seconds": whole,
        "epoch_seconds": fitted,
        "pairs_per_s": steps * BATCH / fitted,
        "waiting": waited / fitted,
        "ms_per_step": 1e3 * fitted / steps,
        "peak_mib": peak_mib() - before,
    }


def read(folder: Path, pairs: int) -> dict[str, float]:  # noqa: ARG001
    """Read one pass without training: by the loader of this package, image–gene and gene–text rows together."""
    from spatialwhisperer.training.corpus.batches import CorpusItems, Standard
    from spatialwhisperer.training.corpus.feed import CorpusFeed
    from spatialwhisperer.training.corpus.shards import Corpus

    corpus = Corpus.open(folder)
    none = {m: Standard("none", np.zeros(1), np.ones(1)) for m in DIMS}
    feed = CorpusFeed(corpus, DIMS, none, (("image", "gene"), ("gene", "text")), frozenset(), BATCH, True, 0)
    sampler, items = feed.sampler(1), CorpusItems(corpus.shards, DIMS, none)
    before, start, rows, nbytes = peak_mib(), time.perf_counter(), 0, 0
    for pieces in sampler:
        batch = items.batch(pieces, 0)
        rows += len(batch["row"])
        nbytes += sum(batch[m]["x"].nbytes for m in DIMS)
    items.close()
    seconds = time.perf_counter() - start
    return {"pairs_per_s": rows / seconds, "mb_per_s": nbytes / 1e6 / seconds, "peak_mib": peak_mib() - before}


def annbatch(folder: Path, pairs: int) -> dict[str, float]:  # noqa: ARG001
    """Read the image features alone by annbatch, in blocks and windows of the same size."""
    import zarr
    from annbatch import Loader  # type: ignore[import-not-found,unused-ignore]

    paths = sorted((folder / "shards").glob("*/gene-image-*"))
    before = peak_mib()
    loader = Loader(batch_size=BATCH, chunk_size=256, preload_nchunks=32, shuffle=True)
    loader.add_datasets([zarr.open_group(p, mode="r")["obsm"]["X_image"] for p in paths])
    start, rows, nbytes = time.perf_counter(), 0, 0
    for batch in loader:
        x = np.asarray(batch["X"])
        rows, nbytes = rows + len(x), nbytes + x.nbytes
    seconds = time.perf_counter() - start
    return {"rows_per_s": rows / seconds, "mb_per_s": nbytes / 1e6 / seconds, "peak_mib": peak_mib() - before}


def images(folder: Path, pairs: int) -> dict[str, float]:  # noqa: ARG001
    """Read the image features alone by the loader of this package."""
    from spatialwhisperer.training.corpus.batches import CorpusItems, Standard
    from spatialwhisperer.training.corpus.order import CorpusBatches, streams_of
    from spatialwhisperer.training.corpus.shards import Corpus

    corpus = Corpus.open(folder)
    dims = {"image": DIMS["image"]}
    streams = streams_of([s.record for s in corpus.shards], [("image", "image")], keep=bool, balanced=False)
    items = CorpusItems(corpus.shards, dims, {"image": Standard("none", np.zeros(1), np.ones(1))})
    before, start, rows, nbytes = peak_mib(), time.perf_counter(), 0, 0
    for pieces in CorpusBatches(streams, BATCH, seed=0):
        x = items.batch(pieces, 0)["image"]["x"]
        rows, nbytes = rows + len(x), nbytes + x.nbytes
    items.close()
    seconds = time.perf_counter() - start
    return {"rows_per_s": rows / seconds, "mb_per_s": nbytes / 1e6 / seconds, "peak_mib": peak_mib() - before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--folder", type=Path, help="where the corpora are built; a temporary folder if left out")
    parser.add_argument("--dtype", choices=["float32", "float16"], default="float32")
    parser.add_argument("--annbatch", action="store_true")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        given = [options.dtype] if options.step == "build" else []
        print(json.dumps(globals()[options.step](options.folder, options.pairs[0], *given)))
        return
    root = Path(tempfile.mkdtemp()) if options.folder is None else options.folder
    try:
        for pairs in options.pairs:
            folder = root / f"{pairs}-{options.dtype}"
            for step in ("build", "train", "read", *(("images", "annbatch") if options.annbatch else ())):
                command = [sys.executable, __file__, "--step", step, "--pairs", str(pairs), "--folder", str(folder)]
                done = subprocess.run(
                    [*command, "--dtype", options.dtype], check=True, stdout=subprocess.PIPE, text=True
                )
                found = json.loads(done.stdout.splitlines()[-1])
                print(f"{pairs:>9,} {step:>9}", *(f"{k} {v:.4g}" for k, v in found.items()), sep="  ", flush=True)
            if options.folder is None:
                shutil.rmtree(folder)
    finally:
        if options.folder is None:
            shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
