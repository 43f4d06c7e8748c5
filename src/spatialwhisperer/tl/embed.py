"""Embedding the rows of a table into the joint space of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from spatialwhisperer import _keys
from spatialwhisperer._access import get_table, positions, section_codes
from spatialwhisperer._checks import check_batch_size, check_key_added
from spatialwhisperer._messages import found, warn
from spatialwhisperer._provenance import record, recorded

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer.models import Whisperer


def embed(
    data: AnnData | SpatialData,
    *,
    model: Whisperer | str | Path | None = None,
    modality: Literal["image", "gene"] | None = None,
    table_key: str | None = None,
    layer: str | None = None,
    library_key: str | None = None,
    key_added: str | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    inplace: bool = True,
) -> np.ndarray | None:
    """Embed images or counts into the joint space.

    Image features and gene features that are already in ``.obsm`` are used; missing image features are computed with
    the encoder and tile size of the model (and stored), missing gene features from the raw counts.

    Parameters
    ----------
    data
        What to embed.
    model
        A trained model, its folder or its name on the hub. Not given: the embedded model.
    modality
        Which side to embed. Not given: image where there is an image, else gene.
    table_key
        Table of a SpatialData.
    layer
        Layer with raw counts; ``.X`` if not given.
    library_key
        Column of ``.obs`` that names the library of each row (AnnData with several libraries).
    key_added
        Slot of ``.obsm``.
    batch_size
        Tiles or rows in one pass.
    device
        Torch device; ``settings.device`` if not given.
    inplace
        Write to ``data`` or return.

    Returns
    -------
    ``None``, or the array of shape (n, u) with ``inplace=False``. In place it writes:

    ``.obsm['X_sw_image']`` or ``.obsm['X_sw_gene']`` : :class:`numpy.ndarray` (dtype ``float32``)
        Rows of unit length; NaN where the tile leaves the slide.

    Raises
    ------
    KeyError
        If the model has no such side, or the data hold neither image nor counts.
    ValueError
        If there is no such modality, or ``key_added`` or ``batch_size`` make no sense.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sections, reference = sw.datasets.simulate_sections(2, 80, n_genes=100, n_reference_cells=200, random_state=0)
    >>> model = sw.tl.train([sections["P1"], reference], max_epochs=20, tile_px=64)
    >>> sw.tl.embed(sections["P2"], model=model)
    >>> sections["P2"]["table"].obsm["X_sw_image"].shape
    (80, 64)
    """
    check_key_added(key_added)
    check_batch_size(batch_size)
    check_modality(modality)
    model = open_model(model)
    table = get_table(data, table_key)
    modality = modality or default_modality(data, table, model)
    if modality not in model.modalities:
        raise KeyError(f"This model cannot embed {modality!r} from a table (it has: {found(model.modalities)}).")
    if modality == "image":
        where = {"table_key": table_key, "library_key": library_key}
        x = image_inputs(data, table, model, inplace, where, batch_size=batch_size, device=device)
    else:
        x = _gene_inputs(table, model, layer=layer, batch_size=batch_size, device=device)
    sections = section_codes(data, table_key=table_key, library_key=library_key)
    size = {} if batch_size is None else {"batch_size": batch_size}
    context = model.config["contexts"].get(modality)
    where_rows = None if context is None else positions(table, array=context["kind"] == "batch_peer")
    z = model.project(modality, x, sections=sections, positions=where_rows, device=device, **size)
    if modality == "image" and "image" in model.towers:
        z[off_slide_rows(table)] = np.nan
    if not inplace:
        return z
    key = key_added or (_keys.IMAGE if modality == "image" else _keys.GENE)
    table.obsm[key] = z
    record(table, key, modality=modality, model=describe_model(model))
    return None


def open_model(model: Any) -> Whisperer:
    """The model itself, the one in a folder or on the hub, or the embedded one where none is given.

    Raises
    ------
    FileNotFoundError
        If there is no such model, or none is given and this installation holds none.
    TypeError
        If it is none of these.
    """
    if model is None:
        from spatialwhisperer.models.default import default_model

        return default_model()
    if hasattr(model, "project") and hasattr(model, "modalities"):
        return model
    from pathlib import Path

    from spatialwhisperer.models.whisperer import Whisperer

    if isinstance(model, str | Path):
        return Whisperer.load(model)
    raise TypeError(f"model must be a Whisperer, a folder or a hub name, not {type(model).__name__}.")


def check_modality(modality: Any) -> None:
    """Refuse a side that no table has; ``None`` leaves the choice to the data."""
    if modality in (None, "image", "gene"):
        return
    why = "a table has no text side" if modality == "text" else "there is no such side"
    raise ValueError(f"modality={modality!r}: {why}; choose 'image' or 'gene'.")


def describe_model(model: Whisperer) -> dict[str, Any]:
    """What the provenance of a result says about its model."""
    training = model.config.get("training", {})
    keys = ("preset", "schedule", "pairs", "random_state")
    tile_um = model.config["encoders"].get("image", {}).get("tile_um")
    return {
        **({} if tile_um is None else {"tile_um": tile_um}),
        "folder": None if model.folder is None else str(model.folder.name),
        "encoders": {m: e.get("name") for m, e in model.config["encoders"].items()},
        **{k: training[k] for k in keys if k in training},
    }


def default_modality(data: Any, table: AnnData, model: Whisperer) -> str:
    """Image where the data have one and the model an image side, else gene."""
    from spatialwhisperer._access import raster_images

    slot = model.config["encoders"].get("image", {}).get("slot")
    if "image" in model.modalities and ((slot is not None and slot in table.obsm) or raster_images(data)):
        return "image"
    if "gene" in model.modalities and table.n_vars > 0:
        return "gene"
    raise KeyError(
        f"There is nothing to embed: the model has {found(model.modalities)}, the data hold no H&E image (no image element, "
        f"no .uns['spatial'], no .obsm[{slot!r}]) and {table.n_vars} genes."
    )


def image_inputs(
    data: Any, table: AnnData, model: Whisperer, inplace: bool, where: dict[str, Any], **options: Any
) -> Any:
    """Features of the rows (stored when they had to be computed), or their tiles for a model with an image tower."""
    encoder = model.config["encoders"]["image"]
    size = {k: encoder.get(k) for k in ("tile_um", "tile_px")}
    if "image" in model.towers:
        from spatialwhisperer.pp.images import read_tiles

        return read_tiles(data, **where, **size)
    slot = encoder["slot"]
    if slot in table.obsm:
        _check_tile_size(table, slot, size)
        return table.obsm[slot]
    if encoder["name"] == slot:
        raise KeyError(
            f"This model was trained on given image features: {slot!r} not in .obsm (found: {found(table.obsm)})."
        )
    from spatialwhisperer.pp.images import embed_images

    x = embed_images(data, encoder=encoder["name"], key_added=slot, inplace=inplace, **where, **size, **options)
    return table.obsm[slot] if x is None else x


def off_slide_rows(table: AnnData) -> np.ndarray:
    """Rows that :func:`spatialwhisperer.pp.tiles` found off the slide, shape (n,); `read_tiles` gives them glass."""
    if _keys.TILES not in table.obsm:
        return np.zeros(table.n_obs, bool)
    return ~np.isfinite(np.asarray(table.obsm[_keys.TILES])).all(axis=1)


def _check_tile_size(table: AnnData, slot: str, size: dict[str, Any]) -> None:
    parameters = recorded(table, slot)
    if parameters is None or size["tile_um"] is None:
        return
    stored = parameters.get("tile_um", size["tile_um"])
    if np.shape(stored) != np.shape(size["tile_um"]) or not np.allclose(stored, size["tile_um"], rtol=0.02):
        warn(
            f".obsm[{slot!r}] was computed on tiles of {parameters['tile_um']} µm, the model was trained on "
            f"{size['tile_um']} µm. Compute it again: sw.pp.embed_images(data, tile_um={size['tile_um']}).",
            stacklevel=5,
        )


def _gene_inputs(table: AnnData, model: Whisperer, *, layer: str | None, **options: Any) -> Any:
    """Features of the counts, or the counts themselves for a model with a gene tower."""
    encoder = model.config["encoders"]["gene"]
    if "slot" in encoder:
        if encoder["slot"] not in table.obsm:
            raise KeyError(
                f"This model was trained on given gene features: {encoder['slot']!r} not in .obsm (found: {found(table.obsm)})."
            )
        return table.obsm[encoder["slot"]]
    from spatialwhisperer.pp.genes import counts_for, embed_genes

    if "gene" in model.towers:
        return counts_for(model.gene_encoder.genes, model.gene_encoder.gene_ids, table, layer)
    return embed_genes(table, model.gene_encoder, layer=layer, inplace=False, **options)


def text_features(model: Whisperer, texts: list[str], *, device: str | None = None) -> np.ndarray:
    """Unit embeddings of texts in the joint space, shape (n, u).

    Texts of the model's vocabulary need no text encoder; the others are computed with it.

    Raises
    ------
    KeyError
        If the model has no text side.
    ImportError, FileNotFoundError
        If a text is not in the vocabulary and the text encoder is not installed, or its weights cannot be had.
    """
    if "text" not in model.modalities:
        raise KeyError(f"This model has no text side (it has: {found(model.modalities)}).")
    if "text" in model.towers:
        return model.project("text", texts, device=device)
    from spatialwhisperer.encoders.text.transformer import check_texts

    texts = check_texts(texts)
    if model.vocabulary is None:
        return model.project("text", _encoded(model, texts, device), device=device)
    features, missing = model.vocabulary.lookup(texts)
    if missing:
        row = dict(zip(missing, _encoded(model, missing, device), strict=True))
        for i in np.flatnonzero(np.isnan(features).any(axis=1)):
            features[i] = row[texts[i]]
    return model.project("text", features, device=device)


def _encoded(model: Whisperer, texts: list[str], device: str | None) -> np.ndarray:
    """Features of texts from the model's text encoder; where it cannot be had, say what works without it."""
    from spatialwhisperer.pp.texts import embed_texts

    try:
        return embed_texts(texts, encoder=model.config["encoders"]["text"]["name"], device=device)
    except (ImportError, FileNotFoundError) as error:
        kind = ImportError if isinstance(error, ImportError) else FileNotFoundError
        raise kind(_unknown_texts(model, texts, str(error))) from error


def _unknown_texts(model: Whisperer, texts: list[str], why: str) -> str:
    vocabulary = model.vocabulary
    if vocabulary is None:
        known = "This model stores no texts of its own. "
    else:
        near = {t: [repr(n) for n in vocabulary.nearest(t)] for t in texts[:4]}
        like = "; ".join(f"nearest to {t!r}: {', '.join(n)}" for t, n in near.items() if n)
        known = f"Without it the model knows {found([repr(k) for k in vocabulary.labels], 20)} and {len(vocabulary.texts)} texts "
        known += f"(model.vocabulary.texts){'; ' + like if like else ''}. "
    return f"The text encoder is needed for {found([repr(t) for t in texts], 6)}, and cannot be used. {known}{why}"
