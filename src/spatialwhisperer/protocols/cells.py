"""Zero-shot cell types in 224-px tiles of Lizard, PanNuke and PathoCell, beside the published numbers.

Image features are computed image by image and kept in files, so that an interrupted run goes on where it stopped and further prompts
cost seconds. The published checkpoint itself cannot be opened by this package: it is a pickle, and its gene and text towers have other
parts. A model of the same kind is one that `sw.tl.train` makes with ``image_encoder="uni2-h"``; its gated weights are given here with
``--weights`` (file or folder), everything else comes from the model folder.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer._messages import inform, listing
from spatialwhisperer.datasets._cells import COUNTS, TILE_PX
from spatialwhisperer.protocols.label_sets import LABEL_SETS, LabelSet
from spatialwhisperer.protocols.markdown import markdown

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from spatialwhisperer.datasets._cells import CellImages
    from spatialwhisperer.models import Whisperer

Field = Literal["tile", "model"]
Statistics = Literal["dataset", "image"]
KEY = "cells"
FAR = 1e7
"""Pixels between the images of a run."""


@dataclass(frozen=True)
class Options:
    """How a run reads the images.

    Attributes
    ----------
    images
        Names; empty for those that the published benchmark scored.
    field
        "tile": the encoder sees the 224-px tile as it is, whatever its microns, as published. "model": it sees the field of
        view that the model was trained on, in microns, around the centre of the tile.
    statistics
        Rows over which image features are standardised, for a model that does so by section.
    windows
        Tiles of a PanNuke patch.
    weights
        File or folder with the weights of the image encoder, instead of a download.
    smoke
        Two images only.
    """

    images: tuple[str, ...] = ()
    field: Field = "tile"
    statistics: Statistics = "dataset"
    windows: Literal["quarters", "corners"] = "quarters"
    weights: Path | None = None
    smoke: bool = False


def run(
    dataset: str,
    data: Path,
    out: Path,
    *,
    model: Any,
    prompts: Sequence[str] = ("terms1",),
    options: Options | None = None,
) -> pd.DataFrame:
    """Score a data set and write ``annotation_<dataset>.csv`` (AUROC by image and class), ``…_scores.csv`` (tiles) and ``….md``.

    Raises
    ------
    ValueError
        If the data set, a prompt set or an image is unknown, or the model cannot look at images.
    """
    from spatialwhisperer.tl.embed import open_model

    options = options or Options()
    if dataset not in LABEL_SETS:
        raise ValueError(f"There is no data set {dataset!r} (found: {listing(LABEL_SETS)}).")
    labels = LABEL_SETS[dataset]
    chosen = {name: labels.choose(name) for name in dict.fromkeys(prompts)}
    model = open_model(model)
    encoder = _image_encoder(model)
    images = _read(dataset, data, encoder, options)
    names = _names(images, labels, options)
    tiles = _tiles(images, names, model, out / "tiles" / f"{dataset}-{_fingerprint(model, dataset, options)}", options)
    tidy, scores = [], []
    for name, words in chosen.items():
        score = _scores(tiles, model, {c: words.text(c) for c in labels.prompted}, options)
        scores.append(tiles.obs.assign(prompts=name).join(score))
        tidy.append(
            evaluate(score, tiles.obsm[COUNTS], tiles.obs["image"], labels).assign(dataset=dataset, prompts=name)
        )
    table = pd.concat(tidy, ignore_index=True)
    _write(out / f"annotation_{dataset}.csv", table.to_csv(index=False))
    _write(out / f"annotation_{dataset}_scores.csv", pd.concat(scores).to_csv(index=False))
    text = report(table, labels, _describe(model, options, names, tiles))
    _write(out / f"annotation_{dataset}.md", text)
    print(text)
    return table


# ------------------------------------------------------------------------------------------------- images and tiles


def _image_encoder(model: Whisperer) -> dict[str, Any]:
    encoder = model.config["encoders"].get("image")
    if encoder is None or "text" not in model.modalities:
        raise ValueError(f"The model must have an image and a text side; it has {listing(model.modalities)}.")
    if encoder.get("tile_um") is None or ("image" not in model.towers and encoder["name"] == encoder["slot"]):
        raise ValueError("This model was trained on given image features, so it cannot look at these images.")
    return encoder


def _read(dataset: str, data: Path, encoder: dict[str, Any], options: Options) -> CellImages:
    from importlib import import_module

    reader = getattr(import_module(f"spatialwhisperer.datasets.{dataset}"), dataset)
    arguments: dict[str, Any] = {"data_dir": data}
    if dataset == "pannuke":
        arguments["windows"] = options.windows
    if options.field == "tile":
        # with this scale the model's field of view is the tile
        arguments["mpp"] = float(np.ravel(encoder["tile_um"])[0]) / TILE_PX
    return reader(**arguments)


def _names(images: CellImages, labels: LabelSet, options: Options) -> list[str]:
    wanted = options.images or labels.images or tuple(images)
    absent = [name for name in wanted if name not in images]
    if absent:
        raise ValueError(f"The data lack the images {listing(absent)}. Name those to score with images=….")
    return list(wanted[:2] if options.smoke else wanted)


def _fingerprint(model: Whisperer, dataset: str, options: Options) -> str:
    """What the kept features depend on: the encoder and, where it was trained, its weights."""
    encoder = model.config["encoders"]["image"]
    what = [dataset, encoder, options.field, options.windows if dataset == "pannuke" else None, str(options.weights)]
    digest = hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode())
    if "image" in model.towers:
        for name, value in sorted(model.state_dict().items()):
            digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def _tiles(images: CellImages, names: list[str], model: Whisperer, folder: Path, options: Options) -> Any:
    """All tiles as one table: features (or embeddings, for a trained tower) and nuclei counts."""
    import anndata as ad

    folder.mkdir(parents=True, exist_ok=True)
    parts = [
        _once(images, name, model, folder / f"{name}.npz", f"{i + 1} of {len(names)}", options)
        for i, name in enumerate(names)
    ]
    obs = pd.DataFrame({"image": np.repeat(names, [len(p["features"]) for p in parts])})
    cells = np.concatenate([p["cells"] for p in parts])
    obs["x_array"], obs["y_array"] = cells[:, 0], cells[:, 1]
    obs.index = obs.index.astype(str)
    table = ad.AnnData(np.zeros((len(obs), 0), np.float32), obs=obs)
    table.obsm[_slot(model)] = np.concatenate([p["features"] for p in parts])
    # one plane for all images, far apart, so that no tile of an image neighbours one of another
    apart = np.repeat(np.arange(len(names)), [len(p["features"]) for p in parts])[:, None] * np.array([FAR, 0.0])
    table.obsm["spatial"] = (cells + 0.5) * TILE_PX + apart
    table.obsm[COUNTS] = pd.DataFrame(
        np.concatenate([p["counts"] for p in parts]), columns=images.classes, index=obs.index
    )
    return table


def _slot(model: Whisperer) -> str:
    return "X_sw_image" if "image" in model.towers else model.config["encoders"]["image"]["slot"]


def _once(
    images: CellImages, name: str, model: Whisperer, path: Path, count: str, options: Options
) -> dict[str, np.ndarray]:
    if not path.is_file():
        inform(f"{count}: {name}")
        sdata = images[name]
        table = sdata["table"]
        arrays = {
            "features": _look(sdata, model, options),
            "counts": np.asarray(table.obsm[COUNTS]),
            "cells": table.obs[["x_array", "y_array"]].to_numpy(),
        }
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            np.savez(file, **arrays)
        os.replace(part, path)
    with np.load(path, allow_pickle=False) as stored:
        return {key: stored[key] for key in stored.files}


def _look(sdata: Any, model: Whisperer, options: Options) -> np.ndarray:
    if "image" in model.towers:
        return sw.tl.embed(sdata, model=model, modality="image", inplace=False)  # type: ignore[return-value]
    encoder = model.config["encoders"]["image"]
    return sw.pp.embed_images(  # type: ignore[return-value]
        sdata,
        encoder=encoder["name"],
        tile_um=encoder["tile_um"],
        tile_px=encoder["tile_px"],
        weights=options.weights,
        inplace=False,
    )


def _scores(tiles: Any, model: Whisperer, prompts: dict[str, str], options: Options) -> pd.DataFrame:
    embedded = {"embedding_key": _slot(model)} if "image" in model.towers else {}
    return sw.tl.zero_shot_annotate(  # type: ignore[return-value]
        tiles,
        prompts,
        model=model,
        modality="image",
        normalize="none",
        library_key="image" if options.statistics == "image" else None,
        inplace=False,
        **embedded,
    )


# ------------------------------------------------------------------------------------------------- evaluation


def evaluate(scores: pd.DataFrame, counts: pd.DataFrame, images: pd.Series, labels: LabelSet) -> pd.DataFrame:
    """AUROC by image and reported class.

    Parameters
    ----------
    scores
        Tiles by prompted class.
    counts
        Nuclei in the tiles, by class of the data.
    images
        Image of each tile.
    labels
        What is grouped, dropped and reported.

    Returns
    -------
    DataFrame with ``image``, ``class``, ``auroc`` (NaN where undefined), ``n_present`` and ``n``.
    """
    import anndata as ad

    counts = counts[[c for c in counts if c not in labels.ignored]].reset_index(drop=True)
    dominant = np.array(counts.columns)[counts.to_numpy().argmax(axis=1)]
    kept = ~np.isin(dominant, labels.dropped)
    grouped = {name: scores[list(members)].sum(axis=1).to_numpy()[kept] for name, members in labels.groups.items()}
    present = {name: counts[list(members)].sum(axis=1).to_numpy()[kept] > 0 for name, members in labels.groups.items()}
    values = np.column_stack(list(grouped.values()))
    table = ad.AnnData(
        np.zeros((int(kept.sum()), 0), np.float32),
        obs=pd.DataFrame({"image": images.to_numpy()[kept]}).set_index(np.arange(kept.sum()).astype(str)),
    )
    table.obs[KEY] = pd.Categorical.from_codes(values.argmax(axis=1), categories=list(grouped))
    table.obsm[f"{KEY}_scores"] = values
    table.uns[KEY] = {"classes": np.array(list(grouped), dtype=str)}
    tidy = sw.tl.evaluate_annotation(table, pd.DataFrame(present), key=KEY, group_key="image", per_group=True)
    return tidy.rename(columns={"group": "image"})


def macro(table: pd.DataFrame) -> float:
    """Mean over images within a class, then over classes."""
    return float(table.groupby("class")["auroc"].mean().mean())


# ------------------------------------------------------------------------------------------------- tables


def _describe(model: Whisperer, options: Options, names: list[str], tiles: Any) -> str:
    from spatialwhisperer.tl.embed import describe_model

    encoder = model.config["encoders"]["image"]
    seen = (
        "the 224-px tile as it is"
        if options.field == "tile"
        else f"{np.ravel(encoder['tile_um'])[0]:g} µm around its centre"
    )
    how = model.config["standardize"].get("image", "none")
    lines = [
        f"Model: {describe_model(model)['folder'] or 'in memory'}; image encoder {encoder['name']}, which sees {seen}.",
        f"{tiles.n_obs} tiles of {len(names)} images.",
    ]
    if "image" in model.config["contexts"]:
        lines.append("Neighbouring tiles of the image take part in an embedding.")
    if how == "section":
        lines.append(f"Image features are standardised over the tiles of one {options.statistics}.")
    return " ".join(lines)


def report(table: pd.DataFrame, labels: LabelSet, about: str) -> str:
    """Markdown: macro AUROC beside the published ones, and AUROC by class."""
    names = list(dict.fromkeys(table["prompts"]))
    ours = {f"this model ({name})": macro(table[table["prompts"] == name]) for name in names}
    rows = pd.DataFrame(
        {"macro AUROC": [f"{v:.3f}" for v in [*ours.values(), *labels.published.values()]]},
        index=pd.Index([*ours, *labels.published], name=labels.title),
    )
    by_class = pd.DataFrame(
        {f"this model ({n})": table[table["prompts"] == n].groupby("class")["auroc"].mean() for n in names}
        | {k: pd.Series(v) for k, v in labels.published_by_class.items()}
    ).loc[list(labels.groups)]
    by_class["images"] = table[table["prompts"] == names[0]].groupby("class")["auroc"].count()
    formatted = by_class.map(lambda v: "–" if pd.isna(v) else f"{v:.3f}").assign(images=by_class["images"].astype(str))
    formatted.index.name = "class"
    notes = [f"{n}: {labels.prompts[n].source}. {labels.prompts[n].note}".strip() for n in names]
    return "\n\n".join(
        [
            "AUROC of presence of a class in a tile, within each image, undefined ones skipped; mean over images within a class, then over "
            f"classes. {about} Other rows: as published.",
            markdown(rows),
            "By class; `images` counts those in which it is defined.",
            markdown(formatted),
            "Prompts. " + " ".join(notes) + "\n",
        ]
    )


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
