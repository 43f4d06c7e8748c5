"""The rows of a slide in the joint space: their features, and the embeddings of these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._access.contract import feature_matrix
from spatialwhisperer._access.images import rgb_names
from spatialwhisperer._access.result import Result
from spatialwhisperer._access.table.counts import counts_for
from spatialwhisperer._messages import inform, listing, warn
from spatialwhisperer._modalities import MODALITIES, get_modality
from spatialwhisperer._provenance import recorded
from spatialwhisperer.encoders.gene.base import GeneEncoder
from spatialwhisperer.encoders.image.base import ImageEncoder
from spatialwhisperer.encoders.outputs import encoded
from spatialwhisperer.pp.features.images import given_features, image_features, raw_tiles
from spatialwhisperer.pp.genes import gene_features
from spatialwhisperer.tl._embedding.models import describe_model, encoder_of, head_checksum

if TYPE_CHECKING:
    from collections.abc import Callable

    from spatialwhisperer._access.records import Where
    from spatialwhisperer._access.slide import Slide
    from spatialwhisperer.models.whisperer import Whisperer


UNIT_TOLERANCE = 1e-3
"""Largest difference of the length of a stored embedding from 1: what half precision leaves of it is smaller."""


@dataclass(frozen=True)
class Inputs:
    """Input of the model for the rows of a slide, in one modality.

    Attributes
    ----------
    values
        Features (n, d), or raw inputs where the encoder is trained.
    missing
        Rows without an input, Boolean, shape (n,); ``None`` where NaN marks them.
    results
        Computed features, ready to be written.
    where
        Where tiles were read that no features are stored of.
    """

    values: Any
    missing: np.ndarray | None = None
    results: tuple[Result, ...] = ()
    where: Where | None = None


@dataclass(frozen=True)
class Embedded:
    """Rows in the joint space.

    Attributes
    ----------
    z
        Unit embeddings, float32 (n, u), NaN in rows without an input.
    modality
        What they were embedded from; ``None`` where it is not recorded.
    features
        Features of the rows (n, d); ``None`` where the encoder is part of the model.
    results
        Embeddings and computed features, ready to be written.
    """

    z: np.ndarray
    modality: str | None
    features: np.ndarray | None = None
    results: tuple[Result, ...] = ()


def check_modality(modality: str | None) -> None:
    """Refuse a modality that the rows of a table do not have; ``None`` leaves the choice to the data."""
    if modality is None:
        return
    if modality not in MODALITIES or MODALITIES[modality].reads == "captions":
        of_rows = [repr(m.name) for m in MODALITIES.values() if m.reads != "captions"]
        why = "a table holds no text of its own" if modality == "text" else "there is no such modality"
        raise ValueError(f"modality={modality!r}: {why}; choose {' or '.join(of_rows)}.")


def choose_modality(slide: Slide, model: Whisperer) -> str:
    """The image where the data have one and the model reads it, else genes, else what the data hold.

    Raises
    ------
    KeyError
        If the data hold nothing that the model reads.
    ValueError
        If a scale is given for an image that cannot be read.
    """
    others = [m for m in model.modalities if m not in ("image", "gene", "text")]
    for modality in ("image", "gene", *others):
        if modality in model.modalities and holds(slide, model, modality):
            if "image" in model.modalities and modality != "image":
                _say_without_image(slide, modality)
            return modality
    image = model.config.modalities.get("image")
    raise KeyError(
        f"There is nothing to embed: the model has {listing(model.modalities)}, the data hold no H&E image (no image element, "
        f"no .uns['spatial'], no .obsm[{None if image is None else image.features.key!r}]) and {slide.table.n_vars} genes."
    )


def _say_without_image(slide: Slide, modality: str) -> None:
    """Say that rows with positions are read without an image, and why where an image is there."""
    slide.say_left_out()
    if slide.is_placed:
        inform(f"No H&E image was found: {modality!r} is the modality that is read. modality=… chooses one.")


def holds(slide: Slide, model: Whisperer, modality: str) -> bool:
    """Whether the data hold what the model reads of a modality."""
    if modality not in model.modalities:
        return False
    key = model.config.modality(modality).features.key
    if key is not None and key in slide.table.obsm:
        return True
    reads = get_modality(modality).reads
    if reads == "tiles":
        return bool(rgb_names(slide.data))
    return reads == "counts" and key is None and slide.table.n_vars > 0


def embed_rows(
    slide: Slide,
    model: Whisperer,
    modality: str,
    *,
    layer: str | None = None,
    key_added: str | None = None,
    batch_size: int | None = None,
    device: str | None = None,
) -> Embedded:
    """Embed the rows of a slide; features that had to be computed are among the results.

    Raises
    ------
    KeyError
        If the model has no such modality, or the data do not hold it.
    """
    if modality not in model.modalities:
        raise KeyError(f"This model cannot embed {modality!r} from a table (it has: {listing(model.modalities)}).")
    inputs = row_inputs(slide, model, modality, layer=layer, batch_size=batch_size, device=device)
    size: dict[str, Any] = {} if batch_size is None else {"batch_size": batch_size}
    z = model.project(
        modality,
        inputs.values,
        sections=slide.sections,
        positions=context_positions(slide, model, modality),
        device=device,
        **size,
    )
    if inputs.missing is not None:
        z[inputs.missing] = np.nan
    key = key_added or get_modality(modality).embedding_key
    record: dict[str, Any] = {
        "modality": modality,
        "model": describe_model(model),
        "head": head_checksum(model, modality),
    }
    if inputs.where is not None:
        record["where"] = inputs.where
    features = None if modality in model.towers else inputs.values
    return Embedded(z, modality, features, (*inputs.results, Result(key, record, obsm={key: z})))


def given_rows(slide: Slide, model: Whisperer, key: str, modality: str | None) -> Embedded:
    """Embeddings that are stored already.

    Raises
    ------
    KeyError
        If they are not there.
    ValueError
        If they are infinite, of another width, not of unit length, or recorded as those of another model or modality.
    """
    table = slide.table
    if key not in table.obsm:
        raise KeyError(
            f"{key!r} not in .obsm (found: {listing(table.obsm)}). Run sw.tl.embed(data, model=model) first."
        )
    z = feature_matrix(table.obsm[key], f".obsm[{key!r}]")
    width = model.config.projection_dim
    if z.shape[1] != width:
        raise ValueError(f".obsm[{key!r}] has {z.shape[1]} dimensions, the model {width}: another model wrote it.")
    record = recorded(table, key) or {}
    own = {m.embedding_key: m.name for m in MODALITIES.values()}.get(key)
    stated = record.get("modality", own)
    _check_model(model, key, record)
    _check_stated_modality(key, stated, modality)
    _check_unit_length(key, z)
    _warn_of_empty(slide, key, z)
    return Embedded(z, modality or stated)


def _check_model(model: Whisperer, key: str, record: dict[str, Any]) -> None:
    """Refuse an embedding that is recorded as that of other weights."""
    if "head" not in record or "modality" not in record:
        return
    own = record["modality"] in model.modalities
    if own and record["head"] == head_checksum(model, str(record["modality"])):
        return
    theirs, ours = record.get("model") or {}, describe_model(model)
    facts = [f"{name} {theirs.get(name)!r}, not {value!r}" for name, value in ours.items() if theirs.get(name) != value]
    raise ValueError(
        f".obsm[{key!r}] was embedded by another model ({listing(facts) if facts else 'of the same kind, with other weights'}). Embed "
        f"again: sw.tl.embed(data, model=model, key_added={key!r}), or leave embedding_key out."
    )


def _check_stated_modality(key: str, stated: str | None, modality: str | None) -> None:
    """Refuse another modality than that of the record, or of the key: calibrated decisions are for one modality."""
    if modality is None or stated in (None, modality):
        return
    raise ValueError(
        f".obsm[{key!r}] was embedded from {stated!r}, not from {modality!r}. Leave modality out, or embed what is asked for: "
        f"sw.tl.embed(data, model=model, modality={modality!r})."
    )


def _check_unit_length(key: str, z: np.ndarray) -> None:
    """Refuse rows whose products with texts are not cosines."""
    length = np.linalg.norm(z, axis=1)
    # NaN stands for a row without an embedding
    wrong = np.flatnonzero(np.abs(length - 1) > UNIT_TOLERANCE)
    if len(wrong):
        raise ValueError(
            f"{len(wrong)} of {len(z)} rows of .obsm[{key!r}] are not of unit length (row {wrong[0]}: {length[wrong[0]]:.4g}), so that their "
            f"products with texts are not cosines. Embed again: sw.tl.embed(data, model=model, key_added={key!r}). NaN stands for a row "
            "without an embedding."
        )


def _warn_of_empty(slide: Slide, key: str, z: np.ndarray) -> None:
    """Say which sections have no embedding at all, as after a join with a table that was not embedded."""
    missing = ~np.isfinite(z).all(axis=1)
    if not missing.any() or missing.all():
        return
    empty = sorted(set(slide.sections[missing]) - set(slide.sections[~missing]))
    if empty:
        warn(
            f"No row of {'section' if len(empty) == 1 else 'sections'} {listing(empty, 5)} has an embedding in .obsm[{key!r}]. Embed all "
            f"rows: sw.tl.embed(data, model=model, key_added={key!r})."
        )


def row_inputs(
    slide: Slide,
    model: Whisperer,
    modality: str,
    *,
    layer: str | None = None,
    batch_size: int | None = None,
    device: str | None = None,
) -> Inputs:
    """Input of the model for the rows: stored features of its recipe, computed ones, or raw input.

    Raises
    ------
    KeyError
        If the data do not hold it.
    """
    read = _READERS[get_modality(modality).reads]
    return read(slide, model, modality, {"layer": layer, "batch_size": batch_size, "device": device})


def context_positions(slide: Slide, model: Whisperer, modality: str) -> np.ndarray | None:
    """Positions for the context of a modality; ``None`` where it has none."""
    context = model.config.modality(modality).context
    return None if context is None else slide.positions(array=context.array_positions)


def _tiles(slide: Slide, model: Whisperer, modality: str, options: dict[str, Any]) -> Inputs:
    recipe = model.config.modality(modality).features
    if modality in model.towers:
        tiles, off = raw_tiles(slide, recipe)
        return Inputs(tiles, off, where=slide.where)

    def load() -> ImageEncoder:
        encoder = encoder_of(model, modality)
        if not isinstance(encoder, ImageEncoder):
            raise TypeError(f"The {modality} encoder of this model is a {type(encoder).__name__}, not an ImageEncoder.")
        return encoder

    features = image_features(slide, recipe, load, batch_size=options["batch_size"], device=options["device"])
    return Inputs(features.values, None, features.results)


def _counts(slide: Slide, model: Whisperer, modality: str, options: dict[str, Any]) -> Inputs:
    recipe = model.config.modality(modality).features
    if recipe.encoder is None:
        return Inputs(given_features(slide, str(recipe.key)))
    encoder = encoder_of(model, modality)
    if not isinstance(encoder, GeneEncoder):
        raise TypeError(f"The {modality} encoder of this model is a {type(encoder).__name__}, not a GeneEncoder.")
    if modality in model.towers:
        return Inputs(
            counts_for(encoder.genes, encoder.gene_ids, slide.table, options["layer"], fewest=encoder.fewest_genes)
        )
    return Inputs(gene_features(slide.table, encoder, **options)[0])


def _matrix(slide: Slide, model: Whisperer, modality: str, options: dict[str, Any]) -> Inputs:
    recipe = model.config.modality(modality).features
    values = given_features(slide, str(recipe.key or get_modality(modality).key))
    if recipe.encoder is None or modality in model.towers:
        return Inputs(values)
    return Inputs(encoded(encoder_of(model, modality), values, device=options["device"]))


def _captions(_slide: Slide, _model: Whisperer, modality: str, _options: dict[str, Any]) -> Inputs:
    raise KeyError(f"{modality!r} is not read from the rows of a table.")


_READERS: dict[str, Callable[[Slide, Whisperer, str, dict[str, Any]], Inputs]] = {
    "tiles": _tiles,
    "counts": _counts,
    "matrix": _matrix,
    "captions": _captions,
}


def check_any_row(embedded: Embedded, embedding_key: str | None) -> None:
    """Refuse a slide where no row has an embedding; the error names the likely cause."""
    z = embedded.z
    if np.isfinite(z).all(axis=1).any():
        return
    if embedding_key is not None:
        remedy = f".obsm[{embedding_key!r}] holds NaN in each row. Compute it again: sw.tl.embed(data, model=model)."
    elif embedded.modality == "gene":
        remedy = "no row has counts in the model's genes. Check .var_names and layer=…"
    elif embedded.modality == "image":
        remedy = (
            "the tile of each leaves the slide or misses the tissue. Check the coordinates and the microns per pixel, or compute "
            "the features again with sw.pp.embed_images(data, border='pad')."
        )
    else:
        remedy = "the values of each row hold NaN."
    raise ValueError(f"None of the {len(z)} rows has an embedding: {remedy}")
