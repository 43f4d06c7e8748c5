"""Some rows of a corpus in memory: what a model is built from, and what it keeps as its reference."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialwhisperer.tl._training.inputs import Inputs, ModalityInputs
from spatialwhisperer.training.batches import Items
from spatialwhisperer.training.corpus.feed import drawn_blocks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spatialwhisperer.encoders.base import Encoder
    from spatialwhisperer.training.corpus.batches import Standard
    from spatialwhisperer.training.corpus.shards import Corpus

ROWS = 10_000
"""Rows that are drawn."""

MOST_LABELS = 200
"""With more distinct captions than this a model does not keep them as its labels: they are sentences, not classes."""


def sample_inputs(
    corpus: Corpus,
    standards: Mapping[str, Standard],
    encoders: Mapping[str, Encoder],
    *,
    held_out: frozenset[str],
    seed: int,
) -> Inputs:
    """Inputs of some rows of the training patients.

    Parameters
    ----------
    corpus
        The corpus.
    standards
        How features are standardised, by modality that is trained.
    encoders
        Encoders that the model must store.
    held_out
        Patients that are held out.
    seed
        Seed of the draw.
    """
    raw: dict[str, list[np.ndarray]] = {m: [] for m in standards}
    scaled: dict[str, list[np.ndarray]] = {m: [] for m in standards}
    columns: dict[str, list[Any]] = {name: [] for name in ("group", "section", "caption", *standards)}
    texts: dict[str, np.ndarray] = {}
    whole: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {m: {} for m in standards}
    count = dict.fromkeys(standards, 0)
    for number, start, stop in drawn_blocks(corpus, standards, held_out=held_out, rows=ROWS, seed=seed).tolist():
        shard = corpus.shards[number]
        block, n = shard.block(start, stop), stop - start
        columns["group"] += shard.patients(start, stop).tolist()
        names = shard.section_names()
        columns["section"] += [names[code] for code in block.section]
        captions = shard.first_captions(start, stop)
        columns["caption"] += captions
        for i, caption in enumerate(captions):
            if caption is not None and caption not in texts and block.captions is not None:
                texts[caption] = block.features["text"][block.captions[i][block.captions[i] >= 0][0]]
        for m in standards:
            held = m in block.features and m != "text"
            columns[m] += range(count[m], count[m] + n) if held else [-1] * n
            if held:
                x = np.asarray(block.features[m], np.float32)
                raw[m].append(x)
                scaled[m].append(standards[m].of_block(x, block.section, partial(shard.statistics, m)))
                mean, std, _ = shard.statistics(m)
                whole[m] |= {names[code]: (mean[code], std[code]) for code in np.unique(block.section).tolist()}
                count[m] += n
    rows = pd.DataFrame({"source": 0, **columns, "x": np.nan, "y": np.nan})
    if "text" in standards:
        raw["text"] = scaled["text"] = [np.asarray(list(texts.values()), np.float32)]
        place = {caption: i for i, caption in enumerate(texts)}
        rows["text"] = [place.get(c, -1) for c in columns["caption"]]
    stacked = {m: np.concatenate(parts) for m, parts in raw.items()}
    inputs = {m: np.concatenate(parts) for m, parts in scaled.items()}
    index = {m: rows[m].to_numpy() for m in standards}
    items = Items(inputs, index, np.arange(len(rows)), rows["group"].to_numpy())
    modalities = {m: _modality(corpus, m, stacked[m], standards[m], encoders.get(m), whole[m]) for m in standards}
    return Inputs(items, modalities, list(texts), rows)


def _modality(
    corpus: Corpus,
    modality: str,
    x: np.ndarray,
    standard: Standard,
    encoder: Encoder | None,
    whole: Mapping[str, tuple[np.ndarray, np.ndarray]],
) -> ModalityInputs:
    feature = corpus.manifest.features[modality]
    statistics = None if modality == "text" else (standard.mean, standard.std)
    return ModalityInputs(
        x, feature.recipe, feature.dim, standard.how, statistics, encoder, whole_sections=whole or None
    )
