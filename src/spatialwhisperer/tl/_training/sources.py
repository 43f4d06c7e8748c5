"""From containers to training items: which object holds which modality, and the arrays of all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access import get_table, positions, section_codes, sections
from spatialwhisperer._messages import found
from spatialwhisperer._provenance import recorded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData


@dataclass
class Source:
    """One object and what it can contribute.

    Attributes
    ----------
    data, table
        The object and its table.
    name
        How error messages call it.
    group, section
        Patient and section of each row; sections of different objects differ.
    captions
        Captions of each row, one column per text key, ``None`` where there is none; shape (n, number of keys).
    has
        Modalities that it holds.
    xy
        Position of each row, or ``None``.
    """

    data: Any
    table: AnnData
    name: str
    group: np.ndarray
    section: np.ndarray
    captions: np.ndarray
    has: frozenset[str]
    xy: np.ndarray | None = None


def describe(
    objects: Sequence[Any],
    *,
    table_key: str | None,
    text_keys: Sequence[str],
    group_key: str | None,
    image_slot: str,
    gene_slot: str | None,
    array_positions: bool = False,
) -> list[Source]:
    """Look at each object without changing it.

    Raises
    ------
    TypeError
        If an object is neither AnnData nor SpatialData.
    """
    sources = []
    for number, data in enumerate(objects):
        table = get_table(data, table_key)
        name = f"object {number}"
        captions = _captions(table, text_keys)
        has = set()
        if image_slot in table.obsm or _has_image(data, table_key):
            has.add("image")
        if gene_slot in table.obsm if gene_slot is not None else table.n_vars > 0:
            has.add("gene")
        if any(c is not None for c in captions.ravel()):
            has.add("text")
        codes = np.array([f"{number}:{code}" for code in section_codes(data, table_key=table_key)], dtype=object)
        groups, xy = _groups(table, group_key, name), positions(table, array=array_positions)
        sources.append(Source(data, table, name, groups, codes, captions, frozenset(has), xy))
    return sources


def _has_image(data: Any, table_key: str | None) -> bool:
    # an ambiguous or misplaced image must raise, not count as absent; only "no positions at all" means no image
    table = get_table(data, table_key)
    if "spatial" not in table.obsm and "spatialdata_attrs" not in table.uns:
        return False
    return any(s.image is not None for s in sections(data, table_key=table_key, need_image=False, need_mpp=False))


def _captions(table: AnnData, text_keys: Sequence[str]) -> np.ndarray:
    out = np.full((table.n_obs, len(text_keys)), None, dtype=object)
    for column, key in enumerate(text_keys):
        if key not in table.obs:
            continue
        values = table.obs[key].astype(object).to_numpy()
        stated = ~pd.isna(values)
        out[stated, column] = [str(v).strip() or None for v in values[stated]]
    return out


def _groups(table: AnnData, group_key: str | None, name: str) -> np.ndarray:
    if group_key is None or group_key not in table.obs:
        return np.full(table.n_obs, name, dtype=object)
    return table.obs[group_key].astype(str).to_numpy(dtype=object)


def summary(sources: Sequence[Source]) -> str:
    """What each object holds, for messages."""
    return "; ".join(f"{s.name} ({s.table.n_obs} rows): {found(sorted(s.has))}" for s in sources)


def tile_spec(sources: Sequence[Source], slot: str) -> dict[str, Any]:
    """Tile size at which the image features of all objects were computed.

    Raises
    ------
    ValueError
        If they differ: features of different tile sizes are not comparable.
    """
    specs: dict[tuple[Any, Any], str] = {}
    for source in sources:
        parameters = recorded(source.table, slot)
        if parameters is not None and slot in source.table.obsm:
            um = parameters.get("tile_um")
            um = tuple(um) if isinstance(um, list) else um
            specs.setdefault((um, parameters.get("tile_px")), source.name)
    if len(specs) > 1:
        sizes = "; ".join(f"{name}: {um} µm, {px} px" for (um, px), name in specs.items())
        raise ValueError(
            f".obsm[{slot!r}] was computed at different tile sizes ({sizes}). Compute it alike: "
            "sw.pp.embed_images(data, tile_um=…, tile_px=…) for every object."
        )
    if not specs:
        return {}
    um, px = next(iter(specs))
    return {"tile_um": list(um) if isinstance(um, tuple) else um, "tile_px": px}


def stack(parts: Sequence[Any]) -> Any:
    """Join the inputs of several objects: dense rows, sparse rows or lists."""
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], list):
        return [x for part in parts for x in part]
    if hasattr(parts[0], "tocsr"):
        from scipy.sparse import vstack

        return vstack(parts, format="csr")
    return np.concatenate(parts)


def observations(sources: Sequence[Source], usable: Mapping[str, Sequence[np.ndarray | None]]) -> pd.DataFrame:
    """Every row of every object, in order.

    Parameters
    ----------
    sources
        The objects.
    usable
        For image and gene: per object the Boolean mask of rows that have the input, ``None`` where it has none. Rows
        outside the mask are not in the stacked input.

    Returns
    -------
    DataFrame with ``source``, ``group``, ``section``, ``x``, ``y``, and for each modality the position in its stacked
    input, or -1.
    """
    blocks = []
    offset = dict.fromkeys(usable, 0)
    for number, source in enumerate(sources):
        n = source.table.n_obs
        xy = np.full((n, 2), np.nan) if source.xy is None else source.xy
        columns = {"source": number, "group": source.group, "section": source.section, "x": xy[:, 0], "y": xy[:, 1]}
        for modality, masks in usable.items():
            columns[modality] = np.full(n, -1)
            mask = masks[number]
            if mask is not None:
                columns[modality][mask] = offset[modality] + np.arange(int(mask.sum()))
                offset[modality] += int(mask.sum())
        blocks.append(pd.DataFrame(columns))
    return pd.concat(blocks, ignore_index=True)


def item_arrays(sources: Sequence[Source], rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """One item for each row and distinct caption of it: its columns of `observations`, ``row`` and ``caption``."""
    captions = [caption for source in sources for caption in source.captions]
    items = _repeat_captions(rows.assign(row=np.arange(len(rows))), captions)
    return {name: items[name].to_numpy() for name in items}


def _repeat_captions(block: pd.DataFrame, captions: Sequence[np.ndarray]) -> pd.DataFrame:
    """One item per distinct caption of a row, and one without a caption for a row that has none."""
    distinct = [list(dict.fromkeys(c for c in row if c is not None)) or [None] for row in captions]
    if not distinct:
        return block.assign(caption=pd.Series([], dtype=object))
    repeats = np.array([len(c) for c in distinct])
    out = block.iloc[np.repeat(np.arange(len(block)), repeats)].reset_index(drop=True)
    out["caption"] = pd.Series([c for row in distinct for c in row], dtype=object)
    return out


def image_slot(encoder: Any, features: str | None) -> str:
    """Slot that holds, or will hold, the image features."""
    if features is not None:
        return features
    if isinstance(encoder, str):
        return _keys.features(encoder)
    spec = getattr(encoder, "spec", None)
    return _keys.features(spec.name if spec is not None else type(encoder).__name__.lower())
