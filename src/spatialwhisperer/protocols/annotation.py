"""Labels for real sections that were not in training, from images that never met a text.

Image–gene pairs come from the sections with an image, gene–text pairs from sections without one and from single cells, none
of them of the test patient. Beside it: a probe supervised on the image features, the two-stage route through predicted
expression, the section's own expression, and the null of shuffled image–gene pairs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer._messages import inform
from spatialwhisperer.protocols import her2st_text as words
from spatialwhisperer.protocols import references
from spatialwhisperer.protocols.markdown import markdown

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData

WITH_IMAGE = ("C2", "C3", "C4", "C5", "A1")
TILE_UM = 154.0
TWO_SIZES = (100.0, TILE_UM)
FINE, COARSE = 224, 48  # tile edges in pixels: 0.69 µm/px, and 3.2 µm/px, the resolution of A1


@dataclass(frozen=True)
class Split:
    """Sections whose image–gene pairs train, and the one that is annotated."""

    name: str
    train: tuple[str, ...]
    test: str
    tile_px: int


SPLITS = (
    Split("C → A1", ("C2", "C3", "C4", "C5"), "A1", COARSE),
    Split("A1 → C3", ("A1",), "C3", COARSE),
    *(
        Split("leave one section of C out", tuple(s for s in WITH_IMAGE[:4] if s != test), test, FINE)
        for test in WITH_IMAGE[:4]
    ),
)

METHODS = {
    "whisperer": "whisperer: closed form, several captions per spot, two tile sizes, neighbours",
    "whisperer, one size": "whisperer, 154 µm only",
    "whisperer, one caption": "whisperer, one caption of each kind per spot, as in the rows below",
    "sequential": "sequential (the default at this size)",
    "joint": "joint InfoNCE, published heads",
    "joint linear": "joint InfoNCE, linear heads with strong dropout",
    "probe": "supervised probe on the same image features",
    "two-stage": "two-stage: image → expression → label",
    "two-stage, several": "two-stage, several captions per spot, two tile sizes",
    "expression": "sequential, the section's own expression as input",
    "whisperer expression": "whisperer, the section's own expression as input",
    "shuffled": "null of sequential: shuffled image–gene pairs, mean",
    "shuffled q95": "null of sequential: shuffled image–gene pairs, 95 % quantile",
    "whisperer shuffled": "null of whisperer: shuffled image–gene pairs, mean",
    "whisperer shuffled q95": "null of whisperer: shuffled image–gene pairs, 95 % quantile",
}
_NULLS = {"shuffled": "shuffled q95", "whisperer shuffled": "whisperer shuffled q95"}


_SPATIALWHISPERER = sw.models.get_preset("spatialwhisperer")
_LINEAR = replace(
    _SPATIALWHISPERER.joint,
    heads={"gene": "linear_norm", "text": "bn_shortcut", "image": "linear_norm"},
    dropout={"image": 0.8},
    weight_decay=1.0,
)
_PUBLISHED: dict[str, Any] = {"text_key": words.CAPTION_COLUMNS, "projection_dim": 64}
_CLOSED: dict[str, Any] = {
    "preset": "whisperer",
    "schedule": "sequential",
    "expression": False,
    "text_key": words.SEVERAL_COLUMNS,
}
_TRAINED: dict[str, dict[str, Any]] = {
    "whisperer": _CLOSED,
    "whisperer, one size": _CLOSED,
    "whisperer, one caption": _CLOSED | {"text_key": words.CAPTION_COLUMNS},
    "sequential": _PUBLISHED | {"schedule": "sequential"},
    "joint": _PUBLISHED | {"schedule": "joint"},
    "joint linear": _PUBLISHED | {"schedule": "joint", "preset": replace(_SPATIALWHISPERER, joint=_LINEAR)},
}
"""Arguments of `sw.tl.train` by method."""


@dataclass
class Materials:
    """Loaded sections and, per test patient, texts and the gene encoder."""

    images: dict[str, AnnData]
    texts: dict[str, list[AnnData]] = field(default_factory=dict)
    encoders: dict[str, Any] = field(default_factory=dict)


def run(data: Path, out: Path, *, n_seeds: int = 3, n_nulls: int = 50, smoke: bool = False) -> pd.DataFrame:
    """Run all splits and write ``annotation.csv`` (tidy) and ``annotation.md`` (tables) into a folder."""
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
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / "annotation.csv", index=False)
    text = report(table, n_seeds, n_nulls, time.perf_counter() - start)
    (out / "annotation.md").write_text(text, encoding="utf-8")
    print(text)
    return table


# ------------------------------------------------------------------------------------------------- data


def load(data: Path, splits: tuple[Split, ...], *, smoke: bool = False) -> Materials:
    """Read sections and cells, embed the tiles once, fit one gene encoder per test patient."""
    needed = {(s, split.tile_px) for split in splits for s in (*split.train, split.test)}
    materials = Materials(
        {name: _image_table(data, name, {px for s, px in needed if s == name}) for name in dict(needed)}
    )
    cells = _cells(data)
    names = _text_sections(data)
    for patient in {split.test[0] for split in splits}:
        others = [n for n in names if n[0] != patient]
        texts = _plain(sw.datasets.her2st(others[:: 8 if smoke else 1], data_dir=data, with_image=False))
        words.add_captions(texts)
        materials.texts[patient] = [texts, cells]
        materials.encoders[patient] = sw.pp.fit_gene_encoder(materials.texts[patient], "pca", batch_key="patient")
    return materials


def _image_table(data: Path, name: str, sizes: set[int]) -> AnnData:
    sdata = sw.datasets.her2st(name, data_dir=data)
    for px in sorted(sizes):
        for um in (TILE_UM, TWO_SIZES):
            sw.pp.embed_images(sdata, tile_um=um, tile_px=px, key_added=image_slot(px, um))
    return _plain(sdata)


def image_slot(tile_px: int, tile_um: float | Sequence[float] = TILE_UM) -> str:
    """Slot of the image features of one or several tile sizes."""
    return f"X_stain_texture_{'_'.join(f'{um:g}' for um in np.atleast_1d(tile_um))}um_{tile_px}px"


def _plain(sdata: Any) -> AnnData:
    """The table alone: a slide that is not read again needs no image."""
    table = sdata["table"].copy()
    table.uns.pop("spatialdata_attrs")
    del table.obsm["spatial"]
    return table


def _text_sections(data: Path) -> list[str]:
    folder = data / "her2st" if (data / "her2st").is_dir() else data
    return sorted(p.parent.name for p in folder.glob("*/counts.h5ad") if p.parent.name not in WITH_IMAGE)


def _cells(data: Path) -> AnnData:
    import anndata as ad

    cells = ad.read_h5ad(data / "singlecell" / "wu2021_breast_CID4465.h5ad")
    words.add_reference_captions(cells)
    return cells


# ------------------------------------------------------------------------------------------------- one split


def _one_split(split: Split, materials: Materials, n_seeds: int, n_nulls: int) -> list[pd.DataFrame]:
    patient = split.test[0]
    train, test = [materials.images[s] for s in split.train], materials.images[split.test]
    texts, encoder, slot = materials.texts[patient], materials.encoders[patient], image_slot(split.tile_px)
    two_sizes = image_slot(split.tile_px, TWO_SIZES)
    truth = words.targets(test)
    out = []
    for method, options in _TRAINED.items():
        features = two_sizes if method in ("whisperer", "whisperer, one caption") else slot
        # the closed form has no seed
        for seed in range(1 if options.get("preset") == "whisperer" else n_seeds):
            start = time.perf_counter()
            model = sw.tl.train(
                [*train, *texts], image_features=features, gene_encoder=encoder, **options, random_state=seed
            )
            seconds = time.perf_counter() - start
            out.append(_scored(test, truth, model, "image").assign(method=method, seed=seed, seconds=seconds))
            if method in ("whisperer", "sequential"):
                name = "expression" if method == "sequential" else "whisperer expression"
                out.append(_scored(test, truth, model, "gene").assign(method=name, seed=seed))
            if method in ("whisperer", "sequential") and seed == 0:
                null = references.shuffled if method == "sequential" else references.shuffled_closed_form
                name = "shuffled" if method == "sequential" else "whisperer shuffled"
                nulls = null(model, train, test, encoder, features, n_nulls)
                out += [aurocs(s, truth).assign(method=name, seed=i) for i, s in enumerate(nulls)]
    out.append(aurocs(references.probe(train, test, slot), truth).assign(method="probe"))
    for method, features, several in (("two-stage", slot, False), ("two-stage, several", two_sizes, True)):
        scores = references.two_stage(train, test, texts, encoder, features, several=several)
        out.append(aurocs(scores, truth).assign(method=method))
    return out


def _scored(test: AnnData, truth: pd.DataFrame, model: Any, modality: Any) -> pd.DataFrame:
    scores = sw.tl.zero_shot_annotate(test, words.TARGETS, model=model, modality=modality, inplace=False)
    return aurocs(scores, truth)


def aurocs(scores: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """AUROC of presence of every class that is scored and has both kinds of spots."""
    from sklearn.metrics import roc_auc_score

    rows = []
    for name in truth:
        if name not in scores:
            continue
        usable = np.asarray(truth[name].notna()) & np.isfinite(scores[name].to_numpy())
        present = truth[name][usable].astype(bool)
        rows.append((name, roc_auc_score(present, scores[name].to_numpy()[usable])))
    return pd.DataFrame(rows, columns=["class", "auroc"])


# ------------------------------------------------------------------------------------------------- tables


def report(table: pd.DataFrame, n_seeds: int, n_nulls: int, seconds: float) -> str:
    """Two Markdown tables: macro AUROC by method and split, and AUROC by class."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    lines = [
        f"Macro AUROC of presence inside the test section ({n_seeds} seeds, mean ± sd; {n_nulls} shufflings; {seconds:.0f} s on {device}).",
        "",
        markdown(_macro(table)),
        "",
        "AUROC by class, mean over test sections and seeds.",
        "",
        markdown(_by_class(table)),
        "",
    ]
    return "\n".join(lines)


def _macro(table: pd.DataFrame) -> pd.DataFrame:
    """Mean over classes, then over the test sections of a split; the spread is over seeds."""
    runs = table.groupby(["split", "test", "method", "seed"], sort=False, dropna=False)["auroc"].mean().reset_index()
    out: dict[str, dict[str, str]] = {label: {} for label in METHODS.values()}
    for (split, method), part in runs.groupby(["split", "method"], sort=False):
        by_seed = part.groupby("seed", dropna=False)["auroc"].mean()
        text = f"{by_seed.mean():.3f}"
        if method not in _NULLS and len(by_seed) > 1:
            text += f" ± {by_seed.std():.3f}"
        out[METHODS[method]][split] = text
        if method in _NULLS:
            out[METHODS[_NULLS[method]]][split] = f"{by_seed.quantile(0.95):.3f}"
    frame = pd.DataFrame.from_dict(out, orient="index").dropna(how="all")
    frame.index.name = "method"
    return frame[list(dict.fromkeys(table["split"]))]


def _by_class(table: pd.DataFrame) -> pd.DataFrame:
    methods = [m for m in METHODS if m in set(table["method"]) and m not in _NULLS]
    kept = table[table["method"].isin(methods)]
    by_test = kept.groupby(["split", "class", "method", "test"], sort=False)["auroc"].mean()
    wide = by_test.groupby(["split", "class", "method"], sort=False).mean().unstack("method")[methods]
    wide = wide.map(lambda v: "–" if pd.isna(v) else f"{v:.2f}").reset_index(level="class")
    wide.index.name = "split"
    return wide
