"""Whether labels that a model learnt from expression can be trusted on these images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from spatialwhisperer._access.names import check_names
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.table.counts import align_counts
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._docs import shared
from spatialwhisperer._messages import listing
from spatialwhisperer.encoders.gene.base import GeneEncoder
from spatialwhisperer.statistics.cross_entropy import excess_cross_entropy
from spatialwhisperer.statistics.intervals.spatial import SpatialErrors
from spatialwhisperer.statistics.left_out import neighbour_blocks
from spatialwhisperer.tl._annotation.labels import check_apart, check_labels, fill_templates
from spatialwhisperer.tl._annotation.range.compared import Compared, compare, say_empty
from spatialwhisperer.tl._annotation.range.training_range import range_warnings
from spatialwhisperer.tl._annotation.reading import read_texts
from spatialwhisperer.tl._embedding.models import describe_model, open_model
from spatialwhisperer.tl._embedding.rows import embed_rows, holds
from spatialwhisperer.tl._transitivity import estimates

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer._access.slide_options import SlideOptions
    from spatialwhisperer.models.reference import Reference
    from spatialwhisperer.models.whisperer import Whisperer

LEAST = 20
"""Rows below which nothing is estimated."""


@shared
@checked
def transitivity(
    data: AnnData | SpatialData,
    *,
    model: Whisperer | str | Path | None = None,
    labels: Sequence[str] | Mapping[str, str | Sequence[str]] | None = None,
    templates: str | Sequence[str] = "{}",
    max_rows: int = 3000,
    layer: str | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    random_state: int = 0,
    **slide: Unpack[SlideOptions],
) -> pd.DataFrame:
    """Report whether image, expression and text are aligned well enough on these data to label images with text.

    A model that was never trained on images with captions can label images because image–gene and gene–text pairs share the
    expression (transitive alignment; Schaefer et al., ICML 2026, who state a sufficient condition of order √δ, where δ is the
    distance between the expression of the two kinds of pairs). This report estimates how well the condition is met on your data. Its
    quantities are **our reconstruction** of the idea. They are not those of the theorem in the paper, and cannot be compared with
    numbers in it. They guarantee nothing.

    Read the first two quantities first. ``transitive_consistency``: on spots with an image and expression, do labels from the image
    agree with labels from the expression? ``coverage``: is the expression similar to the expression with captions that the model was
    trained on? Both can be high and the labels wrong, where the captions do not fit the expression in training; neither replaces a
    ground truth (:func:`evaluate_annotation`).

    Parameters
    ----------
    data
        Spots or cells with an image, expression, or both. Without expression only the labels and the image are assessed. Rows without
        a whole tile on tissue are left out, which features of the encoder "stain_texture" tell.
    %(model)s
    labels, templates
        As in :func:`zero_shot_annotate`.
    max_rows
        Largest number of rows to use; of more rows a random sample is drawn.
    %(layer)s
    %(batch_size)s
    %(device)s
    %(random_state)s
    %(slide)s

    Returns
    -------
    DataFrame with the columns ``value``, ``low`` and ``high`` (95 % interval), ``meaning`` (one sentence) and the index:

    ``transitive_consistency``
        mean over labels of the AUROC of image scores against the best label by expression (scores centred within the
        section); .5 by chance
    ``coverage``
        fraction of rows whose expression is as near to a training row with a caption, and whose counts fit the expression
        of the captions as well, as for 95 % of training rows when their patient is left out
    ``label_kappa``
        Cohen's kappa of the best labels by image and by expression
    ``image_gene_error``, ``image_gene_error_centred``
        ε₁, mean 1 - cosine of image and expression of a row, and the same after the mean of each modality is subtracted
        (contrastive training leaves a gap between the modalities)
    ``image_gene_rank``, ``image_gene_recall_10``
        how often a row's own expression is nearer to its image than that of another row of the section (.5 by chance), and
        how often it is among the ten nearest, after the mean of each modality is subtracted
    ``bridge_error``, ``bridge_error_centred``
        δ, mean 1 - cosine to the nearest training row with a caption
    ``bridge_auroc``, ``bridge_auroc_knn``
        how well a classifier (logistic, 15 nearest rows) distinguishes held-out rows of these data
        from training rows; .5 where they are alike
    ``bridge_mixing``
        training rows among the 15 nearest rows in a balanced sample, over their expectation (1: mixed)
    ``bridge_mmd_p``
        p-value of the maximum mean discrepancy; it assumes independent spots, so that it is too small
    ``bridge_reach``, ``bridge_reach_centred``
        fraction of rows that are nearer to a training row than its fifth neighbour
    ``expression_cross_entropy``
        excess cross-entropy of the counts, in nats per count, under the expression profile of the best-fitting caption; it
        is computed from the counts because an encoder maps the counts of any tissue near its training data
    ``gene_text_error``, ``gene_text_rank``
        ε₂ and the rank of a row's own caption among all captions, on training rows
    ``prompt_margin``
        smallest Euclidean distance between the embeddings of two labels
    ``largest_hub``
        fraction of the rows whose best label is the most frequent one
    ``chain_error``
        mean 1 - cosine of the image and the caption of the training row that is nearest to its expression
    ``image_coverage``, ``image_distance``, ``image_scale``
        fraction of tiles whose features are similar to those of training tiles; distance of the section's mean features
        from those of the training sections, in standard deviations; ratio of the microns per pixel to those of the training
        images (above 1: coarser)

    ``.attrs`` holds as plain values: ``classes``; ``class_auroc`` with ``class_low`` and ``class_high``; ``class_rows`` and
    ``class_patches``, the rows that have the label by expression and the independent patches that they make; ``prompt_distance``;
    ``prompt_fraction``; ``bridge`` (1 - cosine to the nearest training row, of these rows, and of training rows to those of other
    patients); ``within_reach`` and ``expression_alike`` (the two conditions of coverage); ``untestable``; ``range`` (sentences on the
    images); ``negations`` (descriptions that the model reads as negations); ``n``; ``intervals`` (what they rest on). Nothing is
    written to ``data``.

    Raises
    ------
    ValueError
        If the model has no reference, or fewer than 20 rows can be used.
    KeyError
        If the model reads no text, or the data hold nothing that it reads.

    Notes
    -----
    Neighbouring spots are alike. The covariance of the residuals of each quantity is fitted by distance, and intervals follow from it
    with Student's t; where there are no positions, rows are taken to be independent, and intervals are too narrow. Quantities of training
    rows have intervals over their patients. There is none where a quantity rests on fewer than three independent patches, or patients,
    and a label in fewer than three patches or ten rows has no AUROC. The coverage of the intervals is measured by ``python -m
    spatialwhisperer.protocols coverage``. They are about more tissue of the same sections: the model, the training sample and the
    held-out scores of a classifier are kept fixed, and other patients differ by more.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> genes = sw.models.default_model().encoders["gene"].genes
    >>> section = sw.datasets.simulate_sections(
    ...     1, 60, n_genes=len(genes), n_reference_cells=50, random_state=0
    ... ).sections["P1"]
    >>> section["table"].var_names = genes
    >>> report = sw.tl.transitivity(section)
    >>> list(report.index[:2])
    ['transitive_consistency', 'coverage']
    """
    model = open_model(model)
    reference = _reference(model)
    classes, described = check_labels(labels, model)
    sentences = fill_templates(described, templates)
    if isinstance(max_rows, bool) or not isinstance(max_rows, int | np.integer) or max_rows < LEAST:
        raise ValueError(f"max_rows must be a whole number of at least {LEAST}, not {max_rows!r}.")
    read = read_texts(model, classes, sentences, device=device)
    check_apart(classes, read.text)
    text = read.text.astype(np.float64)
    opened = Slide.open(data, **slide)
    check_names([opened], layer=layer)
    bridge = reference.config.bridge
    options: dict[str, Any] = {"layer": layer, "batch_size": batch_size, "device": device}
    image, other = (
        embed_rows(opened, model, m, **options) if holds(opened, model, m) else None for m in ("image", bridge)
    )
    if image is None and other is None:
        raise KeyError(
            f"There is nothing to assess: the model reads {listing(m for m in model.modalities if m != 'text')}, and the data hold "
            f"neither an H&E image nor image features for it, and {opened.table.n_vars} genes."
        )
    sections, xy = opened.sections.astype(str), opened.positions()
    compared = Compared([], np.zeros(opened.n_rows, bool))
    if image is not None:
        compared = compare(opened, model, image.features, image.results)
    keep = _usable([one.z for one in (image, other) if one is not None], compared.empty, max_rows, random_state)
    positions = None if xy is None else xy[keep]
    errors = SpatialErrors(positions, sections[keep], random_state)
    rows = estimates.Rows(
        image=None if image is None else image.z[keep].astype(np.float64),
        gene=None if other is None else other.z[keep].astype(np.float64),
        sections=sections[keep],
        blocks=neighbour_blocks(positions, sections[keep]),
        errors=errors,
        cross_entropy=None if other is None else _cross_entropy(opened, model, reference, layer, keep),
    )
    out = estimates.Report(classes)
    estimates.add_headlines(out, rows, reference, text)
    estimates.add_links(out, rows)
    estimates.add_bridge(out, rows, reference, random_state)
    estimates.add_gene_text(out, reference)
    estimates.add_prompts(out, rows, text)
    estimates.add_chain(out, rows, reference)
    if image is not None:
        features = image.features
        standardised = None if features is None else model.standardized("image", features, sections)[keep]
        estimates.add_image(out, rows, reference, standardised, compared.ranges)
        out.attrs["range"] = range_warnings(compared.ranges, model)
    out.attrs["n"] = len(keep)
    out.attrs["intervals"] = (
        "rows are taken to be independent, because they have no positions: too narrow for neighbouring spots"
        if errors.independent
        else "covariance of neighbouring rows fitted by distance"
    )
    out.attrs["negations"] = list(read.negations)
    out.attrs["model"] = describe_model(model)
    say_empty(compared.empty, "part in this report")
    read.say()
    return out.frame()


def _reference(model: Whisperer) -> Reference:
    if "text" not in model.modalities:
        raise KeyError(
            f"This model reads no text (it has: {listing(model.modalities)}), so that there are no labels to assess."
        )
    if model.reference is None:
        raise ValueError(
            "This model has no sample of its training tissue (model.reference) to compare with. Train it with sw.tl.train."
        )
    return model.reference


def _cross_entropy(
    slide: Slide, model: Whisperer, reference: Reference, layer: str | None, keep: np.ndarray
) -> np.ndarray | None:
    """Excess cross-entropy of the counts of the rows; ``None`` where the model stores no profiles of its training data."""
    encoder = model.encoders.get("gene")
    if not isinstance(encoder, GeneEncoder) or not reference.has("profile", "excess_cross_entropy"):
        return None
    aligned = align_counts(encoder.genes, encoder.gene_ids, slide.table[keep], layer, fewest=encoder.fewest_genes)
    profile = reference.arrays["profile"].astype(np.float64)
    return excess_cross_entropy(aligned.counts.astype(np.float64), profile, aligned.present)


def _usable(embeddings: Sequence[np.ndarray], empty: np.ndarray, max_rows: int, random_state: int) -> np.ndarray:
    """Positions of the rows that are complete in every modality that there is, and do not show bare background."""
    complete = np.all([np.isfinite(z).all(axis=1) for z in embeddings], axis=0) & ~empty
    keep = np.flatnonzero(complete)
    if len(keep) < LEAST:
        raise ValueError(
            f"{len(keep)} of {len(complete)} rows have what the model reads (a whole tile on tissue, counts in its genes); at least "
            f"{LEAST} are needed."
        )
    if len(keep) > max_rows:
        keep = np.sort(np.random.default_rng(random_state).choice(keep, max_rows, replace=False))
    return keep
