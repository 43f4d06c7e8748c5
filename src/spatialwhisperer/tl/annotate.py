"""Zero-shot annotation: the score of every row for every label, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access.result import Result
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._checks import check_batch_size, check_key_added
from spatialwhisperer._docs import shared
from spatialwhisperer._messages import warn
from spatialwhisperer.tl._annotation import scoring
from spatialwhisperer.tl._annotation.examples import example_rows, refine
from spatialwhisperer.tl._annotation.labels import check_labels, class_embeddings, fill_templates
from spatialwhisperer.tl._annotation.record import AnnotationRecord
from spatialwhisperer.tl._annotation.rollup import Hierarchy, place_classes, roll_up
from spatialwhisperer.tl._annotation.training_range import image_mpp, range_warnings, section_ranges
from spatialwhisperer.tl._embedding.models import describe_model, open_model
from spatialwhisperer.tl._embedding.rows import (
    check_any_row,
    check_modality,
    choose_modality,
    embed_rows,
    given_rows,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer._access.slide import SlideOptions
    from spatialwhisperer.models.whisperer import Whisperer
    from spatialwhisperer.tl._annotation.labels import Labels
    from spatialwhisperer.tl._annotation.rollup import Classes
    from spatialwhisperer.tl._annotation.scoring import Normalize
    from spatialwhisperer.tl._embedding.rows import Embedded


@shared
def zero_shot_annotate(
    data: AnnData | SpatialData,
    labels: Labels | None = None,
    *,
    model: Whisperer | str | Path | None = None,
    modality: str | None = None,
    templates: str | Sequence[str] = "{}",
    normalize: Normalize | None = None,
    background: Literal["section", "training"] | np.ndarray | AnnData | None = None,
    examples: str | Mapping[str, Sequence[str] | Sequence[int] | np.ndarray] | None = None,
    group_key: str | None = None,
    min_confidence: float = 0.0,
    min_margin: float = 0.0,
    hierarchy: Hierarchy | None = None,
    embedding_key: str | None = None,
    layer: str | None = None,
    key_added: str = _keys.LABEL,
    batch_size: int | None = None,
    device: str | None = None,
    inplace: bool = True,
    **slide: Unpack[SlideOptions],
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
        length. A name alone, which may be an ontology's id, is described as the model's vocabulary knows it, else by itself.
        ``None`` takes the labels of the model's vocabulary, or the captions that it was trained with.
    %(model)s
    %(modality)s
    templates
        Sentence(s) with ``{}`` in the place of the description; several are averaged like descriptions.
    normalize
        "none" leaves cosines. "centre" subtracts from each label its mean score on the ``background``, which removes the offset
        between labels. "softmax" turns the scores of a row into probabilities. ``None`` takes what :func:`calibrate` found, else
        "none".
    background
        For "centre": the rows of the same section (which assumes that it holds several labels); "training", the training tissue
        of the model; embeddings of shape (n, u); or an AnnData that holds them. ``None`` is as calibrated, else the section.
    examples
        Some labelled rows: a column of ``.obs``, NaN in all others, or a mapping from label to row names or positions. Nothing is
        trained: the words of a label are mixed with the mean embedding of its n examples, which has the weight n / (n + 10).
        Leave these rows out of the ground truth when you evaluate.
    group_key
        Column of ``.obs``; its rows share the mean of their embeddings, scaled back to unit length (Schaefer et al. leave it
        short). Rows without a group keep their own.
    min_confidence, min_margin
        Rows below either get no label.
    hierarchy
        Bring labels to coarser terms of an ontology, for all rows or for uncertain ones.
    embedding_key
        Slot of ``.obsm`` with an embedding to use instead of computing one.
    %(layer)s
    key_added
        Column of ``.obs``; the other keys are named after it.
    %(batch_size)s
    %(device)s
    %(inplace)s
    %(slide)s

    Returns
    -------
    ``None``, or the scores as a DataFrame (rows by labels) with ``inplace=False``. In place it writes:

    ``.obs['sw_label']`` : :class:`pandas.Series` (dtype ``category``)
        Best label; NaN where the row abstains or has no tile. Categories are the labels that some row got, in the order of
        ``labels``, then coarser terms that rows were rolled up to. Colours of other categories are dropped from ``.uns``.
    ``.obs['sw_label_confidence']`` : :class:`pandas.Series` (dtype ``float32``)
        Probability of that label (or summed probability of that term): a softmax over the labels, at the temperature that
        :func:`calibrate` fitted for this normalisation, else at the model's own.
    ``.obs['sw_label_margin']`` : :class:`pandas.Series` (dtype ``float32``)
        Its probability minus that of the next best label.
    ``.obs['sw_label_cl']`` : :class:`pandas.Series` (dtype ``category``)
        Its id; NaN where there is none. Where there is an ontology that has any of the labels.
    ``.obsm['sw_label_scores']`` : :class:`numpy.ndarray` (dtype ``float32``)
        All scores, shape (n, number of labels).
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
    >>> section = sw.datasets.simulate_sections(1, 80, n_genes=100, n_reference_cells=50, random_state=0).sections["P1"]
    >>> sw.tl.zero_shot_annotate(section, ["fat cell", "T cell", "fibroblast"], min_confidence=0.5)
    >>> section["table"].obsm["sw_label_scores"].shape
    (80, 3)
    """
    check_key_added(key_added)
    check_batch_size(batch_size)
    check_modality(modality)
    model = open_model(model)
    asked = _ask(model, labels, templates, hierarchy or Hierarchy(), min_confidence, min_margin)
    text = class_embeddings(model, asked.sentences, device=device)
    opened = Slide.open(data, **slide)
    table = opened.table
    read = modality or (None if embedding_key is not None else choose_modality(opened, model))
    stored = None if embedding_key is None else given_rows(opened, model, embedding_key, read)
    read = read if stored is None else stored.modality
    how = scoring.correction(model, normalize, background, modality=read)
    groups = scoring.check_groups(table, group_key)
    shown = None if examples is None else example_rows(table, examples, asked.labels)
    if stored is not None:
        rows = stored
    else:
        rows = embed_rows(opened, model, str(read), layer=layer, batch_size=batch_size, device=device)
    check_any_row(rows, embedding_key)
    remarks = _range(opened, model, rows) if stored is None and read == "image" else []
    if shown is not None:
        text = refine(text, rows.z, shown, asked.labels, opened.sections)
    z = scoring.pooled(rows.z, groups)
    scores, probability = scoring.score_rows(z, text, sections=opened.sections, how=how)
    for sentence in remarks:
        warn(sentence)
    if asked.classes.member is not None:
        scores = probability = probability @ asked.classes.member.astype(np.float32)
    if not inplace:
        return pd.DataFrame(scores, index=table.obs_names, columns=asked.classes.classes)
    record = AnnotationRecord(
        classes=tuple(asked.classes.classes),
        labels=tuple(asked.labels),
        prompts=tuple(tuple(s) for s in asked.sentences),
        scores="probability" if how.normalize == "softmax" or asked.hierarchy.level is not None else "cosine",
        normalize=how.normalize,
        background=how.background,
        temperature=how.temperature,
        calibrated=how.calibrated and _calibrated_for(model, asked.labels),
        examples=None if shown is None else tuple(len(shown.get(name, ())) for name in asked.labels),
        group_key=group_key,
        level=None if asked.hierarchy.level is None else tuple(asked.classes.ids),
        min_confidence=asked.min_confidence,
        min_margin=asked.min_margin,
        rollup=asked.hierarchy.rollup,
        model=describe_model(model),
    )
    opened.put(*rows.results, _answer(key_added, asked, scores, probability, record))
    return None


@dataclass(frozen=True)
class _Question:
    """What is asked, before any data are touched.

    Attributes
    ----------
    labels, sentences
        Labels, and the sentences that describe each.
    classes
        What is scored, and where it lies in the ontology.
    hierarchy, min_confidence, min_margin
        As the caller passed them.
    """

    labels: list[str]
    sentences: list[list[str]]
    classes: Classes
    hierarchy: Hierarchy
    min_confidence: float
    min_margin: float


def _ask(
    model: Whisperer, labels: Any, templates: Any, hierarchy: Hierarchy, min_confidence: Any, min_margin: Any
) -> _Question:
    names, prompts = check_labels(labels, model)
    sentences = fill_templates(prompts, templates)
    scoring.check_fraction("min_confidence", min_confidence)
    scoring.check_fraction("min_margin", min_margin)
    if hierarchy.rollup and not min_confidence and not min_margin:
        raise ValueError(
            "rollup=True gives rows that would abstain a coarser label, and without a threshold none does. Pass "
            "min_confidence=0.5 or so."
        )
    classes = place_classes(model, names, labels, hierarchy)
    return _Question(names, sentences, classes, hierarchy, float(min_confidence), float(min_margin))


def _calibrated_for(model: Whisperer, labels: list[str]) -> bool:
    """Whether the temperature was fitted for these labels."""
    fitted = model.config.annotation
    return fitted is not None and (not fitted.labels or list(fitted.labels) == labels)


def _range(slide: Slide, model: Whisperer, rows: Embedded) -> list[str]:
    """In which ways the images lie outside those of the training; refuses a slide without any tissue."""
    mpp = image_mpp(slide, model.config.modality("image").features.key)
    ranges = section_ranges(model, rows.features, slide.sections, mpp)
    if ranges and not any(r.n_tissue for r in ranges):
        raise ValueError(
            f"None of the {slide.n_rows} rows has a whole tile on tissue: they show the empty background. Check the coordinates and "
            "the microns per pixel, or take tiles where there is tissue: sw.pp.tiles(data, at='grid', tile_um=…)."
        )
    return range_warnings(ranges, model)


def _answer(
    key: str, asked: _Question, scores: np.ndarray, probability: np.ndarray, record: AnnotationRecord
) -> Result:
    """Labels, confidence and scores, ready to be written."""
    names, coarse = asked.classes, asked.classes.coarse
    limits = {"min_confidence": asked.min_confidence, "min_margin": asked.min_margin}
    best = scoring.best_labels(probability)
    sure = (best.code >= 0) & (best.confidence >= asked.min_confidence) & (best.margin >= asked.min_margin)
    given = np.where(sure, np.array([*names.classes], object)[best.code], None)
    terms = np.where(sure, np.array([*names.ids], object)[best.code], None)
    order, ids = list(names.classes), list(names.ids)
    if coarse is not None:
        up, best = roll_up(probability, best, coarse, **limits)
        rolled = up >= 0
        given[rolled] = np.array(names.coarse_names, object)[up[rolled]]
        terms[rolled] = np.array(coarse.ids, object)[up[rolled]]
        order += names.coarse_names
        ids += coarse.ids
    obs: dict[str, Any] = {
        key: _used(given, order),
        _keys.confidence(key): best.confidence,
        _keys.margin(key): best.margin,
    }
    if any(names.ids):
        obs[_keys.ontology(key)] = _used(terms, [i for i in ids if i is not None])
    return Result(
        key,
        record,
        obs=obs,
        obsm={_keys.scores(key): scores},
        uns={key: {"classes": np.array(names.classes, dtype=str)}},
        # what an earlier call left there would belong to other labels
        gone=() if any(names.ids) else (_keys.ontology(key),),
    )


def _used(values: np.ndarray, order: Sequence[str]) -> pd.Categorical:
    """Categories that occur, in a given order; scanpy and squidpy stumble over those that no row has."""
    there = set(values)
    return pd.Categorical(values, categories=[c for c in dict.fromkeys(order) if c in there])
