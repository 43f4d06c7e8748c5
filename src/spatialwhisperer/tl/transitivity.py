"""Whether labels that were learnt from expression can be trusted on these images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._access import get_table, positions, raster_images, section_codes
from spatialwhisperer._messages import listing
from spatialwhisperer.statistics.bootstrap import Bootstrap, spatial_blocks
from spatialwhisperer.tl._annotation.labels import check_labels, class_embeddings, fill_templates
from spatialwhisperer.tl._annotation.training_range import check_range, section_ranges
from spatialwhisperer.tl._transitivity import estimates as parts
from spatialwhisperer.tl.embed import describe_model, embed, image_inputs, off_slide_rows, open_model

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer.models import Whisperer

LEAST = 20
"""Rows below which nothing is estimated."""


def transitivity(
    data: AnnData | SpatialData,
    *,
    model: Whisperer | str | Path | None = None,
    labels: Sequence[str] | Mapping[str, str | Sequence[str]] | None = None,
    templates: str | Sequence[str] = "{}",
    n_bootstrap: int = 200,
    max_rows: int = 3000,
    table_key: str | None = None,
    layer: str | None = None,
    library_key: str | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    random_state: int = 0,
) -> pd.DataFrame:
    """Report whether text can reach these images through expression, as far as these data can tell.

    A model that never saw an image with a caption labels images because image–gene and gene–text pairs meet in the expression
    (transitive alignment; Schaefer et al., ICML 2026, who state a sufficient condition of order √δ, where δ says how far the
    expression of the two kinds of pairs lies apart). This report estimates what that takes on the data at hand. Its quantities, and
    the inequality behind ``bound_distance``, are **our reconstruction** from the idea: they are not the text of the paper's theorem,
    and no number of the paper can be compared with them.

    Read the two headlines first. ``transitive_consistency``: on spots that have both, do labels from the image agree with labels
    from the expression? ``coverage``: does the expression lie where the model has met expression with text? Both can be high
    and the labels wrong, when expression and text do not belong together; neither replaces known labels
    (:func:`evaluate_annotation`).

    Parameters
    ----------
    data
        Spots or cells with an image, expression, or both. Without expression only the prompts and the image are judged.
    model
        A trained model, its folder or its name on the hub; it brings the sample of training tissue to compare with.
    labels, templates
        As in :func:`zero_shot_annotate`.
    n_bootstrap
        Resamplings for the intervals.
    max_rows
        Rows to use, drawn at random where there are more.
    table_key
        Table of a SpatialData.
    layer
        Layer with raw counts; ``.X`` if not given.
    library_key
        Column of ``.obs`` that names the library of each row (AnnData with several libraries).
    batch_size, device
        As in :func:`embed`.
    random_state
        Seed of the draw, the resamplings and the folds.

    Returns
    -------
    DataFrame with the columns ``value``, ``low`` and ``high`` (95 % interval), ``meaning`` (one sentence) and the index:

    ``transitive_consistency`` : mean over labels of the AUROC of image scores, the best label by expression being taken for true
        (scores centred within the section); .5 by chance
    ``coverage`` : share of rows whose expression lies as near to a training row with a caption, and whose counts are as little
        surprising, as 95 % of training rows are to the other training patients
    ``label_kappa`` : Cohen's kappa of the best labels by image and by expression
    ``image_gene_error``, ``image_gene_error_centred`` : ε₁, mean 1 - cosine of image and expression of a row, and the same
        after the mean of each side is taken off (contrastive training leaves the two sides apart)
    ``image_gene_rank``, ``image_gene_recall_10`` : how often a row's own expression is nearer to its image than another row's of
        the section (.5 by chance), and is among the ten nearest
    ``bridge_error``, ``bridge_error_centred`` : δ, mean 1 - cosine to the nearest training row with a caption
    ``bridge_auroc``, ``bridge_auroc_centred``, ``bridge_auroc_knn`` : how well a held-out classifier (logistic, logistic after
        centring, 15 nearest rows) tells these data from training data; .5 where they are alike
    ``bridge_mixing`` : training rows among the 15 nearest in a balanced sample, over their expectation (1: mixed)
    ``bridge_mmd_p`` : p-value of the maximum mean discrepancy; it takes neighbouring spots for independent, so it is too small
    ``bridge_reach``, ``bridge_reach_centred`` : share of rows within a training row's distance to its fifth neighbour
    ``expression_surprise`` : nats per count by which the counts are harder to say than those of rows with the best-fitting
        caption; an encoder maps counts of any tissue somewhere among those that it knows, so that this looks at the counts
    ``gene_text_error``, ``gene_text_rank`` : ε₂ and the rank of the own caption among all, on training rows
    ``prompt_margin`` : smallest distance between two labels
    ``largest_hub`` : share of the rows that the most frequent label gets
    ``bound_distance`` : ``√2 (√ε₁ + √δ + √ε₂)``, which no root mean square distance of image and caption exceeds; labels
        that are further apart than twice this are safe, so it is called vacuous where none are, which is usual
    ``chain_error`` : what the bound bounds: mean 1 - cosine of the image and the caption of its nearest training row
    ``image_coverage``, ``image_distance``, ``image_scale`` : share of tiles whose features lie within reach of training tiles;
        distance of the section's mean features from the training sections', in standard deviations; times coarser (above 1) or
        finer than training images

    ``.attrs`` holds as plain values: ``classes``; ``class_auroc`` with ``class_low`` and ``class_high``; ``prompt_distance``;
    ``prompt_share``; ``bridge`` (1 - cosine to the nearest training row of these rows, and of training rows to other
    patients'); ``within_reach`` and ``expression_alike`` (the two conditions of coverage); ``untestable``; ``range`` (sentences on the images);
    ``n``; ``intervals`` (what was resampled). Nothing is written to ``data``.

    Raises
    ------
    ValueError
        If the model has no reference, or fewer than 20 rows can be used.
    KeyError
        If the model has no text side, or the data hold nothing that it can read.

    Notes
    -----
    Intervals come from resampling blocks of about a dozen neighbouring rows (rows, where there are no positions), and for
    training rows from resampling their patients where there are at least five. They hold the model, the training sample and a
    classifier's held-out scores fixed.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sections, reference = sw.datasets.simulate_sections(2, 80, n_genes=100, n_reference_cells=200, random_state=0)
    >>> model = sw.tl.train([sections["P1"], reference], max_epochs=20, tile_px=64)
    >>> report = sw.tl.transitivity(sections["P2"], model=model, n_bootstrap=50)
    >>> list(report.index[:2])
    ['transitive_consistency', 'coverage']
    """
    model = open_model(model)
    reference = _reference(model)
    classes, described = check_labels(labels, model)
    sentences = fill_templates(described, templates)
    for name, value, least in (("n_bootstrap", n_bootstrap, 20), ("max_rows", max_rows, LEAST)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}.")
    table = get_table(data, table_key)
    text = class_embeddings(model, sentences, device=device).astype(np.float64)
    where = {"table_key": table_key, "library_key": library_key}
    sections = np.asarray(section_codes(data, **where), dtype=object).astype(str)
    xy = positions(table)
    options = {"batch_size": batch_size, "device": device}
    image, features = _image(data, table, model, sections, where, options)
    gene = _gene(data, table, model, {**where, **options, "layer": layer})
    if image is None and gene is None:
        raise KeyError(
            f"There is nothing to judge: the model reads {listing(m for m in model.modalities if m != 'text')}, and the data hold "
            f"neither an H&E image nor image features for it, and {table.n_vars} genes."
        )
    keep = _usable(image, gene, max_rows, random_state)
    rows = parts.Rows(
        image=None if image is None else image[keep].astype(np.float64),
        gene=None if gene is None else gene[keep].astype(np.float64),
        sections=sections[keep],
        blocks=(blocks := spatial_blocks(None if xy is None else xy[keep], sections[keep])),
        boot=Bootstrap(blocks, n_bootstrap, random_state),
        surprise=None if gene is None else _surprise(table, model, layer, keep),
    )
    out = parts.Report(classes)
    parts.add_headlines(out, rows, reference, text)
    parts.add_links(out, rows)
    parts.add_bridge(out, rows, reference, random_state)
    parts.add_gene_text(out, reference, n_bootstrap, random_state)
    parts.add_prompts(out, rows, text)
    parts.add_bound(out, rows, reference, text)
    if image is not None:
        standardised = None if features is None else model.standardized("image", features, sections)[keep]
        ranges = section_ranges(table, model, features=features)
        parts.add_image(out, rows, reference, standardised, ranges)
        out.attrs["range"] = check_range(table, model, features=features)
    out.attrs["n"] = len(keep)
    out.attrs["intervals"] = (
        f"{n_bootstrap} resamplings of {rows.boot.n_blocks} {'rows' if rows.boot.n_blocks == len(keep) else 'blocks of neighbouring rows'}"
    )
    out.attrs["model"] = describe_model(model)
    return out.frame()


def _reference(model: Whisperer) -> Any:
    if "text" not in model.modalities:
        raise KeyError(
            f"This model has no text side (it has: {listing(model.modalities)}), so no text can reach an image."
        )
    if model.reference is None:
        raise ValueError(
            "This model has no sample of its training tissue (model.reference) to compare with. Train it with sw.tl.train."
        )
    return model.reference


def _image(
    data: Any, table: AnnData, model: Whisperer, sections: np.ndarray, where: dict[str, Any], options: dict[str, Any]
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Embeddings of the images and the features behind them; ``None`` where there is no image or no such side."""
    slot = model.config["encoders"].get("image", {}).get("slot")
    if "image" not in model.modalities or not ((slot is not None and slot in table.obsm) or raster_images(data)):
        return None, None
    x = image_inputs(data, table, model, False, where, **options)
    context = model.config["contexts"].get("image")
    xy = None if context is None else positions(table, array=context["kind"] == "batch_peer")
    z = model.project("image", x, sections=sections, positions=xy, device=options["device"])
    if "image" not in model.towers:
        return z, np.asarray(x, dtype=np.float32)
    z[off_slide_rows(table)] = np.nan
    return z, None


def _gene(data: Any, table: AnnData, model: Whisperer, options: dict[str, Any]) -> np.ndarray | None:
    slot = model.config["encoders"].get("gene", {}).get("slot")
    there = table.n_vars > 0 if slot is None else slot in table.obsm
    if "gene" not in model.modalities or not there:
        return None
    return embed(data, model=model, modality="gene", inplace=False, **options)


def _surprise(table: AnnData, model: Whisperer, layer: str | None, keep: np.ndarray) -> np.ndarray | None:
    """How unlike the training's expression the counts of the rows are; ``None`` where that is not known of the training."""
    encoder = model.gene_encoder
    if encoder is None or not model.reference.has("profile", "surprise"):
        return None
    from spatialwhisperer._access.counts import align_counts
    from spatialwhisperer.statistics.surprise import surprise

    aligned = align_counts(encoder.genes, encoder.gene_ids, table[keep], layer)
    profile = model.reference.arrays["profile"].astype(np.float64)
    return surprise(aligned.counts.astype(np.float64), profile, aligned.present)


def _usable(image: Any, gene: Any, max_rows: int, random_state: int) -> np.ndarray:
    """Positions of the rows that are complete on every side that there is."""
    complete = np.all([np.isfinite(z).all(axis=1) for z in (image, gene) if z is not None], axis=0)
    keep = np.flatnonzero(complete)
    if len(keep) < LEAST:
        raise ValueError(
            f"{len(keep)} of {len(complete)} rows have what the model reads (a whole tile, counts in its genes); at least "
            f"{LEAST} are needed."
        )
    if len(keep) > max_rows:
        keep = np.sort(np.random.default_rng(random_state).choice(keep, max_rows, replace=False))
    return keep
