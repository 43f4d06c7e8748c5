"""Labels for real sections that were not in training, from images that were never trained with a text.

Image–gene pairs come from sections with an image, gene–text pairs from sections without one and from single cells, none of them
of the test patient. Beside the methods stand a probe that is trained on the pathologist's labels, the two-stage route through
predicted expression, labels from the section's own expression, and null distributions of shuffled image–gene pairs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer._messages import inform
from spatialwhisperer.protocols import captions, published_models
from spatialwhisperer.protocols.annotation import references
from spatialwhisperer.protocols.annotation.methods import TRAINED
from spatialwhisperer.protocols.annotation.paired import null_p_values, over_sections, paired
from spatialwhisperer.protocols.annotation.scores import aurocs, near_truth
from spatialwhisperer.protocols.annotation.splits import SEVERAL_UM, SPLITS, image_key, load
from spatialwhisperer.protocols.annotation.zero_shot.tables import report
from spatialwhisperer.protocols.output import write_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData

    from spatialwhisperer.models import Whisperer
    from spatialwhisperer.protocols.annotation.splits import Materials, Split

_FROM_EXPRESSION = {"whisperer": "whisperer expression", "sequential": "expression"}
_NULL_OF = {
    "whisperer": ("whisperer shuffled", references.shuffled_closed_form),
    "sequential": ("shuffled", references.shuffled),
}


def run(
    data: Path,
    out: Path,
    *,
    n_seeds: int = 3,
    n_nulls: int = 50,
    baselines: Sequence[str] = (),
    smoke: bool = False,
) -> pd.DataFrame:
    """Run all splits and write ``annotation.csv``, ``annotation_paired.csv``, ``annotation_null.csv`` and ``annotation.md`` (tables).

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
    baselines
        Published models of images and texts that label the sections too, where their files are on this machine.
    smoke
        Use one split with a third of its rows, one seed, five shufflings and few epochs, to show that everything runs.

    Raises
    ------
    ValueError
        If a baseline is no model of images and texts.
    """
    published = published_models.open_here(baselines)
    splits = SPLITS[2:3] if smoke else SPLITS
    n_seeds, n_nulls = (1, 5) if smoke else (n_seeds, n_nulls)
    start = time.perf_counter()
    materials = load(data, splits, smoke=smoke)
    rows: list[pd.DataFrame] = []
    differences: list[pd.DataFrame] = []
    for split in splits:
        inform(f"{split.name}: {split.test}")
        place = {"split": split.name, "test": split.test}
        found = _one_split(split, materials, n_seeds, n_nulls, max_epochs=5 if smoke else None)
        if published.models:
            section = sw.datasets.her2st(split.test, data_dir=data)
            for name, scores in published.scores(section, split.test).items():
                found.add(scores, name)
        rows += [part.assign(**place) for part in found.rows]
        differences.append(paired(found.scores, found.truth, found.test).assign(**place))
    table = pd.concat(rows, ignore_index=True)
    pairs = pd.concat(differences, ignore_index=True)
    nulls = null_p_values(table, {method: null for method, (null, _) in _NULL_OF.items()})
    for name, frame in (("annotation", table), ("annotation_paired", pairs), ("annotation_null", nulls)):
        write_text(out / f"{name}.csv", frame.to_csv(index=False))
    text = report(table, over_sections(pairs), nulls, n_seeds, n_nulls, time.perf_counter() - start)
    if notes := published.notes():
        text += "\n" + notes
    write_text(out / "annotation.md", text)
    print(text)
    return table


@dataclass
class _Found:
    """Results of one split.

    Attributes
    ----------
    test, truth, near
        The section, the ground truth, and that of regions whose labels are of the section itself.
    rows
        AUROCs, ready to be joined.
    scores
        Scores by method, of the first seed.
    """

    test: AnnData
    truth: pd.DataFrame
    near: pd.DataFrame
    rows: list[pd.DataFrame] = field(default_factory=list)
    scores: dict[str, pd.DataFrame] = field(default_factory=dict)

    def add(self, scores: pd.DataFrame | None, method: str, **columns: Any) -> None:
        """Measure the scores of a method."""
        if scores is None:
            raise TypeError("annotate(inplace=False) returns the scores.")
        self.scores.setdefault(method, scores.reset_index(drop=True))
        for truth, name in ((self.truth, "all"), (self.near, "near")):
            self.rows.append(aurocs(scores, truth).assign(method=method, truth=name, **columns))


def _one_split(
    split: Split, materials: Materials, n_seeds: int, n_nulls: int, *, max_epochs: int | None = None
) -> _Found:
    train, test = [materials.images[s] for s in split.train], materials.images[split.test]
    texts, encoder = materials.texts[split.patient], materials.encoders[split.patient]
    one_size, several_sizes = image_key(split.tile_px), image_key(split.tile_px, SEVERAL_UM)
    truth = captions.targets(test)
    out = _Found(test, truth, near_truth(truth, test))
    for name, method in TRAINED.items():
        key = several_sizes if method.several_sizes else one_size
        epochs = max_epochs if method.has_seed else None
        for seed in range(n_seeds if method.has_seed else 1):
            start = time.perf_counter()
            model = method.train([*train, *texts], encoder, key, random_state=seed, max_epochs=epochs)
            seconds = time.perf_counter() - start
            out.add(_scores(test, model, "image"), name, seed=seed, seconds=seconds)
            if name in _FROM_EXPRESSION:
                out.add(_scores(test, model, "gene"), _FROM_EXPRESSION[name], seed=seed)
            if name in _NULL_OF and seed == 0:
                null_name, null = _NULL_OF[name]
                draws = null(model, train, test, encoder, key, n_nulls)
                out.rows += [
                    aurocs(s, truth).assign(method=null_name, truth="all", seed=i) for i, s in enumerate(draws)
                ]
    out.add(references.darkness(train, test), "darkness")
    out.add(references.probe(train, test, one_size), "probe")
    out.add(references.own_probe(test, one_size), "own probe")
    for name, key, several in (("two-stage", one_size, False), ("two-stage, several", several_sizes, True)):
        out.add(references.two_stage(train, test, texts, encoder, key, several=several), name)
    return out


def _scores(test: AnnData, model: Whisperer, modality: str) -> pd.DataFrame | None:
    return sw.tl.zero_shot_annotate(test, captions.TARGETS, model=model, modality=modality, inplace=False)
