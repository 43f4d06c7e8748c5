"""Filling a model's reference: what it should remember of its training data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._access import sections
from spatialwhisperer._provenance import recorded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spatialwhisperer.models import Whisperer
    from spatialwhisperer.tl._training.inputs import Inputs
    from spatialwhisperer.tl._training.sources import Source
    from spatialwhisperer.training.batches import Items

PAIRS, TEXT_ROWS, SAMPLE = 1000, 2000, 500
"""Most image–gene pairs, rows with captions, and standardised image features to keep."""

BLOCK_BYTES = 2**18
"""Size of one array; where rows are wide fewer of them are kept, but `FEWEST` at least."""

FEWEST = 100
CAPTION_CHARACTERS = 100_000


def attach_reference(
    model: Whisperer,
    inputs: Inputs,
    items: Items,
    sources: Sequence[Source],
    *,
    layer: str | None = None,
    table_key: str | None = None,
    random_state: int = 0,
) -> None:
    """Give a fitted model its :class:`~spatialwhisperer.models.reference.Reference`.

    Its size does not grow with the data: at most 1000 image–gene pairs and 2000 rows with captions are drawn, fewer where
    embeddings have more than 131 dimensions (65 for the rows with captions).

    Parameters
    ----------
    model
        The fitted model; ``model.reference`` is set.
    inputs, items
        What it was fitted on. Rows of validation groups are not among the items.
    sources
        The objects.
    layer
        Layer with raw counts.
    table_key
        Table of a SpatialData.
    random_state
        Seed of the draws.
    """
    from spatialwhisperer.models.reference import Reference

    rng = np.random.default_rng(random_state)
    config: dict[str, Any] = {"n": {}}
    arrays: dict[str, np.ndarray] = {}
    _image_gene(model, inputs, items, rng, config, arrays)
    _gene_text(model, inputs, items, rng, config, arrays)
    _means(model, inputs, items, rng, arrays)
    if inputs.gene_encoder is not None and "gene" in items.index and "text" in items.index:
        _profiles(inputs, items, sources, layer, rng, arrays)
    if "image" in items.index:
        config |= _image_range(inputs, items, sources, table_key)
        if "image" not in model.towers:
            _image_features(model, inputs, items, rng, config, arrays)
    model.reference = Reference(config, arrays)


# ------------------------------------------------------------------------------------------------- embeddings


def _image_gene(model: Any, inputs: Any, items: Items, rng: Any, config: dict[str, Any], arrays: Any) -> None:
    pairs = _pairs(items, "image", "gene")
    if not len(pairs):
        return
    config["n"]["image–gene"] = len(pairs)
    keep = _draw(rng, len(pairs), _rows(PAIRS, model))
    arrays["pair_image"] = _embed(model, inputs, items, "image", pairs[keep, 0])
    arrays["pair_gene"] = _embed(model, inputs, items, "gene", pairs[keep, 1])
    arrays["pair_group"] = _group_codes(inputs)[pairs[keep, 2]]


def _gene_text(model: Any, inputs: Any, items: Items, rng: Any, config: dict[str, Any], arrays: Any) -> None:
    pairs = _pairs(items, "gene", "text")
    if not len(pairs):
        return
    config["n"]["gene–text"] = len(pairs)
    pairs = pairs[_draw(rng, len(pairs), _rows(TEXT_ROWS, model))]
    captions = np.unique(pairs[:, 1])
    # long captions: as many of them as fit, and only the rows that have them
    captions = captions[_draw(rng, len(captions), _rows(TEXT_ROWS, model))]
    lengths = np.cumsum([len(inputs.captions[i]) for i in captions])
    captions = captions[: max(1, int(np.searchsorted(lengths, CAPTION_CHARACTERS, side="right")))]
    pairs = pairs[np.isin(pairs[:, 1], captions)]
    config["captions"] = [inputs.captions[i] for i in captions]
    arrays["caption"] = _embed(model, inputs, items, "text", captions)
    arrays["text_gene"] = _embed(model, inputs, items, "gene", pairs[:, 0])
    arrays["text_caption"] = np.searchsorted(captions, pairs[:, 1]).astype(np.int32)
    arrays["text_group"] = _group_codes(inputs)[pairs[:, 2]]


def _profiles(
    inputs: Inputs, items: Items, sources: Sequence[Source], layer: str | None, rng: Any, arrays: dict[str, np.ndarray]
) -> None:
    """Expression by caption, and how unlike it rows of groups are that did not take part in it."""
    from spatialwhisperer.statistics.surprise import left_out_surprise, log_profiles

    pairs = _pairs(items, "gene", "text")
    encoder = inputs.gene_encoder
    captions, counts = np.unique(pairs[:, 1], return_counts=True)
    captions = np.sort(captions[np.argsort(-counts, kind="stable")][: max(8, BLOCK_BYTES // (2 * len(encoder.genes)))])
    pairs = pairs[np.isin(pairs[:, 1], captions)]
    if len(pairs) < 2:
        return
    pairs = pairs[_draw(rng, len(pairs), TEXT_ROWS)]
    x = _counts(encoder, sources, inputs.observations["source"].to_numpy(), pairs[:, 2], layer)
    codes = np.searchsorted(captions, pairs[:, 1])
    left_out = left_out_surprise(x, codes, len(captions), _group_codes(inputs)[pairs[:, 2]])
    left_out = left_out[np.isfinite(left_out)]
    if len(left_out):
        profiles = log_profiles(x, codes, len(captions))
        arrays["profile"] = profiles[np.isfinite(profiles).all(axis=1)].astype(np.float16)
        arrays["surprise"] = np.sort(left_out).astype(np.float16)


def _counts(encoder: Any, sources: Sequence[Source], number: np.ndarray, rows: np.ndarray, layer: str | None) -> Any:
    """Counts of some observations (ascending source by source) in the encoder's genes, CSR."""
    from scipy.sparse import csr_matrix, vstack

    from spatialwhisperer._access.counts import counts_for

    starts = np.searchsorted(number, np.arange(len(sources)))
    order = np.argsort(rows, kind="stable")
    parts = []
    for i in np.unique(number[rows]):
        inside = rows[order][number[rows[order]] == i] - starts[i]
        table = sources[i].table
        parts.append(csr_matrix(counts_for(encoder.genes, encoder.gene_ids, table[inside], layer), dtype=np.float64))
    return vstack(parts, format="csr")[np.argsort(order, kind="stable")]


def _means(model: Any, inputs: Any, items: Items, rng: Any, arrays: Any) -> None:
    for modality, index in items.index.items():
        if modality not in model.modalities:
            continue
        used = np.unique(index[index >= 0])
        z = _embed(model, inputs, items, modality, used[_draw(rng, len(used), _rows(PAIRS, model))])
        arrays[f"mean_{modality}"] = z.astype(np.float32).mean(axis=0)


def _pairs(items: Items, a: str, b: str) -> np.ndarray:
    """Distinct pairs of inputs and the observation of each, shape (n, 3)."""
    if a not in items.index or b not in items.index:
        return np.empty((0, 3), int)
    both = (items.index[a] >= 0) & (items.index[b] >= 0)
    pairs = np.stack([items.index[a][both], items.index[b][both]], axis=1)
    _, first = np.unique(pairs, axis=0, return_index=True)
    first.sort()
    return np.column_stack([pairs[first], items.row[both][first]])


def _rows(most: int, model: Any, width: int | None = None) -> int:
    """How many rows of half precision fit into a block."""
    width = int(model.config["projection_dim"]) if width is None else width
    return min(most, max(FEWEST, BLOCK_BYTES // (2 * width)))


def _draw(rng: Any, n: int, most: int) -> np.ndarray:
    """Positions of at most ``most`` of n things, ascending."""
    return np.arange(n) if n <= most else np.sort(rng.choice(n, most, replace=False))


def _group_codes(inputs: Inputs) -> np.ndarray:
    return np.unique(inputs.observations["group"].to_numpy().astype(str), return_inverse=True)[1].astype(np.int32)


def _embed(model: Whisperer, inputs: Inputs, items: Items, modality: str, at: np.ndarray) -> np.ndarray:
    """Unit embeddings, float16, of the inputs of a modality at some positions."""
    import torch

    if modality in model.contexts:
        # a context module reads the neighbours, so that the whole modality is embedded
        rows = inputs.observations[inputs.observations[modality] >= 0].sort_values(modality)
        where = {"sections": rows["section"].to_numpy(), "positions": rows[["x", "y"]].to_numpy()}
        return model.project(modality, inputs.raw[modality], **where)[at].astype(np.float16)
    if modality in model.towers:
        raw = inputs.raw[modality]
        chosen = [raw[i] for i in at] if isinstance(raw, list) else raw[at]
        return model.project(modality, chosen).astype(np.float16)
    # features of the items are standardised already
    x = torch.as_tensor(np.asarray(items.inputs[modality][at], dtype=np.float32))
    with torch.inference_mode():
        return model.eval()(modality, x).numpy().astype(np.float16)


# ------------------------------------------------------------------------------------------------- images


def _image_range(inputs: Inputs, items: Items, sources: Sequence[Source], table_key: str | None) -> dict[str, Any]:
    """Encoder and tile size, and lowest and highest microns per pixel of the images that were trained on."""
    encoder = inputs.encoders.get("image", {})
    slot = encoder.get("slot")
    used = np.unique(inputs.observations["source"].to_numpy()[items.row[items.index["image"] >= 0]])
    scales = [mpp for number in used for mpp in image_mpp(sources[number], slot, table_key)]
    # features that were given under another name may still say which encoder made them
    names = {(recorded(sources[number].table, slot) or {}).get("encoder") for number in used} if slot else {None}
    return {
        "encoder": names.pop() if len(names) == 1 else None,
        "tile_um": encoder.get("tile_um"),
        "tile_px": encoder.get("tile_px"),
        "mpp": [min(scales), max(scales)] if scales else None,
    }


def image_mpp(source: Source, slot: str | None, table_key: str | None) -> list[float]:
    """Microns per pixel of the images of an object: as stated with its features, else as the object states it now."""
    parameters: Mapping[str, Any] = (recorded(source.table, slot) if slot is not None else None) or {}
    if parameters.get("mpp"):
        return [float(v) for v in parameters["mpp"].values() if v]
    if slot in source.table.obsm and "spatial" not in source.table.obsm:
        return []
    with_image = sections(source.data, table_key=table_key, need_image=False, need_mpp=False)
    return [float(s.mpp) for s in with_image if s.mpp and s.image is not None]


def _image_features(model: Any, inputs: Inputs, items: Items, rng: Any, config: dict[str, Any], arrays: Any) -> None:
    """Raw features by section, and a sample of the standardised ones."""
    has = items.index["image"] >= 0
    at, first = np.unique(items.index["image"][has], return_index=True)
    codes = inputs.observations["section"].to_numpy().astype(str)[items.row[has][first]]
    raw = inputs.raw["image"]
    names = np.unique(codes)
    names = names[_draw(rng, len(names), max(8, BLOCK_BYTES // (8 * raw.shape[1])))]
    parts = [raw[at[codes == name]] for name in names]
    config["sections"], config["section_rows"] = names.tolist(), [len(p) for p in parts]
    arrays["feature_mean"] = np.stack([p.mean(axis=0, dtype=np.float64) for p in parts]).astype(np.float32)
    arrays["feature_std"] = np.stack([p.std(axis=0, dtype=np.float64) for p in parts]).astype(np.float32)
    keep = at[_draw(rng, len(at), _rows(SAMPLE, model, raw.shape[1]))]
    largest = float(np.finfo(np.float16).max)
    arrays["feature_sample"] = np.clip(items.inputs["image"][keep], -largest, largest).astype(np.float16)
