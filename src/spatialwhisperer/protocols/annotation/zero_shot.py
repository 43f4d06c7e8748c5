"""Labels for real sections that were not in training, from images that were never trained with a text.

Image–gene pairs come from sections with an image, gene–text pairs from sections without one and from single cells, none of them
of the test patient. Beside the methods stand a probe that is trained on the pathologist's labels, the two-stage route through
predicted expression, labels from the section's own expression, and null distributions of shuffled image–gene pairs.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer._messages import inform
from spatialwhisperer.protocols import captions
from spatialwhisperer.protocols.annotation import references
from spatialwhisperer.protocols.annotation.methods import TRAINED
from spatialwhisperer.protocols.annotation.scores import aurocs
from spatialwhisperer.protocols.annotation.splits import SEVERAL_UM, SPLITS, image_key, load
from spatialwhisperer.protocols.annotation.zero_shot_tables import report
from spatialwhisperer.protocols.output import write_text

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

    from spatialwhisperer.models import Whisperer
    from spatialwhisperer.protocols.annotation.splits import Materials, Split

_FROM_EXPRESSION = {"whisperer": "whisperer expression", "sequential": "expression"}
_NULL_OF = {
    "whisperer": ("whisperer shuffled", references.shuffled_closed_form),
    "sequential": ("shuffled", references.shuffled),
}


def run(data: Path, out: Path, *, n_seeds: int = 3, n_nulls: int = 50, smoke: bool = False) -> pd.DataFrame:
    """Run all splits and write ``annotation.csv`` (tidy) and ``annotation.md`` (tables).

    Parameters
    ----------
    data
        Folder of the data.
    out
        Folder of the results.
    n_seeds
        Training runs of each method and split.
    n_nulls
        Shufflings of the image–gene pairs of each split.
    smoke
        Use one split, one seed and five shufflings, to show that everything runs.
    """
    splits = SPLITS[2:3] if smoke else SPLITS
    n_seeds, n_nulls = (1, 5) if smoke else (n_seeds, n_nulls)
    start = time.perf_counter()
    materials = load(data, splits, smoke=smoke)
    rows: list[pd.DataFrame] = []
    for split in splits:
        inform(f"{split.name}: {split.test}")
        rows += [
            part.assign(split=split.name, test=split.test) for part in _one_split(split, materials, n_seeds, n_nulls)
        ]
    table = pd.concat(rows, ignore_index=True)
    write_text(out / "annotation.csv", table.to_csv(index=False))
    text = report(table, n_seeds, n_nulls, time.perf_counter() - start)
    write_text(out / "annotation.md", text)
    print(text)
    return table


def _one_split(split: Split, materials: Materials, n_seeds: int, n_nulls: int) -> list[pd.DataFrame]:
    train, test = [materials.images[s] for s in split.train], materials.images[split.test]
    texts, encoder = materials.texts[split.patient], materials.encoders[split.patient]
    one_size, several_sizes = image_key(split.tile_px), image_key(split.tile_px, SEVERAL_UM)
    truth = captions.targets(test)
    out = []
    for name, method in TRAINED.items():
        key = several_sizes if method.several_sizes else one_size
        for seed in range(n_seeds if method.has_seed else 1):
            start = time.perf_counter()
            model = method.train([*train, *texts], encoder, key, random_state=seed)
            seconds = time.perf_counter() - start
            out.append(_scored(test, truth, model, "image").assign(method=name, seed=seed, seconds=seconds))
            if name in _FROM_EXPRESSION:
                out.append(_scored(test, truth, model, "gene").assign(method=_FROM_EXPRESSION[name], seed=seed))
            if name in _NULL_OF and seed == 0:
                null_name, null = _NULL_OF[name]
                draws = null(model, train, test, encoder, key, n_nulls)
                out += [aurocs(s, truth).assign(method=null_name, seed=i) for i, s in enumerate(draws)]
    out.append(aurocs(references.probe(train, test, one_size), truth).assign(method="probe"))
    for name, key, several in (("two-stage", one_size, False), ("two-stage, several", several_sizes, True)):
        scores = references.two_stage(train, test, texts, encoder, key, several=several)
        out.append(aurocs(scores, truth).assign(method=name))
    return out


def _scored(test: AnnData, truth: pd.DataFrame, model: Whisperer, modality: str) -> pd.DataFrame:
    scores = sw.tl.zero_shot_annotate(test, captions.TARGETS, model=model, modality=modality, inplace=False)
    return aurocs(scores, truth)
