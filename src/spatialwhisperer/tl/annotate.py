"""Zero-shot annotation: the score of every row for every label, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access import get_table, section_codes
from spatialwhisperer._access.slots import set_categories, untouched_after_error
from spatialwhisperer._checks import check_key_added
from spatialwhisperer._messages import found, warn
from spatialwhisperer._provenance import record, recorded
from spatialwhisperer.tl._annotation import rollup as tiers
from spatialwhisperer.tl._annotation import scoring
from spatialwhisperer.tl._annotation.examples import example_rows, refine
from spatialwhisperer.tl._annotation.labels import check_labels, class_embeddings, fill_templates
from spatialwhisperer.tl.embed import check_modality, default_modality, describe_model, embed, open_model

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer.models import Whisperer
    from spatialwhisperer.models.ontology import Ontology
    from spatialwhisperer.tl._annotation.labels import Labels
    from spatialwhisperer.tl._annotation.rollup import Classes
    from spatialwhisperer.tl._annotation.scoring import Normalize


def zero_shot_annotate(
    data: AnnData | SpatialData,
    labels: Labels | None = None,
    *,
    model: Whisperer | str | Path | None = None,
    modality: Literal["image", "gene"] | None = None,
    templates: str | Sequence[str] = "{}",
    normalize: Normalize | None = None,
    background: Literal["section", "training"] | np.ndarray | AnnData | None = None,
    examples: str | Mapping[str, Sequence[str] | Sequence[int] | np.ndarray] | None = None,
    group_key: str | None = None,
    min_confidence: float = 0.0,
    min_margin: float = 0.0,
    top_k: int | None = None,
    level: str | Sequence[str] | None = None,
    rollup: bool = False,
    ontology: Ontology | str | Path | None = None,
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
        Names, or a mapping from name to one or several descriptions, whose embeddings are averaged and scaled back to unit
        length. A name alone, which may be an ontology's id, is described as the model's vocabulary knows it, else by itself. Not
        given: the labels of the model's vocabulary, or the captions that it was trained with.
    model
        A trained model, its folder or its name on the hub.
    modality
        Which side of the data to read. Not given: image where there is one, else gene.
    templates
        Sentence(s) with ``{}`` in the place of the description; several are averaged like descriptions.
    normalize
        "none" leaves cosines. "centre" subtracts from each label what it scores on the ``background``, which takes out hub
        prompts. "softmax" turns the labels of a row into shares. Not given: what :func:`calibrate` found, else "none".
    background
        For "centre": the rows of the same section (which assumes that it holds several labels); "training", the training tissue
        of the model; embeddings of shape (n, u); or an AnnData that holds them. Not given: as calibrated, else the section.
    examples
        Some labelled rows: a column of ``.obs``, NaN in all others, or a mapping from label to row names or positions. Nothing is
        trained: the words of a label are mixed with the mean embedding of its n examples, which has the weight n / (n + 10).
        Leave these rows out of the truth when you measure.
    group_key
        Column of ``.obs``; its rows share the mean of their embeddings, scaled back to unit length (Schaefer et al. leave it
        short). Rows without a group keep their own.
    min_confidence, min_margin
        Rows below either get no label.
    top_k
        How many labels of each row to keep, the best first.
    level
        Terms of the ontology (names or ids), to the nearest of which every label is rolled; shares are summed and take the place
        of scores. Labels under none stay themselves. Or the name of a level that the model knows.
    rollup
        Give a row that would abstain the most specific term above several labels (but not above all) that has ``min_confidence``.
        Take it for a hint: summed shares were too sure where this was measured, on a simulated section (13 spots rolled up at
        ``min_confidence=0.7``, 6 of them right: ``tutorials/03_trust.ipynb``).
    ontology
        An ontology or its file; that of the model's vocabulary if not given.
    embedding_key
        Slot of ``.obsm`` with an embedding to use instead of computing one.
    table_key, layer, library_key
        Table of a SpatialData; layer with raw counts, when genes are read; column of ``.obs`` that names the library of each row
        (AnnData with several libraries).
    key_added
        Column of ``.obs``; the other slots are named after it.
    batch_size, device
        Tiles or rows in one pass; torch device, ``settings.device`` if not given.
    inplace
        Write to ``data`` or return the scores.

    Returns
    -------
    ``None``, or the scores as a DataFrame (rows by labels) with ``inplace=False``. In place it writes:

    ``.obs['sw_label']`` : :class:`pandas.Series` (dtype ``category``)
        Best label; NaN where the row abstains or has no tile. Categories are the labels that some row got, in the order of
        ``labels``, then coarser terms that rows were rolled up to. Colours of other categories are dropped from ``.uns``.
    ``.obs['sw_label_confidence']`` : :class:`pandas.Series` (dtype ``float32``)
        Share of that label (or summed share of that term) in a softmax over the labels, at the temperature that :func:`calibrate`
        fitted for this normalisation, else at the model's own.
    ``.obs['sw_label_margin']`` : :class:`pandas.Series` (dtype ``float32``)
        Share of it minus the share of the next best label.
    ``.obs['sw_label_cl']`` : :class:`pandas.Series` (dtype ``category``)
        Its id; NaN where there is none. Where there is an ontology that has any of the labels.
    ``.obsm['sw_label_scores']`` : :class:`numpy.ndarray` (dtype ``float32``)
        All scores, shape (n, number of labels).
    ``.obsm['sw_label_top']`` : :class:`numpy.ndarray` (dtype ``int16``)
        Codes of the best labels, shape (n, top_k), -1 in rows without a tile. With ``top_k``; see :func:`top_labels`.
    ``.uns['sw_label']['classes']`` : :class:`numpy.ndarray`
        Label of each column of the scores, whether or not a row got it.
    ``.obsm['X_sw_image']`` or ``.obsm['X_sw_gene']`` : :class:`numpy.ndarray`
        The embedding, see :func:`embed`.

    Raises
    ------
    ValueError
        If labels are empty, repeated or fewer than two, a number lies outside its range, a term or an example does not fit, a
        background is of another width, or no row has an embedding. Nothing is written then.
    KeyError
        If there is neither image nor counts, or a column is missing.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sections, reference = sw.datasets.simulate_sections(2, 80, n_genes=100, n_reference_cells=200, random_state=0)
    >>> model = sw.tl.train([sections["P1"], reference], max_epochs=20, tile_px=64)
    >>> sw.tl.zero_shot_annotate(sections["P2"], model=model, normalize="centre", min_confidence=0.5)
    >>> sections["P2"]["table"].obsm["sw_label_scores"].shape
    (80, 5)
    """
    check_key_added(key_added)
    model = open_model(model)
    classes, prompts = check_labels(labels, model)
    sentences = fill_templates(prompts, templates)
    table = get_table(data, table_key)
    rules = _rules(min_confidence, min_margin, top_k, rollup)
    names = tiers.ladder(model, classes, labels, ontology, level, rollup)
    _check_top(top_k, names.classes)
    where = {"table_key": table_key, "library_key": library_key}
    side = side_of(data, table, model, modality, embedding_key)
    how = scoring.correction(model, normalize, background, modality=side)
    groups = scoring.check_groups(table, group_key)
    shown = None if examples is None else example_rows(table, examples, classes)
    text = class_embeddings(model, sentences, device=device)
    sections = section_codes(data, **where)
    with untouched_after_error(table):
        options = {**where, "layer": layer}
        z = row_embeddings(data, table, model, side, embedding_key, batch_size, device, inplace, options)
        check_any_row(z, side, embedding_key)
        strange = _range(table, model, sections) if side == "image" and embedding_key is None else []
        if shown is not None:
            text = refine(text, z, shown, classes, sections)
        scores, share = scoring.score_rows(scoring.pooled(z, groups), text, sections=sections, how=how)
    for sentence in strange:
        warn(sentence)
    if names.member is not None:
        scores = share = share @ names.member.astype(np.float32)
    if not inplace:
        return pd.DataFrame(scores, index=table.obs_names, columns=names.classes)
    _write(table, key_added, names, scores, share, rules)
    record(
        table,
        key_added,
        classes=names.classes,
        labels=classes,
        prompts=sentences,
        normalize=how.normalize,
        background=how.background,
        scores="share" if how.normalize == "softmax" or level is not None else "cosine",
        temperature=how.temperature,
        calibrated=how.calibrated and model.config["annotation"].get("labels", classes) == classes,
        examples=None if shown is None else [len(shown.get(name, ())) for name in classes],
        group_key=group_key,
        level=None if level is None else names.ids,
        **rules._asdict(),
        model=describe_model(model),
    )
    return None


class _Rules(NamedTuple):
    """What a row needs to get a label, and what is kept beside it."""

    min_confidence: float
    min_margin: float
    top_k: int | None
    rollup: bool


def _rules(min_confidence: Any, min_margin: Any, top_k: Any, rollup: bool) -> _Rules:
    scoring.check_share("min_confidence", min_confidence)
    scoring.check_share("min_margin", min_margin)
    if rollup and not min_confidence and not min_margin:
        raise ValueError(
            "rollup=True gives rows that would abstain a coarser label, and without a threshold none does. Pass "
            "min_confidence=0.5 or so."
        )
    return _Rules(float(min_confidence), float(min_margin), top_k, bool(rollup))


def _check_top(top_k: Any, classes: Sequence[str]) -> None:
    if top_k is None:
        return
    if isinstance(top_k, bool) or not isinstance(top_k, int | np.integer) or not 1 <= top_k <= len(classes):
        raise ValueError(
            f"top_k must be a whole number between 1 and the {len(classes)} labels to choose from, not {top_k!r}."
        )


def side_of(data: Any, table: AnnData, model: Whisperer, modality: Any, embedding_key: str | None) -> Any:
    """Modality that is read: as asked, as the embedding was made from, or as the data allow."""
    check_modality(modality)
    if modality is not None or embedding_key is None:
        return modality or default_modality(data, table, model)
    named = {_keys.IMAGE: "image", _keys.GENE: "gene"}.get(embedding_key)
    return (recorded(table, embedding_key) or {}).get("modality", named)


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
    modality = modality or default_modality(data, table, model)
    key = _keys.IMAGE if modality == "image" else _keys.GENE
    z = embed(data, model=model, modality=modality, batch_size=batch_size, device=device, inplace=inplace, **options)
    return table.obsm[key] if z is None else z


def _range(table: AnnData, model: Whisperer, sections: np.ndarray) -> list[str]:
    """In which ways the images lie outside those of the training; refuses a slide without any tissue."""
    from spatialwhisperer.tl._annotation.training_range import check_range, section_ranges

    ranges = section_ranges(table, model, sections=sections)
    if ranges and not any(r.n_tissue for r in ranges):
        raise ValueError(
            f"None of the {table.n_obs} rows has a whole tile on tissue: what they show is glass. Check the coordinates and the "
            "microns per pixel, or take tiles where there is tissue: sw.pp.tiles(data, at='grid', tile_um=…)."
        )
    return check_range(table, model, sections=sections)


def check_any_row(z: np.ndarray, modality: str | None, embedding_key: str | None) -> None:
    """Refuse rows that all lack an embedding; the text names the likely cause."""
    if np.isfinite(z).all(axis=1).any():
        return
    if embedding_key is not None:
        cure = f".obsm[{embedding_key!r}] holds NaN in each. Compute it again: sw.tl.embed(data, model=model)."
    elif modality == "gene":
        cure = "no row has counts in the model's genes. Check .var_names and layer=…"
    else:
        cure = (
            "the tile of each leaves the slide or misses the tissue. Check the coordinates and the microns per pixel, or compute "
            "the features again with sw.pp.embed_images(data, border='pad')."
        )
    raise ValueError(f"None of the {len(z)} rows has an embedding: {cure}")


def _write(table: AnnData, key: str, names: Classes, scores: np.ndarray, share: np.ndarray, rules: _Rules) -> None:
    best = scoring.best_labels(share)
    sure = (best.code >= 0) & (best.confidence >= rules.min_confidence) & (best.margin >= rules.min_margin)
    given = np.where(sure, np.array([*names.classes], object)[best.code], None)
    terms = np.where(sure, np.array([*names.ids], object)[best.code], None)
    order = list(names.classes)
    if names.coarse is not None:
        limits = {"min_confidence": rules.min_confidence, "min_margin": rules.min_margin}
        up, best = tiers.roll_up(share, best, names.coarse, **limits)
        rolled = up >= 0
        given[rolled] = np.array(names.coarse_names, object)[up[rolled]]
        terms[rolled] = np.array(names.coarse.ids, object)[up[rolled]]
        order += names.coarse_names
    set_categories(table, key, _used(given, order))
    table.obs[_keys.confidence(key)] = best.confidence
    table.obs[_keys.margin(key)] = best.margin
    table.obsm[_keys.scores(key)] = scores
    table.uns[key] = {"classes": np.array(names.classes, dtype=str)}
    # what an earlier call left here would belong to other labels
    if any(names.ids):
        ids = [*names.ids, *(() if names.coarse is None else names.coarse.ids)]
        set_categories(table, _keys.ontology(key), _used(terms, [i for i in ids if i is not None]))
    elif _keys.ontology(key) in table.obs:
        del table.obs[_keys.ontology(key)]
    if rules.top_k is not None:
        table.obsm[_keys.top(key)] = scoring.top_codes(share, rules.top_k)
    elif _keys.top(key) in table.obsm:
        del table.obsm[_keys.top(key)]


def _used(values: np.ndarray, order: Sequence[str]) -> pd.Categorical:
    """Categories that occur, in a given order; scanpy and squidpy stumble over those that no row has."""
    there = set(values)
    return pd.Categorical(values, categories=[c for c in dict.fromkeys(order) if c in there])
