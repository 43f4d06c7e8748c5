"""How many pairs of one kind are needed, alone and with the pairs that connect it to the rest (the paper's low-data experiment).

It runs on HER2-positive sections, with spots as pairs and the splits of the annotation protocol. Pairs of one kind are reduced to a
fraction, the others stay complete. Subsets are nested: with one seed, the rows of a small fraction are among those of a larger one.

- image–gene: the image is linked to the gene features with a fraction of the spots of the training sections. Labels reach an image
  only through the genes, so these pairs alone give none.
- gene–text: the gene embedding learns from a fraction of the captioned spots and cells of other patients. Alone it labels expression;
  with the image–gene pairs it labels images.
- image–text: captions of the pathologist's regions on the training sections, alone and with the two other kinds.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer._frozen import frozen
from spatialwhisperer._messages import inform
from spatialwhisperer.protocols import captions
from spatialwhisperer.protocols.annotation.low_data.tables import ALONE, BRIDGED, OTHERS, draw, fraction_name, report
from spatialwhisperer.protocols.annotation.methods import TRAINED, Method
from spatialwhisperer.protocols.annotation.references import standardised
from spatialwhisperer.protocols.annotation.scores import aurocs
from spatialwhisperer.protocols.annotation.splits import SPLITS, image_key, load
from spatialwhisperer.protocols.output import write_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData

    from spatialwhisperer.models import GeneEncoder, Whisperer
    from spatialwhisperer.protocols.annotation.splits import Materials, Split

FRACTIONS = (1.0, 1 / 8, 1 / 64)
FOLDS = tuple(s for s in SPLITS if s.test in ("A1", "C3"))
"""Two splits between patients and one within."""

X_STANDARDISED = "X_standardised"
"""Key of ``.obsm`` with image features that are standardised over their whole section."""

SMOKE_EPOCHS = 3
OTHER_PAIRS = (("image", "gene"), ("gene", "text"))


def _for_standardised(method: Method) -> Method:
    """The method for image features that are standardised already."""
    return replace(method, preset=method.preset.replace(standardize=frozen(image="none", gene="global", text="none")))


BRIDGING = _for_standardised(TRAINED["whisperer, one size"])
"""Images reach text through the genes: the default at this size, in closed form."""

JOINT = _for_standardised(TRAINED["joint linear"])
"""One recipe for image–text pairs alone and with the others."""


@dataclass(frozen=True)
class Result:
    """AUROC by class of one condition: which pairs were reduced, what else was trained on, and how many pairs there were."""

    pair: str
    condition: str
    n_pairs: int
    rows: pd.DataFrame


def run(data: Path, out: Path, *, n_seeds: int = 3, smoke: bool = False) -> pd.DataFrame:
    """Run all splits and write ``low_data.csv`` (tidy), ``low_data.md`` and ``low_data.png``; a finished split is not repeated.

    Parameters
    ----------
    data
        Folder of the data.
    out
        Folder of the results.
    n_seeds
        Subsets and training runs of each fraction.
    smoke
        Use one split, one seed and few epochs, to show that everything runs.
    """
    folds = FOLDS[1:2] if smoke else FOLDS
    fractions = FRACTIONS[::2] if smoke else FRACTIONS
    n_seeds = 1 if smoke else n_seeds
    parts = out / "low_data"
    todo = [f for f in folds if not _file(parts, f, n_seeds, smoke).is_file()]
    if todo:
        materials = load(data, tuple(todo), smoke=smoke)
    for fold in todo:
        rows = _one_fold(fold, materials, fractions, n_seeds, max_epochs=SMOKE_EPOCHS if smoke else None)
        write_text(_file(parts, fold, n_seeds, smoke), rows.assign(split=fold.name, test=fold.test).to_csv(index=False))
    table = pd.concat([pd.read_csv(_file(parts, f, n_seeds, smoke)) for f in folds], ignore_index=True)
    write_text(out / "low_data.csv", table.to_csv(index=False))
    text = report(table, n_seeds)
    write_text(out / "low_data.md", text)
    draw(table).savefig(out / "low_data.png", dpi=110)
    print(text)
    return table


def _file(folder: Path, fold: Split, n_seeds: int, smoke: bool) -> Path:
    return folder / f"{'-'.join(fold.train)} to {fold.test}, {n_seeds} seeds{', smoke' if smoke else ''}.csv"


# ------------------------------------------------------------------------------------------------- subsets


def nested_rows(n: int, fraction: float, seed: int) -> np.ndarray:
    """A fraction of ``n`` rows, two at least, ascending; with one seed, a smaller fraction is a part of a larger one."""
    order = np.random.default_rng(seed).permutation(n)
    return np.sort(order[: max(2, round(fraction * n))])


def subset(tables: Sequence[AnnData], fraction: float, seed: int) -> list[AnnData]:
    """A fraction of the rows of all tables together; a table without rows is left out."""
    at = np.repeat(np.arange(len(tables)), [t.n_obs for t in tables])
    row = np.concatenate([np.arange(t.n_obs) for t in tables])
    chosen = nested_rows(len(at), fraction, seed)
    parts = [row[chosen[at[chosen] == i]] for i in range(len(tables))]
    return [t[rows].copy() for t, rows in zip(tables, parts, strict=True) if len(rows)]


def captioned_subset(texts: Sequence[AnnData], columns: Sequence[str], fraction: float, seed: int) -> list[AnnData]:
    """A fraction of the captioned rows of each object."""
    out = []
    for table in texts:
        captioned = np.column_stack([np.asarray(table.obs[c].notna()) for c in columns if c in table.obs])
        rows = np.flatnonzero(captioned.any(axis=1))
        out.append(table[rows[nested_rows(len(rows), fraction, seed)]].copy())
    return out


def image_text_subset(train: Sequence[AnnData], key: str, fraction: float, seed: int) -> list[AnnData]:
    """Image features and the caption of the pathologist's region, of a fraction of the labelled spots; without genes."""
    import anndata as ad

    labelled = []
    for table in train:
        caption = table.obs["pathologist_label"].astype(object).map(captions.REGIONS)
        rows = np.flatnonzero(caption.notna().to_numpy())
        obs = pd.DataFrame({"caption_region": caption, "patient": table.obs["patient"].astype(str)}).iloc[rows]
        part = ad.AnnData(np.zeros((len(rows), 0), np.float32), obs=obs)
        part.obsm[key] = np.asarray(table.obsm[key])[rows]
        labelled.append(part)
    return subset(labelled, fraction, seed)


# ------------------------------------------------------------------------------------------------- one split


def _one_fold(
    fold: Split, materials: Materials, fractions: Sequence[float], n_seeds: int, *, max_epochs: int | None
) -> pd.DataFrame:
    key = image_key(fold.tile_px)
    train, test = [materials.images[s] for s in fold.train], materials.images[fold.test]
    case = Case(train, test, materials.texts[fold.patient], materials.encoders[fold.patient], key, max_epochs)
    out: list[pd.DataFrame] = []
    for seed in range(n_seeds):
        for fraction in (*fractions, 0.0):
            start = time.perf_counter()
            out += [
                one.rows.assign(
                    pair=one.pair, condition=one.condition, fraction=fraction, seed=seed, n_pairs=one.n_pairs
                )
                for one in case.at(fraction, seed)
            ]
            seconds = time.perf_counter() - start
            inform(f"{fold.name}: {fold.test}, seed {seed}, fraction {fraction_name(fraction)}, {seconds:.0f} s")
    return pd.concat(out, ignore_index=True)


class Case:
    """One test section and what models may be trained on.

    Image features are standardised here, over whole sections: reducing the pairs does not take the images away.

    Parameters
    ----------
    train, test
        Tables with image features and counts.
    texts
        Tables with counts and captions.
    encoder
        Fitted gene encoder.
    key
        Key of ``.obsm`` with image features.
    max_epochs
        Epochs; ``None`` takes those of the preset.
    """

    def __init__(
        self,
        train: Sequence[AnnData],
        test: AnnData,
        texts: list[AnnData],
        encoder: GeneEncoder,
        key: str,
        max_epochs: int | None = None,
    ) -> None:
        self.train, self.test = [_with_standardised(t, key) for t in train], _with_standardised(test, key)
        self.texts, self.encoder, self.max_epochs = texts, encoder, max_epochs
        self.truth = captions.targets(test)

    def at(self, fraction: float, seed: int) -> list[Result]:
        """Every condition at one fraction and seed; fraction 0 is the one without image–text pairs."""
        if fraction == 0:
            return self._without_image_text(seed)
        return [*self._image_gene(fraction, seed), *self._gene_text(fraction, seed), *self._image_text(fraction, seed)]

    def _image_gene(self, fraction: float, seed: int) -> list[Result]:
        train = subset(self.train, fraction, seed)
        model = self._fit(BRIDGING, [*train, *self.texts], seed)
        return [Result("image–gene", BRIDGED, sum(t.n_obs for t in train), self._labels(model, "image"))]

    def _gene_text(self, fraction: float, seed: int) -> list[Result]:
        texts = captioned_subset(self.texts, BRIDGING.captions, fraction, seed)
        model = self._fit(BRIDGING, [*self.train, *texts], seed)
        n = sum(t.n_obs for t in texts)
        return [
            Result("gene–text", BRIDGED, n, self._labels(model, "image")),
            Result("gene–text", ALONE, n, self._labels(model, "gene").assign(input="expression")),
        ]

    def _image_text(self, fraction: float, seed: int) -> list[Result]:
        labelled = image_text_subset(self.train, X_STANDARDISED, fraction, seed)
        n = sum(t.n_obs for t in labelled)
        everything = [*labelled, *self.train, *self.texts]
        return [
            Result("image–text", ALONE, n, self._jointly(labelled, [("image", "text")], seed)),
            Result("image–text", BRIDGED, n, self._jointly(everything, [("image", "text"), *OTHER_PAIRS], seed)),
        ]

    def _without_image_text(self, seed: int) -> list[Result]:
        return [Result("image–text", OTHERS, 0, self._jointly([*self.train, *self.texts], OTHER_PAIRS, seed))]

    def _jointly(self, data: Sequence[AnnData], pairs: Sequence[tuple[str, str]], seed: int) -> pd.DataFrame:
        method = replace(JOINT, preset=JOINT.preset.replace(pairs=pairs))
        return self._labels(self._fit(method, data, seed, self.max_epochs), "image")

    def _fit(self, method: Method, data: Sequence[AnnData], seed: int, max_epochs: int | None = None) -> Whisperer:
        return method.train(data, self.encoder, X_STANDARDISED, random_state=seed, max_epochs=max_epochs)

    def _labels(self, model: Whisperer, modality: str) -> pd.DataFrame:
        scores = sw.tl.zero_shot_annotate(
            self.test, captions.TARGETS, model=model, modality=modality, normalize="none", inplace=False
        )
        return aurocs(scores, self.truth).assign(input="image")


def _with_standardised(table: AnnData, key: str) -> AnnData:
    """The same table with image features standardised over its section, so that a part of it keeps that scale."""
    out = table.copy()
    out.obsm[X_STANDARDISED] = standardised(table, key)
    return out
