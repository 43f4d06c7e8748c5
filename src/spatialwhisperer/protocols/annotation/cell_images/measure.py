"""Zero-shot cell types in 224-px tiles of Lizard, PanNuke and PathoCell, beside the published figures.

Image features are computed image by image and kept in files: an interrupted run goes on where it stopped, and further prompts take
seconds. The published checkpoint cannot be opened by this package: it is a pickle, and its gene and text networks have other parts. A
model of the same kind is one that :func:`spatialwhisperer.tl.train` makes with ``image="uni2-h"``. The weights of that encoder are
gated and are passed with ``--weights`` (file or folder); everything else comes from the folder of the model.
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
from spatialwhisperer import _keys
from spatialwhisperer._messages import inform, listing
from spatialwhisperer._provenance import record
from spatialwhisperer._storage.schema import to_plain
from spatialwhisperer.datasets.cells import COUNTS, TILE_PX
from spatialwhisperer.models import Whisperer
from spatialwhisperer.pp.features.images import FeatureRecord
from spatialwhisperer.protocols.annotation.cell_images.tables import evaluate, report
from spatialwhisperer.protocols.annotation.label_sets import LABEL_SETS, LabelSet
from spatialwhisperer.protocols.output import write_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer.datasets.cells import CellImages
    from spatialwhisperer.encoders.recipe import FeatureRecipe

Field = Literal["tile", "model"]
Statistics = Literal["dataset", "image"]
FAR = 1e7
"""Distance in pixels between the images of a run."""


@dataclass(frozen=True)
class Options:
    """How a run reads the images.

    Attributes
    ----------
    images
        Names; empty takes those that the published benchmark scored.
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
        Use two images, to show that everything runs.
    """

    images: tuple[str, ...] = ()
    field: Field = "tile"
    statistics: Statistics = "dataset"
    windows: Literal["quarters", "corners"] = "quarters"
    weights: Path | None = None
    smoke: bool = False


@dataclass(frozen=True)
class Tiles:
    """Tiles of all images.

    Attributes
    ----------
    table
        Image features (embeddings where the encoder was trained) and positions.
    obs
        Image, column and row of each tile.
    counts
        Nuclei of each tile by class.
    """

    table: AnnData
    obs: pd.DataFrame
    counts: pd.DataFrame


def run(
    dataset: str,
    data: Path,
    out: Path,
    *,
    model: Whisperer | str | Path,
    prompts: Sequence[str] = ("terms1",),
    options: Options | None = None,
) -> pd.DataFrame:
    """Score a data set and write ``annotation_<dataset>.csv`` (AUROC by image and class), ``…_scores.csv`` (tiles) and ``….md``.

    Parameters
    ----------
    dataset
        "lizard", "pannuke" or "pathocell".
    data
        Folder of the data set.
    out
        Folder of the results, and of features that are kept.
    model
        The model, its folder or its name on the Hugging Face hub.
    prompts
        Names of sets of prompts.
    options
        How the images are read.

    Raises
    ------
    ValueError
        If the data set, a prompt set or an image is unknown, or the model cannot read images.
    """
    options = options or Options()
    if dataset not in LABEL_SETS:
        raise ValueError(f"There is no data set {dataset!r} (found: {listing(LABEL_SETS)}).")
    labels = LABEL_SETS[dataset]
    chosen = {name: labels.choose(name) for name in dict.fromkeys(prompts)}
    model = model if isinstance(model, Whisperer) else Whisperer.load(model)
    recipe = image_recipe(model)
    images = _read(dataset, data, recipe, options)
    names = _names(images, labels, options)
    tiles = _tiles(images, names, model, out / "tiles" / f"{dataset}-{fingerprint(model, dataset, options)}", options)
    tidy, scores = [], []
    for name, words in chosen.items():
        score = _scores(tiles.table, model, {c: words.text(c) for c in labels.prompted}, options)
        scores.append(tiles.obs.assign(prompts=name).join(score))
        tidy.append(evaluate(score, tiles.counts, tiles.obs["image"], labels).assign(dataset=dataset, prompts=name))
    table = pd.concat(tidy, ignore_index=True)
    write_text(out / f"annotation_{dataset}.csv", table.to_csv(index=False))
    write_text(out / f"annotation_{dataset}_scores.csv", pd.concat(scores).to_csv(index=False))
    text = report(table, labels, _describe(model, options, names, len(tiles.obs)))
    write_text(out / f"annotation_{dataset}.md", text)
    print(text)
    return table


# ------------------------------------------------------------------------------------------------- images and tiles


def image_recipe(model: Whisperer) -> FeatureRecipe:
    """How the model makes image features.

    Raises
    ------
    ValueError
        If it reads no images or no text, or was trained on image features that somebody else had computed.
    """
    image = model.config.modalities.get("image")
    if image is None or "text" not in model.modalities:
        raise ValueError(f"The model must read images and text; it reads {listing(model.modalities)}.")
    if image.features.encoder is None or not image.features.tile_um:
        raise ValueError(
            f"This model was trained on the image features in .obsm[{image.features.key!r}], so it cannot read these images. Train "
            "a model with image=sw.tl.ImageFeatures(encoder, …)."
        )
    return image.features


def _read(dataset: str, data: Path, recipe: FeatureRecipe, options: Options) -> CellImages:
    arguments: dict[str, Any] = {"data_dir": data}
    if dataset == "pannuke":
        arguments["windows"] = options.windows
    if options.field == "tile":
        # with this scale the model's field of view is the tile
        arguments["mpp"] = recipe.tile_um[0] / TILE_PX
    return getattr(sw.datasets, dataset)(**arguments)


def _names(images: CellImages, labels: LabelSet, options: Options) -> list[str]:
    wanted = options.images or labels.images or tuple(images)
    absent = [name for name in wanted if name not in images]
    if absent:
        raise ValueError(f"The data lack the images {listing(absent)}. Name those to score with images=….")
    return list(wanted[:2] if options.smoke else wanted)


def fingerprint(model: Whisperer, dataset: str, options: Options) -> str:
    """What kept features depend on: data set, encoder and tiles and, where the encoder was trained, its weights."""
    windows = options.windows if dataset == "pannuke" else None
    what = [dataset, to_plain(image_recipe(model)), options.field, windows, str(options.weights)]
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode())
    if "image" in model.towers:
        for name, value in sorted(model.state_dict().items()):
            digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def _tiles(images: CellImages, names: list[str], model: Whisperer, folder: Path, options: Options) -> Tiles:
    """Tiles of all images, computed where their files are missing."""
    import anndata as ad

    folder.mkdir(parents=True, exist_ok=True)
    parts = [
        _once(images, name, model, folder / f"{name}.npz", f"{i + 1} of {len(names)}", options)
        for i, name in enumerate(names)
    ]
    number = np.repeat(np.arange(len(names)), [len(p["features"]) for p in parts])
    cells = np.concatenate([p["cells"] for p in parts])
    obs = pd.DataFrame({"image": np.array(names)[number], "x_array": cells[:, 0], "y_array": cells[:, 1]})
    obs.index = obs.index.astype(str)
    table = ad.AnnData(np.zeros((len(obs), 0), np.float32), obs=obs)
    features = np.concatenate([p["features"] for p in parts])
    if "image" in model.towers:
        table.obsm[_keys.IMAGE] = features
    else:
        recipe = image_recipe(model)
        key = recipe.key or _keys.features(recipe.name)
        table.obsm[key] = features
        record(table, key, FeatureRecord(recipe, licence=""))
    # one plane for all images, far apart, so that no tile of an image neighbours one of another
    table.obsm["spatial"] = (cells + 0.5) * TILE_PX + number[:, None] * np.array([FAR, 0.0])
    counts = np.concatenate([p["counts"] for p in parts])
    return Tiles(table, obs, pd.DataFrame(counts, columns=images.classes, index=obs.index))


def _once(
    images: CellImages, name: str, model: Whisperer, path: Path, count: str, options: Options
) -> dict[str, np.ndarray]:
    """Features, counts and grid cells of the tiles of an image, from its file where there is one."""
    if not path.is_file():
        inform(f"{count}: {name}")
        image = images[name]
        table = image["table"]
        arrays = {
            "features": _embedded(image, model, options),
            "counts": np.asarray(table.obsm[COUNTS]),
            "cells": table.obs[["x_array", "y_array"]].to_numpy(),
        }
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            np.savez(file, **arrays)
        os.replace(part, path)
    with np.load(path, allow_pickle=False) as stored:
        return {key: stored[key] for key in stored.files}


def _embedded(image: SpatialData, model: Whisperer, options: Options) -> np.ndarray:
    """Image features of the tiles, or embeddings where the encoder was trained."""
    recipe = image_recipe(model)
    if "image" in model.towers:
        values = sw.tl.embed(image, model=model, modality="image", inplace=False)
    else:
        named = recipe.name if options.weights is not None else model.encoders.get("image", recipe.name)
        values = sw.pp.embed_images(
            image,
            encoder=named,  # type: ignore[arg-type]
            tile_um=recipe.tile_um,
            tile_px=recipe.tile_px,
            border=recipe.border,
            weights=options.weights,
            inplace=False,
        )
    if values is None:
        raise TypeError("Embedding with inplace=False returns the values.")
    return values


def _scores(tiles: AnnData, model: Whisperer, prompts: Mapping[str, str], options: Options) -> pd.DataFrame:
    scores = sw.tl.zero_shot_annotate(
        tiles,
        prompts,
        model=model,
        modality="image",
        normalize="none",
        library_key="image" if options.statistics == "image" else None,
        embedding_key=_keys.IMAGE if "image" in model.towers else None,
        inplace=False,
    )
    if scores is None:
        raise TypeError("zero_shot_annotate(inplace=False) returns the scores.")
    return scores


def _describe(model: Whisperer, options: Options, names: list[str], n_tiles: int) -> str:
    image = model.config.modality("image")
    seen = (
        "the 224-px tile as it is"
        if options.field == "tile"
        else f"{image.features.tile_um[0]:g} µm around the centre of the tile"
    )
    lines = [
        f"Model: {'in memory' if model.folder is None else model.folder.name}; image encoder {image.features.name}, which sees {seen}.",
        f"{n_tiles} tiles of {len(names)} images.",
    ]
    if image.context is not None:
        lines.append("An embedding also reads the neighbouring tiles of the image.")
    if image.standardize == "section":
        lines.append(f"Image features are standardised over the tiles of one {options.statistics}.")
    return " ".join(lines)
