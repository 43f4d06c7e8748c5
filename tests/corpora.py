"""Small corpora for tests: features are random numbers, captions are made up."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer.encoders.spec import EncoderSpec
from spatialwhisperer.encoders.text.base import TextEncoder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DIMS = {"image": 6, "gene": 5, "text": 4}


class HashedText(TextEncoder):
    """Random features of a text, that follow from the text alone."""

    def __init__(self, dim: int = DIMS["text"]) -> None:
        self.spec = EncoderSpec("hashed", "text", dim, licence="MIT")

    def encode(self, inputs: Sequence[str], **_: Any) -> np.ndarray:
        """One row for each text."""
        seeds = [int.from_bytes(hashlib.sha256(t.encode()).digest()[:8], "big") for t in inputs]
        return np.stack([np.asarray(np.random.default_rng(s).normal(size=self.spec.dim), np.float32) for s in seeds])


def slide(
    seed: int,
    n: int,
    patients: Sequence[str],
    *,
    image: bool = True,
    gene: bool = True,
    captions: Sequence[str] = (),
) -> ad.AnnData:
    """A table with features; rows take the patients in turn, and captions by chance."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(n, 3))
    obs = pd.DataFrame({"patient": [patients[i % len(patients)] for i in range(n)]}, index=[f"r{i}" for i in range(n)])
    if captions:
        obs["text"] = [captions[i] for i in rng.integers(0, len(captions), n)]
    out = ad.AnnData(obs=obs)
    for name, there, weights in (("image", image, 11), ("gene", gene, 12)):
        if there:
            w = np.random.default_rng(weights).normal(size=(3, DIMS[name]))
            out.obsm[f"X_{name}"] = (hidden @ w + 0.1 * rng.normal(size=(n, DIMS[name]))).astype(np.float32)
    return out


def sources(**changes: Any) -> list[sw.pp.CorpusSource]:
    """Three slides of three patients, and cells with captions of two others."""
    slides = {f"S{i}": slide(i, 40 + 10 * i, [f"P{i}"]) for i in range(3)}
    cells = slide(9, 90, ["C1", "C2"], image=False, captions=["tumour", "stroma", "fat", "T cells"])
    licences = {"licence": "CC BY 4.0", **changes}
    return [sw.pp.CorpusSource("slides", slides, **licences), sw.pp.CorpusSource("cells", cells, **licences)]


def options(**changes: Any) -> dict[str, Any]:
    """Options of `build_corpus` for such sources."""
    return {
        "image": sw.tl.ImageFeatures(key="X_image"),
        "gene": sw.tl.GeneFeatures(key="X_gene"),
        "text": HashedText(),
        **changes,
    }


def build(folder: Path, given: Sequence[sw.pp.CorpusSource] | None = None, **changes: Any) -> Path:
    """Build a corpus."""
    return sw.pp.build_corpus(sources() if given is None else given, folder, **options(**changes))
