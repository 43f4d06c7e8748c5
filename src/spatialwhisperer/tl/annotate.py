"""Zero-shot annotation: the score of every row for every label, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access import get_table, section_codes
from spatialwhisperer._utils import found, record
from spatialwhisperer.tl.embed import describe_model, embed, open_model, text_features

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer.models import Whisperer

Normalize = Literal["none", "softmax", "centre"]


def zero_shot_annotate(
    data: AnnData | SpatialData,
    labels: Sequence[str] | Mapping[str, str | Sequence[str]] | None = None,
    *,
    model: Whisperer | str | Path | None = None,
    modality: Literal["image", "gene"] | None = None,
    templates: str | Sequence[str] = "{}",
    normalize: Normalize = "none",
    min_confidence: float = 0.0,
    embedding_key: str | None = None,
    table_key: str | None = None,
    layer: str | None = None,
    library_key: str | None = None,
    key_added: str = _keys.LABEL,
    batch_size: int | None = None,
    device: str | None = None,
    inplace: bool = True,
) -> pd.DataFrame | None:
    """Label spots, cells or tiles with any words, from the image (or from the counts) alone.

    The score of a row for a label is the cosine between the embeddings of the row and of the label's descriptions
    (Schaefer et al., ICML 2026). Scores rank rows within a label well; across labels they carry an offset of their
    own ("hub prompts"), so read ``.obsm['sw_label_scores']`` before the hard labels, and abstain freely.

    Parameters
    ----------
    data
        What to annotate: a slide with spots or cells, or a grid made by :func:`spatialwhisperer.pp.tiles`.
    labels
        Names, which are their own descriptions, or a mapping from name to one or several descriptions, whose embeddings
        are averaged and scaled back to unit length. Not given: the captions that the model was trained with.
    model
        A trained model, its folder or its name on the hub.
    modality
        Which side of the data to read. Not given: image where there is one, else gene.
    templates
        Sentence(s) with ``{}`` in the place of the description; several are averaged like descriptions.
    normalize
        "none" leaves cosines. "centre" subtracts from each label its mean over the rows of the section, which takes out
        hub prompts (and assumes that a section holds several labels). "softmax" turns the labels of a row into shares.
    min_confidence
        Rows below it get no label.
    embedding_key
        Slot of ``.obsm`` with an embedding to use instead of computing one.
    table_key
        Table of a SpatialData.
    layer
        Layer with raw counts, when genes are read.
    library_key
        Column of ``.obs`` that names the library of each row (AnnData with several libraries).
    key_added
        Column of ``.obs``; the other slots are named after it.
    batch_size
        Tiles or rows in one pass.
    device
        Torch device; ``settings.device`` if not given.
    inplace
        Write to ``data`` or return the scores.

    Returns
    -------
    ``None``, or the scores as a DataFrame (rows by labels) with ``inplace=False``. In place it writes:

    ``.obs['sw_label']`` : :class:`pandas.Series` (dtype ``category``)
        Best label, categories in the order of ``labels``; NaN where the row abstains or has no tile.
    ``.obs['sw_label_confidence']`` : :class:`pandas.Series` (dtype ``float32``)
        Share of the best label in a softmax over the labels at the model's temperature.
    ``.obsm['sw_label_scores']`` : :class:`numpy.ndarray` (dtype ``float32``)
        All scores, shape (n, number of labels).
    ``.uns['sw_label']['classes']`` : :class:`numpy.ndarray`
        Label of each column of the scores.
    ``.obsm['X_sw_image']`` or ``.obsm['X_sw_gene']`` : :class:`numpy.ndarray`
        The embedding, see :func:`embed`.

    Raises
    ------
    ValueError
        If labels are empty, repeated or fewer than two, a template has no ``{}``, or ``normalize`` is unknown.
    KeyError
        If there is neither image nor counts.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sections, reference = sw.datasets.simulate_sections(2, 80, n_genes=100, n_reference_cells=200, random_state=0)
    >>> model = sw.tl.train([sections["P1"], reference], max_epochs=20, tile_px=64)
    >>> sw.tl.zero_shot_annotate(sections["P2"], model=model)
    >>> sections["P2"]["table"].obsm["sw_label_scores"].shape
    (80, 5)
    """
    model = open_model(model)
    classes, prompts = check_labels(labels, model)
    sentences = fill_templates(prompts, templates)
    if normalize not in ("none", "softmax", "centre"):
        raise ValueError(f"normalize must be 'none', 'softmax' or 'centre', not {normalize!r}.")
    if not 0 <= min_confidence <= 1:
        raise ValueError(f"min_confidence must be between 0 and 1, not {min_confidence!r}.")
    table = get_table(data, table_key)
    text = class_embeddings(model, sentences, device=device)
    options = {"table_key": table_key, "layer": layer, "library_key": library_key}
    z = row_embeddings(data, table, model, modality, embedding_key, batch_size, device, inplace, options)
    sections = section_codes(data, table_key=table_key, library_key=library_key)
    scores, confidence = score_rows(z, text, normalize=normalize, scale=model.scale, sections=sections)
    if not inplace:
        return pd.DataFrame(scores, index=table.obs_names, columns=classes)
    best = np.where(np.isfinite(confidence) & (confidence >= min_confidence), _argmax(scores), -1)
    table.obs[key_added] = pd.Categorical.from_codes(best, categories=classes)
    table.obs[_keys.confidence(key_added)] = confidence
    table.obsm[_keys.scores(key_added)] = scores
    table.uns[key_added] = {"classes": np.array(classes, dtype=str)}
    record(
        table,
        key_added,
        classes=classes,
        prompts=sentences,
        normalize=normalize,
        min_confidence=min_confidence,
        model=describe_model(model),
    )
    return None


def check_labels(labels: Any, model: Whisperer) -> tuple[list[str], list[list[str]]]:
    """Names and descriptions of the labels.

    Raises
    ------
    ValueError, TypeError
        If they are empty, repeated, fewer than two, or not text.
    """
    if labels is None:
        labels = model.labels
        if not labels:
            raise ValueError("This model knows no captions of its own; pass labels=[…].")
    if isinstance(labels, str):
        raise TypeError(f"labels must be a list or a mapping, not the string {labels!r}. For one text use sw.tl.query.")
    if isinstance(labels, Mapping):
        classes = list(labels)
        prompts = [[d] if isinstance(d, str) else list(d) for d in labels.values()]
    else:
        classes = list(labels)
        prompts = [[name] for name in classes]
    wrong = [x for x in [*classes, *(d for p in prompts for d in p)] if not isinstance(x, str)]
    if wrong:
        raise TypeError(f"Labels and descriptions must be text; found {found(wrong, 3)}.")
    if any(not c.strip() for c in classes) or any(not p or any(not d.strip() for d in p) for p in prompts):
        raise ValueError("labels holds an empty name or a label without a description.")
    repeated = sorted({c for c in classes if classes.count(c) > 1})
    if repeated:
        raise ValueError(
            f"labels holds {found(repeated)} more than once. To describe a label in several ways pass a mapping."
        )
    if len(classes) < 2:
        raise ValueError(
            f"labels needs at least two names to choose from; found {found(classes)}. For one text use sw.tl.query."
        )
    return classes, prompts


def fill_templates(prompts: Sequence[Sequence[str]], templates: str | Sequence[str]) -> list[list[str]]:
    """Put every description of every label into every template.

    Raises
    ------
    ValueError
        If there is no template, or one without ``{}``.
    """
    templates = [templates] if isinstance(templates, str) else list(templates)
    if not templates or any("{}" not in t for t in templates):
        raise ValueError(f"Each template needs {{}} in the place of the description; found {templates!r}.")
    return [[t.replace("{}", d) for d in descriptions for t in templates] for descriptions in prompts]


def class_embeddings(model: Whisperer, sentences: Sequence[Sequence[str]], *, device: str | None = None) -> np.ndarray:
    """Mean embedding of the sentences of each label, scaled back to unit length; shape (number of labels, u)."""
    flat = [s for group in sentences for s in group]
    z = text_features(model, flat, device=device)
    ends = np.cumsum([len(group) for group in sentences])
    means = np.stack([part.mean(axis=0) for part in np.split(z, ends[:-1])])
    return means / np.linalg.norm(means, axis=1, keepdims=True).clip(min=1e-12)


def row_embeddings(
    data: Any,
    table: AnnData,
    model: Whisperer,
    modality: Any,
    embedding_key: str | None,
    batch_size: Any,
    device: Any,
    inplace: bool,
    options: dict[str, Any],
) -> np.ndarray:
    """The joint embedding of the rows: given, or computed (and stored when the caller writes in place)."""
    if embedding_key is not None:
        if embedding_key not in table.obsm:
            raise KeyError(
                f"{embedding_key!r} not in .obsm (found: {found(table.obsm)}). Run sw.tl.embed(data, model=model) first."
            )
        z = np.asarray(table.obsm[embedding_key], dtype=np.float32)
        width = int(model.config["projection_dim"])
        if z.shape[1] != width:
            raise ValueError(
                f".obsm[{embedding_key!r}] has {z.shape[1]} dimensions, the model {width}: it is not of this model."
            )
        return z
    from spatialwhisperer.tl.embed import default_modality

    modality = modality or default_modality(data, table, model)
    key = _keys.IMAGE if modality == "image" else _keys.GENE
    z = embed(data, model=model, modality=modality, batch_size=batch_size, device=device, inplace=inplace, **options)
    return table.obsm[key] if z is None else z


def score_rows(
    z: np.ndarray, text: np.ndarray, *, normalize: str, scale: float, sections: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Scores (n, c) and confidence (n,) of unit rows against unit labels; NaN rows stay NaN."""
    scores = (z @ text.T).astype(np.float32)
    if normalize == "centre":
        for section in pd.unique(sections):
            rows = np.flatnonzero(sections == section)
            rows = rows[np.isfinite(scores[rows]).all(axis=1)]
            if len(rows):
                scores[rows] -= scores[rows].mean(axis=0, keepdims=True)
    logits = scores * scale
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return (shares if normalize == "softmax" else scores), shares.max(axis=1).astype(np.float32)


def _argmax(scores: np.ndarray) -> np.ndarray:
    return np.nan_to_num(scores, nan=-np.inf).argmax(axis=1)
