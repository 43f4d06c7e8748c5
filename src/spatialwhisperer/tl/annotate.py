"""Zero-shot annotation: a score of every row for every label, where labels are words."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, Unpack

import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access.names import check_names
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.stores.several import SlidesOptions, opening, over_slides
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._checks.values import one_of
from spatialwhisperer._docs import shared
from spatialwhisperer._messages import inform, listing, warn
from spatialwhisperer.tl._annotation import decision, scoring
from spatialwhisperer.tl._annotation.answers import answers
from spatialwhisperer.tl._annotation.examples import example_rows
from spatialwhisperer.tl._annotation.labelled import Limits, labelled, with_wording_sd
from spatialwhisperer.tl._annotation.labels import check_apart, wording_sd
from spatialwhisperer.tl._annotation.range import guard
from spatialwhisperer.tl._annotation.range.compared import compare, say_empty
from spatialwhisperer.tl._annotation.range.trained import trained_on
from spatialwhisperer.tl._annotation.range.training_range import range_warnings
from spatialwhisperer.tl._annotation.reading import read_texts
from spatialwhisperer.tl._annotation.record import AnnotationRecord
from spatialwhisperer.tl._annotation.request import checked_request, limits_of
from spatialwhisperer.tl._annotation.rollup import Hierarchy
from spatialwhisperer.tl._embedding.models import describe_model, open_model
from spatialwhisperer.tl._embedding.rows import (
    check_any_row,
    check_modality,
    choose_modality,
    embed_rows,
    given_rows,
)
from spatialwhisperer.tl._embedding.tissue_grid import on_tissue

Unknown = Literal["abstain", "label"]

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer.models.whisperer import Whisperer
    from spatialwhisperer.tl._annotation.labels import Labels
    from spatialwhisperer.tl._annotation.range.training_range import SectionRange
    from spatialwhisperer.tl._annotation.request import Request
    from spatialwhisperer.tl._annotation.scoring import Normalize


@shared
@over_slides
@checked
def zero_shot_annotate(
    data: AnnData | SpatialData,
    labels: Labels | None = None,
    *,
    model: Whisperer | str | Path | None = None,
    modality: str | None = None,
    templates: str | Sequence[str] = "{}",
    normalize: Normalize | None = None,
    background: Literal["section", "training"] | np.ndarray | AnnData | None = None,
    examples: str | Mapping[str, Sequence[str] | Sequence[int] | np.ndarray | pd.Series] | None = None,
    group_key: str | None = None,
    min_confidence: float | None = None,
    min_margin: float = 0.0,
    min_rows: int = 1,
    unknown: Unknown = "abstain",
    hierarchy: Hierarchy | None = None,
    embedding_key: str | None = None,
    layer: str | None = None,
    key_added: str = _keys.LABEL,
    batch_size: int | None = None,
    device: str | None = None,
    inplace: bool = True,
    **slides: Unpack[SlidesOptions],
) -> pd.DataFrame | None:
    """Label spots, cells or tiles with any words, from the image (or from the counts) alone.

    The score of a row for a label is the cosine between the embedding of the row and that of the label's descriptions
    (Schaefer et al., ICML 2026). Scores of one label rank the rows well. Scores of different labels have different offsets ("hub
    prompts"), so that a single label can be the best one of most rows. A model may therefore hold a calibrated decision for its labels
    (``model.config.annotation``): a scale and an offset for each region of tissue, fitted on patients that were
    left out; the probability of a label is that of its region times its probability inside the region. A row gets the label where it
    is probable enough, else the region where that is, else none. Labels of your own are compared by a softmax, until :func:`calibrate`
    has fitted a decision for them: look at ``.obsm['sw_label_scores']`` before you use them, and let uncertain rows abstain
    (``min_confidence``).

    Parameters
    ----------
    data
        What to annotate: a slide with spots or cells, a grid made by :func:`spatialwhisperer.pp.tiles`, or a slide without a table
        (:func:`spatialwhisperer.io.read_slide`), over whose tissue a grid of tiles is laid, as far apart as the first tile size of the model.
        A list of slides is worked on one after another: objects, whose results are written in place, or paths of SpatialData stores
        (.zarr) and AnnData files (.h5ad), into which results are written. Each store holds its old table or its new one at any moment.
    labels
        Names, or a mapping from name to one or several descriptions, whose embeddings are averaged and scaled back to unit
        length. A name alone, or the id of an ontology term, takes its descriptions from the vocabulary of the model; a name that is
        not there describes itself. ``None`` takes the labels of the model's vocabulary, or the captions that it was trained with.
        Warnings name the descriptions whose text features are far from those of all texts that the model was trained with, those
        that it reads as negations, and labels whose descriptions cancel out. A Series is a list of names; one whose index is text is
        refused, since it may mean a mapping.
    %(model)s
    %(modality)s
    templates
        Sentence(s) with ``{}`` in the place of the description; the embeddings of several are averaged.
    normalize
        "none" keeps the cosines. "centre" subtracts from the scores of each label their mean over the ``background``, which removes
        the offset between labels. "softmax" turns the scores of a row into probabilities. ``None`` takes what :func:`calibrate`
        chose, else "none".
    background
        For "centre": "section", the rows of the same section (which assumes that it holds several labels); "training", the training
        tissue of the model; embeddings of shape (n, u); or an AnnData that holds them. ``None`` takes what :func:`calibrate` used,
        else "section". Rows without a whole tile on tissue have no part in the mean of their section (which features of the
        encoder "stain_texture" tell, where no ``embedding_key`` is passed).
    examples
        A few labelled rows of two labels or more: a column of ``.obs`` that is NaN in all other rows, or a mapping from label to row
        names, positions or a Boolean mask of all rows. A mask that is a Series is brought into the order of the rows by its index, and
        taken as it is where that only counts (0, 1, 2, …). A logistic regression with an offset for each label is fitted to their
        embeddings. The scores of the words are where it starts from, and weigh as much as a quarter of an example. Leave these rows out
        of the ground truth when you evaluate.
    group_key
        Column of ``.obs``. All rows of a group are scored with the mean of their embeddings, scaled back to unit length (Schaefer et
        al. do not scale it back). Rows without a group, and those without a whole tile on tissue, keep their own embedding.
    min_confidence, min_margin
        Rows whose confidence or margin is below get no label (they abstain). ``min_confidence=None`` takes that of the calibrated
        decision where the model holds one for these labels, else 0; with 0 no row abstains because of its confidence.
    min_rows
        Labels that fewer rows get are removed from these rows: tests such as :func:`scanpy.tl.rank_genes_groups` need two or more.
    unknown
        What rows get whose images are unlike the training tissue of the model, by themselves or with their section
        (:func:`tissue_range`): "abstain", no label; or "label", that of the best score. It is asked where labels come from images
        with a frozen encoder and no ``embedding_key`` is passed, and the model holds the distances of left-out training tissue.
    hierarchy
        Replace labels by coarser terms of an ontology, for all rows or for uncertain ones.
    embedding_key
        Key of ``.obsm`` with an embedding by this model, to use instead of computing one.
    %(layer)s
    key_added
        Column of ``.obs``; the other keys are named after it.
    %(batch_size)s
    %(device)s
    %(inplace)s
    %(slides)s

    Returns
    -------
    ``None``, or the scores as a DataFrame (rows by labels) with ``inplace=False``. In place it writes:

    ``.obs['sw_label']`` : :class:`pandas.Series` (dtype ``category``)
        Best label; NaN where the row abstains or has no tile. Categories are the labels that at least one row got, in the order of
        ``labels``, then the coarser terms of rows that were rolled up.
    ``.uns['sw_label_colors']`` : :class:`list`
        Colour of each category, which scanpy, squidpy and spatialdata-plot read. A label has the same colour whichever others occur.
        Your own colours are kept while the categories are the same.
    ``.obs['sw_label_confidence']`` : :class:`pandas.Series` (dtype ``float32``)
        Probability of that label, region or term, also where the row abstains: by the calibrated decision, else a softmax over the
        labels, at the temperature that :func:`calibrate` fitted for this modality and normalisation, else at that of the
        training.
    ``.obs['sw_label_margin']`` : :class:`pandas.Series` (dtype ``float32``)
        Its probability minus that of the next best label; 0 where another label, outside its region, is more probable.
    ``.obs['sw_label_cl']`` : :class:`pandas.Series` (dtype ``category``)
        Ontology id of the label; NaN where it has none. Written only where the ontology has any of the labels.
    ``.obs['sw_label_reason']`` : :class:`pandas.Series` (dtype ``category``)
        Why a row has no label: "no embedding", "section out of range", "row out of range", "below min_confidence", "below
        min_margin" or "label below min_rows"; NaN where it has one.
    ``.obsm['sw_label_scores']`` : :class:`numpy.ndarray` (dtype ``float32``)
        All scores, shape (n, number of labels). With ``examples`` they are logarithms of probabilities times the temperature.
    ``.obsm['sw_label_wording_sd']`` : :class:`numpy.ndarray` (dtype ``float32``)
        Standard deviation of the cosine of a row over the sentences of a label, shape (n, number of labels), in the order of ``labels``:
        how much of the score is a matter of words. NaN for labels with one sentence. Written only where a label has several.
    ``.obsm['sw_label_probability']`` : :class:`numpy.ndarray` (dtype ``float32``)
        Probabilities of the labels, written where they are more than a softmax of the scores.
    ``.uns['sw_label']['classes']`` : :class:`numpy.ndarray`
        Label of each column of the scores, whether or not a row got it.
    ``.obsm['X_sw_image']`` or ``.obsm['X_sw_gene']`` : :class:`numpy.ndarray`
        The embedding, see :func:`embed`.
    ``tables['sw_tiles']``, ``shapes['<image>_tiles']``
        Where the slide has no table: the table that holds these results, and the squares that it annotates.

    Raises
    ------
    ValueError
        If labels are empty, repeated or fewer than two, or two of them have the same text or the same embedding. If a number lies
        outside its range, a term or an example does not fit, a background is of another width, no row has an embedding, or
        ``embedding_key`` holds one of another model. Nothing is written then.
    KeyError
        If there is neither image nor counts, or a column is missing.
    RuntimeError
        If some of several slides failed. The others have their results.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> section = sw.datasets.simulate_sections(1, 40, n_genes=100, n_reference_cells=50, random_state=0).sections["P1"]
    >>> sw.tl.zero_shot_annotate(section, ["fat cell", "T cell", "fibroblast"])
    >>> section["table"].obsm["sw_label_scores"].shape
    (40, 3)

    A simulated section is no breast cancer: the embedded model gives no label.

    >>> section["table"].obs["sw_label_reason"].unique().tolist()
    ['section out of range']
    >>> sw.tl.zero_shot_annotate(section, ["fat cell", "T cell", "fibroblast"], unknown="label", min_confidence=0.5)
    """
    check_modality(modality)
    model = open_model(model)
    one_of("unknown", unknown, Unknown)
    request = checked_request(model, labels, templates, hierarchy or Hierarchy(), min_confidence, min_margin, min_rows)
    read_as = read_texts(model, request.labels, request.sentences, device=device)
    check_apart(request.labels, read_as.text)
    slide = opening(slides)
    tissue = on_tissue(data, model, modality if embedding_key is None else "stored", slide, keeps=inplace)
    opened = Slide.open(tissue.data, **slide)
    check_names([opened], layer=layer, group_key=group_key)
    if inplace:
        opened.check_column(key_added, beside=_keys.written_beside(key_added))
    stored = None if embedding_key is None else given_rows(opened, model, embedding_key, modality)
    read = stored.modality if stored is not None else modality or choose_modality(opened, model)
    correction = scoring.choose_correction(model, normalize, background, modality=read)
    groups = scoring.check_groups(opened.table, group_key)
    chosen = None if examples is None else example_rows(opened.table, examples, request.labels)
    fitted = None
    if chosen is None:
        fitted = decision.fitted_decision(model, request.labels, request.sentences, correction, read)
    limits = limits_of(request, fitted)
    if stored is not None:
        rows = stored
    else:
        rows = embed_rows(opened, model, str(read), layer=layer, batch_size=batch_size, device=device)
    check_any_row(rows, embedding_key)
    ranges: list[SectionRange] = []
    if stored is None and read == "image":
        ranges, empty = compare(opened, model, rows.features, rows.results)
        correction = correction._replace(empty=empty)
    found = (
        guard.row_ranges(model.reference, rows.features, opened.sections, ranges)
        if ranges and unknown == "abstain"
        else None
    )
    z = scoring.pooled(rows.z, groups, correction.empty)
    answer = answers(
        model,
        z,
        read_as.text,
        labels=request.labels,
        sections=opened.sections,
        correction=correction,
        examples=chosen,
        fitted=fitted,
        device=device,
    )
    for sentence in range_warnings(ranges, model):
        warn(sentence)
    read_as.say()
    by_section = correction.normalize == "centre" and correction.mean is None
    if correction.empty is not None and (by_section or groups is not None or chosen is not None):
        say_empty(correction.empty, "part in means over rows")
    decided = decision.decide(answer.probability, request.classes, answer.fitted)
    scores = answer.scores
    if correction.normalize == "softmax" or request.classes.member is not None:
        scores = decided.probability
    if not inplace:
        return pd.DataFrame(scores, index=opened.table.obs_names, columns=request.classes.classes)
    n_examples = None if chosen is None else tuple(len(chosen.get(name, ())) for name in request.labels)
    trained = trained_on(opened, model, rows.results)
    near = read_as.near
    record = replace(
        _record(model, request, limits, correction, n_examples, group_key),
        examples_weight=answer.words,
        regions=() if answer.fitted is None else tuple(answer.fitted.regions),
        path=decided.path,
        probabilities="stored" if decided.stored and scores is not decided.probability else "softmax",
        unknown=None if stored is not None or read != "image" else unknown,
        row_limit=None if found is None else found.limit,
        section_limit=None if found is None else ranges[0].limit,
        trained_on=tuple(trained),
        text_similarity=() if near is None else near.similarity,
        nearest_text=() if near is None else near.nearest,
        text_limit=None if near is None else near.limit,
        negations=read_as.negations,
    )
    result = with_wording_sd(labelled(key_added, decided, limits, scores, record, found), wording_sd(z, read_as.parts))
    opened.put(*rows.results, result)
    tissue.keep()
    if ranges and unknown == "abstain" and found is None:
        inform(guard.NOT_HELD)
    _say(guard.report(found, ranges, limits.min_confidence), trained)
    if request.min_confidence is None:
        _say_unsure(result.parameters)
        if chosen is None and (other := decision.unused(model, request.labels, request.sentences, read)):
            inform(other)
    return None


def _record(
    model: Whisperer,
    request: Request,
    limits: Limits,
    correction: scoring.Correction,
    n_examples: tuple[int, ...] | None,
    group_key: str | None,
) -> AnnotationRecord:
    """What is stored of the call beside its result."""
    as_probability = correction.normalize == "softmax" or request.hierarchy.level is not None
    return AnnotationRecord(
        classes=tuple(request.classes.classes),
        labels=tuple(request.labels),
        prompts=tuple(tuple(s) for s in request.sentences),
        scores="probability" if as_probability else "cosine" if n_examples is None else "logarithm",
        normalize=correction.normalize,
        background=correction.background,
        temperature=correction.temperature,
        calibrated=correction.calibrated and decision.fitted_for(model, request.labels, request.sentences),
        examples=n_examples,
        group_key=group_key,
        level=None if request.hierarchy.level is None else tuple(request.classes.ids),
        min_confidence=limits.min_confidence,
        min_margin=limits.min_margin,
        min_rows=limits.min_rows,
        rollup=request.hierarchy.rollup,
        model=describe_model(model),
    )


def _say(abstained: str | None, trained: list[str]) -> None:
    if abstained is not None:
        inform(abstained)
    if trained:
        inform(
            f"The model was trained on {'section' if len(trained) == 1 else 'sections'} {listing(trained, 5)}: how good its labels are "
            "there says nothing about new tissue."
        )


def _say_unsure(record: AnnotationRecord) -> None:
    n = record.without_label.get(guard.CONFIDENCE, 0)
    if n:
        inform(
            f"{n} rows get no label, because their confidence is below {record.min_confidence:.2f}, which was chosen when the model was "
            "calibrated. min_confidence=0 labels them nevertheless."
        )
