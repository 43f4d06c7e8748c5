"""Which labels a model tells apart from the density of the tissue, on a user's own slide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import pandas as pd

from spatialwhisperer._access.contract import number_column
from spatialwhisperer._access.images import missing_factor, rgb_names
from spatialwhisperer._access.names import check_names
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._docs import shared
from spatialwhisperer._messages import inform, listing
from spatialwhisperer.statistics.evidence import LEAST, association, darkness_basis, darkness_report, varies
from spatialwhisperer.statistics.intervals.auroc import auroc
from spatialwhisperer.statistics.intervals.spatial import SpatialErrors
from spatialwhisperer.statistics.transitivity import centred_scores
from spatialwhisperer.tl._annotation.labels import check_apart, check_labels, fill_templates
from spatialwhisperer.tl._annotation.range.compared import compare, say_empty
from spatialwhisperer.tl._annotation.range.trained import trained_on
from spatialwhisperer.tl._annotation.reading import read_texts
from spatialwhisperer.tl._embedding.models import describe_model, open_model
from spatialwhisperer.tl._embedding.rows import embed_rows, holds
from spatialwhisperer.tl.evaluation.baselines import DARKNESS, tissue_darkness

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer._access.slide_options import SlideOptions
    from spatialwhisperer.models.whisperer import Whisperer

TOP = 0.75
"""A label counts as present, by expression, in the rows whose expression scores above this quantile of the section."""

ALPHA = 0.05
"""p-value above which a label is not told apart from the density of the tissue, where expression is measured."""

MOST = 0.8
"""Fraction of the variance that darkness may explain of a label's scores, where no expression is measured."""


@shared
@checked
def evidence(
    data: AnnData | SpatialData,
    *,
    model: Whisperer | str | Path | None = None,
    labels: Sequence[str] | Mapping[str, str | Sequence[str]] | None = None,
    templates: str | Sequence[str] = "{}",
    darkness_key: str = DARKNESS,
    layer: str | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    random_state: int = 0,
    **slide: Unpack[SlideOptions],
) -> pd.DataFrame:
    """Report, for each label, whether its scores show more than the darkness of the tissue.

    The darkness of a tile, its mean optical density, ranks many labels of a section well by itself, because cells are dense where some
    types are common. This function reports for each label how much of its score map darkness explains. Where expression is measured on
    the same rows, it also tests whether the scores of the image agree with those of the expression, and whether they still do once
    darkness is taken out of both.

    Parameters
    ----------
    data
        Rows with an image, and expression where there is any. Rows without a whole tile on tissue are left out,
        which features of the encoder "stain_texture" tell.
    %(model)s
    labels, templates
        As in :func:`zero_shot_annotate`.
    darkness_key
        Column of ``.obs`` with the darkness of each row. Where it is missing, the mean optical density of the tiles is computed, of
        the smallest size that the model reads (:func:`tissue_darkness`).
    %(layer)s
    %(batch_size)s
    %(device)s
    %(random_state)s
    %(slide)s

    Returns
    -------
    DataFrame with one row per label:

    ``r2_darkness``
        Fraction of the variance of the scores, within sections, that darkness explains.
    ``auroc_vs_expression``
        AUROC of the scores of the image against the quarter of the rows with the highest scores of the expression.
    ``auroc_darkness``
        The same with darkness in the place of the scores, with the sign that gives the higher value.
    ``p_value``
        One-sided: how often maps that are as smooth, and have nothing to do with each other, agree as well (Dutilleul, Biometrics
        1993). Single rows are not shuffled, which would make p-values of neighbouring spots far too small.
    ``p_beyond_darkness``
        The same with darkness taken out of both.
    ``meaning``
        One sentence.

    Columns that need expression are NaN without it, and so are ``r2_darkness`` and ``p_beyond_darkness`` where the darkness is the same
    in all rows of each section: no label is told apart then. ``.attrs`` holds ``effective_rank`` of the score maps (exponential of the entropy
    of the eigenvalues of their correlation; 1 where all labels show one map), ``not_told_apart`` (the labels whose scores show no more
    than the density of the tissue), ``trained_on`` (sections of these that the model was trained on), ``negations`` (descriptions that the
    model reads as negations, so that they score high where what they name is absent), ``n`` and ``model``. Nothing is written to
    ``data``.

    Raises
    ------
    ValueError
        If fewer than 20 rows have an embedding, a whole tile on tissue and a darkness, or ``darkness_key`` holds something else than
        numbers.
    KeyError
        If the model reads no text or no image, or the data hold no image for it.

    Notes
    -----
    Scores are cosines, minus the mean of each label within the section. A small p-value says that image and expression agree, not
    that the label is correct: both may be named wrongly. Nor does it say that the label has a map of its own: with an effective rank
    of two, ten labels share two maps. Of twenty labels that have nothing to do with the image, one is told apart at 5 %. On sections
    that the model was trained on, agreement says nothing about new tissue. The false alarms of both tests are measured by
    ``python -m spatialwhisperer.protocols coverage``.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> genes = sw.models.default_model().encoders["gene"].genes
    >>> section = sw.datasets.simulate_sections(
    ...     1, 60, n_genes=len(genes), n_reference_cells=50, random_state=0
    ... ).sections["P1"]
    >>> section["table"].var_names = genes
    >>> report = sw.tl.evidence(section, labels=["T cell", "fibroblast", "adipocyte"])
    >>> report.index.tolist(), bool((report["r2_darkness"] <= 1).all())
    (['T cell', 'fibroblast', 'adipocyte'], True)
    """
    model = open_model(model)
    lacking = [m for m in ("image", "text") if m not in model.modalities]
    if lacking:
        raise KeyError(f"This model reads no {listing(lacking)} (it has: {listing(model.modalities)}).")
    classes, described = check_labels(labels, model)
    read = read_texts(model, classes, fill_templates(described, templates), device=device)
    check_apart(classes, read.text)
    text = read.text.astype(np.float64)
    opened = Slide.open(data, **slide)
    named = {"darkness_key": darkness_key} if darkness_key != DARKNESS else {}
    check_names([opened], layer=layer, **named)
    options: dict[str, Any] = {"layer": layer, "batch_size": batch_size, "device": device}
    embedded = embed_rows(opened, model, "image", **options)
    image = embedded.z
    gene = embed_rows(opened, model, "gene", **options).z if holds(opened, model, "gene") else None
    darkness = _darkness(data, opened, model, darkness_key, slide)
    empty = compare(opened, model, embedded.features, embedded.results).empty
    keep = np.isfinite(image).all(axis=1) & np.isfinite(darkness) & ~empty
    if gene is not None and (keep & np.isfinite(gene).all(axis=1)).sum() >= LEAST:
        keep &= np.isfinite(gene).all(axis=1)
    else:
        gene = None
    if keep.sum() < LEAST:
        raise ValueError(
            f"{int(keep.sum())} of {len(keep)} rows have an image embedding, tissue and a darkness; at least {LEAST} are needed."
        )
    sections, positions = opened.sections.astype(str)[keep], opened.positions()
    scores = centred_scores(image[keep].astype(np.float64), text, sections)
    report = darkness_report(scores, darkness[keep], sections)
    out = pd.DataFrame({"r2_darkness": report["r2_darkness"].to_numpy()}, index=pd.Index(classes, name="label"))
    errors = SpatialErrors(None if positions is None else positions[keep], sections, random_state)
    expression = None if gene is None else centred_scores(gene[keep].astype(np.float64), text, sections)
    out[_COLUMNS] = _against_expression(scores, expression, darkness[keep], sections, errors)
    told = _told_apart(out)
    if varies(darkness[keep], sections):
        out["meaning"] = [_sentence(name, row, ok) for (name, row), ok in zip(out.iterrows(), told, strict=True)]
    else:
        out["meaning"] = [
            f"{name}: not told apart from tissue density, because the darkness does not vary here."
            for name in out.index
        ]
    out.attrs |= {
        "effective_rank": report.attrs["effective_rank"],
        "not_told_apart": [str(name) for name in out.index[~told]],
        "trained_on": trained_on(opened, model, embedded.results),
        "negations": list(read.negations),
        "n": int(keep.sum()),
        "model": describe_model(model),
    }
    say_empty(empty, "part in this report")
    read.say()
    if out.attrs["trained_on"]:
        inform(
            f"The model was trained on {listing(out.attrs['trained_on'], 5)}: agreement there says nothing about new tissue."
        )
    if errors.independent and gene is not None:
        inform("These rows have no positions: p-values are for independent rows, and too small for neighbouring spots.")
    return out


_COLUMNS = ["auroc_vs_expression", "auroc_darkness", "p_value", "p_beyond_darkness"]


def _darkness(data: Any, opened: Slide, model: Whisperer, key: str, slide: Any) -> np.ndarray:
    """The column, or the mean optical density of the tiles that the model reads."""
    obs = opened.table.obs
    if key in obs:
        return number_column(pd.Series(obs[key]), f".obs[{key!r}]")
    if not rgb_names(opened.data):
        raise KeyError(
            f"The darkness of the tiles is not known: .obs has no {key!r}, and there is no image. "
            f"{missing_factor(opened.data) or 'Run sw.tl.tissue_darkness(data) on the object with the image first.'}"
        )
    sizes = model.config.modality("image").features.tile_um
    found = tissue_darkness(data, tile_um=min(sizes) if sizes else None, off_slide="nan", inplace=False, **slide)
    if found is None:
        raise TypeError("tissue_darkness(inplace=False) returns the values.")
    return found.astype(np.float64)


def _against_expression(
    scores: np.ndarray, expression: np.ndarray | None, darkness: np.ndarray, sections: np.ndarray, errors: SpatialErrors
) -> np.ndarray:
    """The columns that need expression, shape (labels, 4)."""
    from scipy.stats import rankdata

    out = np.full((scores.shape[1], len(_COLUMNS)), np.nan)
    if expression is None:
        return out
    flat, beyond = darkness_basis(np.zeros(len(darkness)), sections), darkness_basis(darkness, sections)
    taken_out = varies(darkness, sections)
    for c in range(scores.shape[1]):
        present = _top(expression[:, c], sections)
        if not 0 < present.sum() < len(present):
            continue
        by_darkness = auroc(_within(darkness, sections), present)
        ranks = rankdata(scores[:, c])
        out[c] = (
            auroc(scores[:, c], present),
            max(by_darkness, 1 - by_darkness),
            association(errors, ranks, present, flat).p_value,
            association(errors, ranks, present, beyond).p_value if taken_out else np.nan,
        )
    return out


def _top(values: np.ndarray, sections: np.ndarray) -> np.ndarray:
    limit = pd.Series(values).groupby(sections).transform("quantile", TOP).to_numpy()
    return values > limit


def _within(values: np.ndarray, sections: np.ndarray) -> np.ndarray:
    return pd.Series(values).groupby(sections).rank(pct=True).to_numpy()


def _told_apart(report: pd.DataFrame) -> np.ndarray:
    """By the test where there is one, else by how much darkness explains."""
    tested = report["p_beyond_darkness"].notna()
    return np.where(tested, report["p_beyond_darkness"] < ALPHA, report["r2_darkness"] < MOST).astype(bool)


def _sentence(name: Any, row: pd.Series, told: bool) -> str:
    explained = f"R² {row['r2_darkness']:.2f}"
    if not told:
        return f"{name}: not told apart from tissue density here ({explained})."
    if np.isnan(row["p_beyond_darkness"]):
        return f"{name}: tissue density explains part of the scores ({explained}); without expression nothing more can be tested."
    return (
        f"{name}: image and expression agree beyond tissue density ({explained}, AUROC {row['auroc_vs_expression']:.2f}, "
        f"p {row['p_beyond_darkness']:.1g})."
    )
