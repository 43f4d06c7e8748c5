"""The inputs of training: features of frozen encoders, or raw inputs and towers where a letter unlocks them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer import _keys
from spatialwhisperer._messages import found
from spatialwhisperer._provenance import recorded
from spatialwhisperer._random import isolated_rng
from spatialwhisperer.tl._training import sources as gather

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from spatialwhisperer.models.parts import Context
    from spatialwhisperer.training.batches import Items

FITTED = ("pca", "scvi", "scanvi", "set_transformer", "gene_sentence")
"""Gene encoders that training fits."""

_PLACE = {"gene": 0, "text": 1, "image": 2}


@dataclass
class Inputs:
    """Everything a model is built from.

    Attributes
    ----------
    items
        Training items.
    dims
        Feature dimension of each modality.
    encoders
        Plain values that say which encoder made the features of a modality.
    raw
        Inputs before they are standardised, stacked.
    statistics
        Mean and standard deviation of the training features of a modality.
    standardize
        How the features of each modality are standardised.
    towers, rebuild, unlocked
        Towers that learn, the plain values that rebuild them, and their letter.
    gene_encoder
        Fitted gene encoder.
    captions
        Distinct captions in order of first appearance.
    observations
        Every row of every object; see `gather.observations`.
    contexts
        What rebuilds the context module of a modality.
    """

    items: Items
    captions: list[str]
    observations: pd.DataFrame
    dims: dict[str, int] = field(default_factory=dict)
    encoders: dict[str, dict[str, Any]] = field(default_factory=dict)
    raw: dict[str, Any] = field(default_factory=dict)
    statistics: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    standardize: dict[str, str] = field(default_factory=dict)
    towers: dict[str, Any] = field(default_factory=dict)
    rebuild: dict[str, dict[str, Any]] = field(default_factory=dict)
    unlocked: dict[str, str] = field(default_factory=dict)
    gene_encoder: Any = None
    contexts: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class _Side:
    """One modality: per object its inputs and the rows that have one."""

    parts: list[Any]
    masks: list[np.ndarray | None]
    dim: int
    encoder: dict[str, Any]
    tower: Any = None
    rebuild: dict[str, Any] | None = None
    fitted: Any = None


def prepare_inputs(
    sources: Sequence[gather.Source],
    *,
    modalities: set[str],
    image_encoder: Any,
    image_slot: str,
    image_given: bool,
    gene_encoder: Any,
    gene_slot: str | None,
    text_encoder: str,
    held_out: set[str],
    locking: str,
    pretrained: bool,
    standardize: Mapping[str, str],
    context: Context,
    tile: Mapping[str, Any],
    counts: Mapping[str, Any],
    table_key: str | None,
    random_state: int,
) -> Inputs:
    """Compute features once, or set up the towers; nothing is trained here but the gene encoder."""
    from spatialwhisperer.training.batches import Items

    letter = {m: locking[_PLACE[m]] for m in modalities}
    sides: dict[str, _Side] = {}
    # counts are checked first: that is cheap and fails early, tiles are read last
    if "gene" in modalities:
        sides["gene"] = _gene_side(sources, gene_encoder, gene_slot, letter["gene"], held_out, counts, random_state)
    captions = list(dict.fromkeys(c for s in sources for c in s.captions.ravel() if c is not None))
    with isolated_rng(random_state):
        if "text" in modalities:
            text_side = _text_side(captions, text_encoder, letter["text"])
        if "image" in modalities and letter["image"] == "L":
            sides["image"] = _image_side(sources, image_encoder, image_slot, image_given, tile, table_key)
        elif "image" in modalities:
            sides["image"] = _image_tower_side(
                sources, image_encoder, pretrained and letter["image"] == "U", tile, table_key
            )
    rows = gather.observations(sources, {m: s.masks for m, s in sides.items()})
    arrays = gather.item_arrays(sources, rows)
    if "text" in modalities:
        sides["text"] = text_side
    out = Inputs(None, captions if "text" in modalities else [], rows)  # type: ignore[arg-type]
    stacked = {}
    for modality, side in sides.items():
        stacked[modality] = _finish(out, modality, side, letter[modality], sources, standardize, held_out)
    index = {m: _caption_index(captions, arrays["caption"]) if m == "text" else arrays[m] for m in sides}
    seen = {m: _context(out, m, context) for m in context.sides if m in sides}
    out.items = Items(stacked, index, arrays["row"], arrays["group"], seen)
    return out


def _context(out: Inputs, modality: str, context: Context) -> dict[str, np.ndarray]:
    """What the context module of a modality reads beside the features, by stacked row."""
    if modality in out.towers:
        raise ValueError(
            f"The {modality} side sees neighbours ({context.kind}), which needs frozen features. Lock the {modality} tower, "
            "or take a preset without context on that side."
        )
    rows = out.observations[out.observations[modality] >= 0].sort_values(modality)
    xy = rows[["x", "y"]].to_numpy()
    if not np.isfinite(xy).all():
        raise ValueError(
            f"The {modality} side sees neighbours ({context.kind}), and rows have no position. Give .obsm['spatial'], or "
            ".obs['array_row'] and .obs['array_col']."
        )
    options = dict(context.options)
    out.contexts[modality] = {"kind": context.kind, "in_dim": out.dims[modality], "options": options}
    if context.kind == "batch_peer":
        out.contexts[modality]["chunk"] = context.chunk
        return {"positions": xy.astype(np.int64)}
    from spatialwhisperer.networks.context import section_neighbours

    near = section_neighbours(xy, rows["section"].to_numpy(), options["n_neighbours"])
    return {"neighbours": near.index, "offsets": near.offsets}


def _finish(
    out: Inputs,
    modality: str,
    side: _Side,
    letter: str,
    sources: Sequence[gather.Source],
    how: Mapping[str, str],
    held_out: set[str],
) -> Any:
    """Record one side in the inputs and return what the batches look up."""
    from spatialwhisperer.statistics.standardize import standardize, statistics

    out.dims[modality], out.encoders[modality] = side.dim, side.encoder
    if side.fitted is not None:
        out.gene_encoder = side.fitted
    x = out.raw[modality] = gather.stack(side.parts)
    if side.tower is not None:
        out.towers[modality], out.rebuild[modality], out.unlocked[modality] = side.tower, side.rebuild, letter
        out.standardize[modality] = "none"
        return x
    out.standardize[modality] = how.get(modality, "none")
    if modality == "text":
        return x
    rows = [(s, m) for s, m in zip(sources, side.masks, strict=True) if m is not None]
    sections = np.concatenate([s.section[m] for s, m in rows])
    training = ~np.isin(np.concatenate([s.group[m] for s, m in rows]).astype(str), sorted(held_out))
    mean, std = out.statistics[modality] = statistics(x[training])
    return standardize(x, how=out.standardize[modality], mean=mean, std=std, sections=sections)


def _caption_index(distinct: Sequence[str], captions: np.ndarray) -> np.ndarray:
    position = {caption: i for i, caption in enumerate(distinct)}
    return np.array([position.get(caption, -1) for caption in captions], dtype=np.int64)


# ------------------------------------------------------------------------------------------------- one side each


def _gene_side(
    sources: Sequence[gather.Source],
    encoder: Any,
    slot: str | None,
    letter: str,
    held_out: set[str],
    counts: Mapping[str, Any],
    random_state: int,
) -> _Side:
    if slot is not None:
        parts, masks = _given(sources, slot, "gene")
        return _Side(parts, masks, parts[0].shape[1], {"name": slot, "slot": slot})
    from spatialwhisperer.pp.genes import embed_genes

    holders = [s for s in sources if "gene" in s.has]
    if isinstance(encoder, str) and encoder in FITTED:
        encoder = _fit_gene_encoder(holders, encoder, held_out, counts, random_state)
    elif isinstance(encoder, str | Path):
        from spatialwhisperer.encoders.gene.all import load_gene_encoder

        encoder = load_gene_encoder(encoder)
    if letter == "L":
        embedded = [
            embed_genes(s.table, encoder, layer=counts["layer"], inplace=False) if "gene" in s.has else None
            for s in sources
        ]
        parts, masks = _complete(embedded, "gene", encoder.name)
        return _Side(parts, masks, encoder.dim, {"name": encoder.name}, fitted=encoder)
    if not hasattr(encoder, "module"):
        raise ValueError(
            f"The gene tower of {encoder.name!r} cannot be trained; use gene_encoder='scvi', or lock it ('L…')."
        )
    from spatialwhisperer.encoders.towers import GeneTower
    from spatialwhisperer.pp.genes import counts_for

    parts = [counts_for(encoder.genes, encoder.gene_ids, s.table, counts["layer"]) for s in holders]
    masks = [np.ones(s.table.n_obs, bool) if "gene" in s.has else None for s in sources]
    tower, rebuild = GeneTower(encoder.module()), {"kind": "gene_encoder"}
    return _Side(parts, masks, encoder.dim, {"name": encoder.name}, tower, rebuild, encoder)


def _fit_gene_encoder(
    holders: Sequence[gather.Source], name: str, held_out: set[str], counts: Mapping[str, Any], random_state: int
) -> Any:
    """Fit on the rows of training groups: a held-out patient shapes neither the genes chosen nor the encoder."""
    from spatialwhisperer.pp.genes import fit_gene_encoder

    tables = []
    for source in holders:
        keep = ~np.isin(source.group.astype(str), sorted(held_out))
        if keep.all():
            tables.append(source.table)
        elif keep.any():
            tables.append(source.table[keep])
    # None is a value of n_top_genes
    options = {k: v for k, v in counts.items() if v is not None or k == "n_top_genes"}
    return fit_gene_encoder(tables, name, random_state=random_state, **options)


def _image_side(
    sources: Sequence[gather.Source],
    encoder: Any,
    slot: str,
    given: bool,
    tile: Mapping[str, Any],
    table_key: str | None,
) -> _Side:
    if not given:
        from spatialwhisperer.pp.images import embed_images

        for source in sources:
            if "image" in source.has and slot not in source.table.obsm:
                embed_images(source.data, encoder=encoder, table_key=table_key, key_added=slot, **tile)
    parts, masks = _given(sources, slot, "image")
    size = gather.tile_spec(sources, slot)
    name = encoder if isinstance(encoder, str) and not given else slot
    return _Side(parts, masks, parts[0].shape[1], {"name": name, "slot": slot, **size})


def _given(
    sources: Sequence[gather.Source], slot: str, modality: str
) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
    """Complete rows of a slot of .obsm in each object."""
    if not any(slot in s.table.obsm for s in sources):
        raise KeyError(
            f"{slot!r} is not in .obsm of any object (found: {found({k for s in sources for k in s.table.obsm})})."
        )
    return _complete([s.table.obsm.get(slot) for s in sources], modality, f".obsm[{slot!r}]")


def _complete(features: Sequence[Any], modality: str, origin: str) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
    """Rows without NaN of each object's features, and which rows these are."""
    given = [None if x is None else np.asarray(x, dtype=np.float32) for x in features]
    widths = {x.shape[1] for x in given if x is not None}
    if len(widths) > 1:
        raise ValueError(f"{origin} has different widths in the objects: {found(sorted(widths))}.")
    masks = [None if x is None else np.isfinite(x).all(axis=1) for x in given]
    parts = [x[m] for x, m in zip(given, masks, strict=True) if x is not None]
    if not sum(len(p) for p in parts):
        raise ValueError(f"No object has complete {modality} features in {origin}.")
    return parts, masks


def _image_tower_side(
    sources: Sequence[gather.Source], encoder: Any, pretrained: bool, tile: Mapping[str, Any], table_key: str | None
) -> _Side:
    from spatialwhisperer.encoders.towers import make_image_tower
    from spatialwhisperer.pp.images import read_tiles
    from spatialwhisperer.tl.embed import off_slide_rows

    if encoder == "stain_texture":
        raise ValueError(
            "'stain_texture' has no weights to train. Name a timm model (image_encoder='resnet18'), or lock it."
        )
    tower, rebuild, dim, px = make_image_tower(encoder, pretrained=pretrained)
    size = {"tile_um": tile["tile_um"], "tile_px": tile["tile_px"] or px or 224}
    holders = [s for s in sources if "image" in s.has]
    stored = {(recorded(s.table, _keys.TILES) or {}).get("tile_um") for s in holders}
    if size["tile_um"] is None and len(stored) > 1:
        raise ValueError(
            f"sw.pp.tiles recorded different tile sizes in the objects ({found(sorted(map(str, stored)))} µm). "
            "Pass tile_um=…, or record one size."
        )
    tiles = {id(s): read_tiles(s.data, table_key=table_key, **size) for s in holders}
    masks = [~off_slide_rows(s.table) if "image" in s.has else None for s in sources]
    parts = [tiles[id(s)] if m.all() else tiles[id(s)][m] for s, m in zip(sources, masks, strict=True) if m is not None]
    if size["tile_um"] is None:
        size["tile_um"] = (recorded(holders[0].table, _keys.TILES) or {}).get("tile_um")
    name = encoder if isinstance(encoder, str) else type(encoder).__name__
    return _Side(parts, masks, dim, {"name": name, **size}, tower, rebuild)


def _text_side(captions: list[str], encoder: str, letter: str) -> _Side:
    if letter == "L":
        from spatialwhisperer.pp.texts import embed_texts

        features = embed_texts(captions, encoder=encoder)
        return _Side([features], [None], features.shape[1], {"name": encoder})
    from spatialwhisperer.encoders.text.transformer import text_source
    from spatialwhisperer.encoders.towers import make_text_tower

    tower, rebuild, dim = make_text_tower(text_source(encoder), pretrained=letter == "U")
    return _Side([captions], [None], dim, {"name": encoder}, tower, rebuild)
