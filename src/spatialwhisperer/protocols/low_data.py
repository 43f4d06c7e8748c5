"""How many pairs of one kind are needed, alone and with the pairs that bridge it (the paper's low-data experiment).

On HER2-positive sections, with spots as pairs and the split of the annotation benchmark. One kind of pair is cut to a share,
the others stay whole. Subsets are nested: the rows of a small share are among those of a larger one of the same seed.

- image–gene: the image is linked to the gene features with a share of the spots of the training sections. Labels from the image exist
  only through the genes, so these pairs alone give none.
- gene–text: the gene embedding learns from a share of the captioned spots and cells of other patients. Alone it labels expression;
  with the image–gene pairs it labels images.
- image–text: captions of the pathologist's regions on the training sections. Alone, and together with the other two kinds.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer._messages import inform
from spatialwhisperer.protocols import annotation, references
from spatialwhisperer.protocols import her2st_text as words
from spatialwhisperer.protocols.markdown import markdown

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData

    from spatialwhisperer.models import Whisperer
    from spatialwhisperer.protocols.annotation import Materials, Split

SHARES = (1.0, 1 / 8, 1 / 64)
FOLDS = tuple(s for s in annotation.SPLITS if s.test in ("A1", "C3"))
"""Two splits between patients and one within."""

_GIVEN = MappingProxyType({"image": "none", "gene": "global", "text": "none"})
"""Image features come standardised over their whole section."""


def _as_given(options: dict[str, Any]) -> dict[str, Any]:
    preset = options.get("preset", "spatialwhisperer")
    preset = sw.models.get_preset(preset) if isinstance(preset, str) else preset
    return options | {"preset": replace(preset, standardize=_GIVEN)}


BRIDGING = _as_given(annotation._TRAINED["whisperer, one size"])
"""Images reach text through the genes: the default at this size, in closed form."""

SHARED = _as_given(annotation._TRAINED["joint linear"])
"""One recipe for image–text pairs alone and with the others."""

PAIRS = {"image–gene": "image–gene pairs", "gene–text": "gene–text pairs", "image–text": "image–text pairs"}
ALONE, BRIDGED, OTHERS = "this pair only", "with the other pairs", "the other pairs only"
SMOKE_EPOCHS = 3
OTHER_PAIRS = (("image", "gene"), ("gene", "text"))


def run(data: Path, out: Path, *, n_seeds: int = 3, smoke: bool = False) -> pd.DataFrame:
    """Run all splits and write ``low_data.csv`` (tidy), ``low_data.md`` and ``low_data.png``; a finished split is not done again."""
    folds = FOLDS[1:2] if smoke else FOLDS
    shares = SHARES[::2] if smoke else SHARES
    n_seeds = 1 if smoke else n_seeds
    parts = out / "low_data"
    todo = [f for f in folds if not _file(parts, f, n_seeds, smoke).is_file()]
    if todo:
        materials = annotation.load(data, tuple(todo), smoke=smoke)
    for fold in todo:
        rows = _one_fold(fold, materials, shares, n_seeds, max_epochs=SMOKE_EPOCHS if smoke else None)
        _write(_file(parts, fold, n_seeds, smoke), rows.assign(split=fold.name, test=fold.test).to_csv(index=False))
    table = pd.concat([pd.read_csv(_file(parts, f, n_seeds, smoke)) for f in folds], ignore_index=True)
    _write(out / "low_data.csv", table.to_csv(index=False))
    text = report(table, n_seeds)
    _write(out / "low_data.md", text)
    figure = draw(table)
    figure.savefig(out / "low_data.png", dpi=110)
    print(text)
    return table


def _file(folder: Path, fold: Split, n_seeds: int, smoke: bool) -> Path:
    return folder / f"{'-'.join(fold.train)} to {fold.test}, {n_seeds} seeds{', smoke' if smoke else ''}.csv"


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


# ------------------------------------------------------------------------------------------------- subsets


def nested_rows(n: int, share: float, seed: int) -> np.ndarray:
    """At least two of ``n`` rows, ascending; a smaller share of the same seed is a part of a larger one."""
    order = np.random.default_rng(seed).permutation(n)
    return np.sort(order[: max(2, round(share * n))])


def _cut(tables: Sequence[AnnData], share: float, seed: int) -> list[AnnData]:
    """A share of the rows of all tables together; a table without rows is left out."""
    at = np.repeat(np.arange(len(tables)), [t.n_obs for t in tables])
    row = np.concatenate([np.arange(t.n_obs) for t in tables])
    chosen = nested_rows(len(at), share, seed)
    parts = [row[chosen[at[chosen] == i]] for i in range(len(tables))]
    return [t[rows].copy() for t, rows in zip(tables, parts, strict=True) if len(rows)]


def _captioned(texts: Sequence[AnnData], columns: Sequence[str], share: float, seed: int) -> list[AnnData]:
    """A share of the captioned rows of each object."""
    out = []
    for table in texts:
        rows = np.flatnonzero(table.obs[[c for c in columns if c in table.obs]].notna().any(axis=1).to_numpy())
        out.append(table[rows[nested_rows(len(rows), share, seed)]].copy())
    return out


def _image_text(train: Sequence[AnnData], slot: str, share: float, seed: int) -> list[AnnData]:
    """Image features with the pathologist's regions in words, of a share of the labelled spots; without genes."""
    import anndata as ad

    labelled = []
    for table in train:
        caption = table.obs["pathologist_label"].astype(object).map(words.REGIONS)
        rows = np.flatnonzero(caption.notna().to_numpy())
        obs = pd.DataFrame({"caption_region": caption, "patient": table.obs["patient"].astype(str)}).iloc[rows]
        labelled.append(ad.AnnData(np.zeros((len(rows), 0), np.float32), obs=obs, obsm={slot: table.obsm[slot][rows]}))
    return _cut(labelled, share, seed)


# ------------------------------------------------------------------------------------------------- one split


def _one_fold(
    fold: Split, materials: Materials, shares: Sequence[float], n_seeds: int, *, max_epochs: int | None
) -> pd.DataFrame:
    patient, slot = fold.test[0], annotation.image_slot(fold.tile_px)
    train, test = [materials.images[s] for s in fold.train], materials.images[fold.test]
    case = Case(train, test, materials.texts[patient], materials.encoders[patient], slot, max_epochs)
    out: list[pd.DataFrame] = []
    for seed in range(n_seeds):
        for share in (*shares, 0.0):
            start = time.perf_counter()
            out += [
                rows.assign(pair=pair, condition=condition, share=share, seed=seed, n_pairs=n)
                for pair, condition, n, rows in case.at(share, seed)
            ]
            inform(f"{fold.name}: {fold.test}, seed {seed}, share {_share(share)}, {time.perf_counter() - start:.0f} s")
    return pd.concat(out, ignore_index=True)


class Case:
    """One test section and what may be learnt from.

    Image features are standardised here, over whole sections: their images are there, whatever else is cut to a share.
    """

    def __init__(
        self,
        train: Sequence[AnnData],
        test: AnnData,
        texts: list[AnnData],
        encoder: Any,
        slot: str,
        max_epochs: int | None = None,
    ) -> None:
        self.train, self.test = [_standardised(t, slot) for t in train], _standardised(test, slot)
        self.texts, self.encoder, self.slot, self.max_epochs = texts, encoder, slot, max_epochs
        self.truth = words.targets(test)

    def at(self, share: float, seed: int) -> list[tuple[str, str, int, pd.DataFrame]]:
        """Pair, condition, number of pairs and AUROCs of everything at one share and seed; share 0 is without image–text pairs."""
        if share == 0:
            return self._without_image_text(seed)
        return [*self._image_gene(share, seed), *self._gene_text(share, seed), *self._image_text(share, seed)]

    def _image_gene(self, share: float, seed: int) -> list[tuple[str, str, int, pd.DataFrame]]:
        train = _cut(self.train, share, seed)
        model = self._fit([*train, *self.texts], seed, BRIDGING)
        return [("image–gene", BRIDGED, sum(t.n_obs for t in train), self._labels(model, "image"))]

    def _gene_text(self, share: float, seed: int) -> list[tuple[str, str, int, pd.DataFrame]]:
        texts = _captioned(self.texts, BRIDGING["text_key"], share, seed)
        model = self._fit([*self.train, *texts], seed, BRIDGING)
        n = sum(t.n_obs for t in texts)
        return [
            ("gene–text", BRIDGED, n, self._labels(model, "image")),
            ("gene–text", ALONE, n, self._labels(model, "gene").assign(input="expression")),
        ]

    def _image_text(self, share: float, seed: int) -> list[tuple[str, str, int, pd.DataFrame]]:
        labelled = _image_text(self.train, self.slot, share, seed)
        n = sum(t.n_obs for t in labelled)
        both = [*labelled, *self.train, *self.texts]
        return [
            ("image–text", ALONE, n, self._jointly(labelled, [("image", "text")], seed)),
            ("image–text", BRIDGED, n, self._jointly(both, [("image", "text"), *OTHER_PAIRS], seed)),
        ]

    def _without_image_text(self, seed: int) -> list[tuple[str, str, int, pd.DataFrame]]:
        return [("image–text", OTHERS, 0, self._jointly([*self.train, *self.texts], OTHER_PAIRS, seed))]

    def _jointly(self, data: Sequence[AnnData], pairs: Sequence[tuple[str, str]], seed: int) -> pd.DataFrame:
        options = {"pairs": dict.fromkeys(pairs, 1.0), "max_epochs": self.max_epochs}
        return self._labels(self._fit(data, seed, SHARED | options), "image")

    def _fit(self, data: Sequence[AnnData], seed: int, options: dict[str, Any]) -> Whisperer:
        return sw.tl.train(data, image_features=self.slot, gene_encoder=self.encoder, random_state=seed, **options)

    def _labels(self, model: Whisperer, modality: Any) -> pd.DataFrame:
        scores = sw.tl.zero_shot_annotate(
            self.test, words.TARGETS, model=model, modality=modality, normalize="none", inplace=False
        )
        return annotation.aurocs(scores, self.truth).assign(input="image")  # type: ignore[arg-type]


def _standardised(table: AnnData, slot: str) -> AnnData:
    """The same table with image features standardised over its section, so that a part of it keeps that scale."""
    out = table.copy()
    out.obsm[slot] = references._image(table, slot)
    return out


# ------------------------------------------------------------------------------------------------- tables and curve


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Macro AUROC over classes by split, pair, condition, measure, share and seed.

    The measures are ``labels`` (all classes), and ``regions`` and ``cell types``, which are parts of them.
    """
    keys = ["split", "test", "pair", "condition", "input", "share", "seed", "n_pairs"]
    cells = table["class"].isin(words.CELLS)
    parts = {"labels": cells | ~cells, "regions": ~cells, "cell types": cells}
    frames = [
        table[rows].groupby(keys, sort=False)["auroc"].mean().reset_index().assign(measure=m)
        for m, rows in parts.items()
    ]
    return pd.concat(frames, ignore_index=True)


def report(table: pd.DataFrame, n_seeds: int) -> str:
    """Markdown: macro AUROC by share, mean and spread over seeds."""
    runs = summary(table)
    by_seed = runs.groupby(["pair", "split", "measure", "condition", "input", "share", "seed"], sort=False)[
        "auroc"
    ].mean()
    stats = by_seed.groupby(level=[0, 1, 2, 3, 4, 5], sort=False).agg(["mean", "std"])
    cells = stats.apply(lambda r: f"{r['mean']:.3f}" + ("" if pd.isna(r["std"]) else f" ± {r['std']:.3f}"), axis=1)
    wide = cells.unstack("share")
    wide = wide[sorted(wide.columns, reverse=True)].rename(columns=_share)
    lines = [
        f"Macro AUROC of presence inside the test section by share of one kind of pair; {n_seeds} seeds (training and subset), mean ± sd.",
        "",
    ]
    for pair, part in wide.groupby(level="pair", sort=False):
        frame = part.droplevel("pair").dropna(axis=1, how="all").reset_index()
        frame.index = pd.Index(frame.pop("split"), name="split")
        counts = runs[runs["pair"] == pair].groupby(["split", "share"])["n_pairs"].median().astype(int)
        n = "; ".join(
            f"{s}: {', '.join(f'{_share(k)} = {v}' for k, v in c.droplevel(0)[::-1].items())}"
            for s, c in counts.groupby(level=0, sort=False)
        )
        lines += [f"### Share of the {PAIRS[str(pair)]}", "", markdown(frame), "", f"Pairs: {n}.", ""]
    return "\n".join(lines)


def _share(value: float) -> str:
    return str(int(value)) if value in (0, 1) else f"1/{round(1 / value)}"


def draw(table: pd.DataFrame) -> Any:
    """Macro AUROC against the share, one panel per pair and split; bands are the range over seeds."""
    import matplotlib.pyplot as plt

    runs = summary(table)
    splits = list(dict.fromkeys(runs["split"]))
    lines = {
        ("labels", BRIDGED, "image"): ("labels of the image, with the other pairs", "#1f5fa8", "-"),
        ("labels", ALONE, "image"): ("labels of the image, this pair only", "#d1701f", "-"),
        ("labels", ALONE, "expression"): ("labels of the expression, this pair only", "#d1701f", "--"),
    }
    figure, axes = plt.subplots(len(splits), 3, figsize=(10, 2.7 * len(splits) + 0.7), sharey=True, squeeze=False)
    drawn: dict[str, Any] = {}
    for row, split in zip(axes, splits, strict=True):
        for axis, (pair, title) in zip(row, PAIRS.items(), strict=True):
            part = runs[(runs["split"] == split) & (runs["pair"] == pair)]
            for (measure, condition, source), (name, colour, style) in lines.items():
                own = part[(part["measure"] == measure) & (part["condition"] == condition) & (part["input"] == source)]
                if own.empty:
                    continue
                by = own[own["share"] > 0].groupby("share")["auroc"].agg(["mean", "min", "max"])
                (drawn[name],) = axis.plot(by.index, by["mean"], style, color=colour, marker="o", ms=3.5, lw=1.6)
                axis.fill_between(by.index, by["min"], by["max"], color=colour, alpha=0.15, lw=0)
            if pair == "image–text":
                drawn |= _levels(axis, runs[runs["split"] == split])
            axis.axhline(0.5, color="0.6", lw=0.8)
            axis.set_xscale("log", base=2)
            shares = sorted(part.loc[part["share"] > 0, "share"].unique())
            axis.set_xticks(shares, [_share(s) for s in shares])
            axis.minorticks_off()
            axis.spines[["top", "right"]].set_visible(False)
            axis.set_title(f"{split}: {part['test'].iloc[0]}" if axis is row[0] else "", loc="left", fontsize=9)
            axis.set_xlabel(f"share of the {title}", fontsize=9)
        row[0].set_ylabel("AUROC", fontsize=9)
    figure.legend(drawn.values(), drawn.keys(), loc="lower center", ncols=3, frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0.09 if len(splits) == 1 else 0.06, 1, 1))
    return figure


def _levels(axis: Any, runs: pd.DataFrame) -> dict[str, Any]:
    """What the other two kinds of pairs give without any image–text pair, as horizontal lines."""
    labels = runs[(runs["measure"] == "labels") & (runs["input"] == "image")]
    joint = labels[labels["condition"] == OTHERS]
    closed = labels[(labels["pair"] == "image–gene") & (labels["condition"] == BRIDGED) & (labels["share"] == 1)]
    out = {}
    for rows, recipe, style in ((joint, "the same recipe", "--"), (closed, "the default, in closed form", "-.")):
        if len(rows):
            name = f"the other pairs only, {recipe}"
            out[name] = axis.axhline(rows["auroc"].mean(), color="0.35", lw=1.2, ls=style)
    return out
