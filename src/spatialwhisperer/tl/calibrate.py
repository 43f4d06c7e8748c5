"""Calibration: temperature, scales and offsets at which confidence agrees with accuracy, fitted on rows with known labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Unpack

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access.columns import as_list
from spatialwhisperer._access.names import check_names
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.table.groups import group_names
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._checks.values import one_of
from spatialwhisperer._docs import shared
from spatialwhisperer._messages import listing, warn
from spatialwhisperer.models.configuration.annotation import Annotation
from spatialwhisperer.statistics.calibration import (
    N_BINS,
    expected_calibration_error,
    negative_log_likelihood,
    probabilities,
)
from spatialwhisperer.statistics.labels.abstention import commonest_class, least_confidence
from spatialwhisperer.statistics.labels.vector_scaling import Method, choose_scaling, scaling_units
from spatialwhisperer.tl._annotation import scoring
from spatialwhisperer.tl._annotation.decision import regions_of
from spatialwhisperer.tl._annotation.labels import check_labels, fill_templates, label_embeddings
from spatialwhisperer.tl._annotation.range.compared import compare, say_empty
from spatialwhisperer.tl._embedding.models import open_model
from spatialwhisperer.tl._embedding.rows import check_any_row, check_modality, choose_modality, embed_rows, given_rows
from spatialwhisperer.tl.evaluation.rows.truth import correct_labels, indistinct, judged, known_truth, label_sets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer._access.slide_options import SlideOptions
    from spatialwhisperer.models.whisperer import Whisperer
    from spatialwhisperer.statistics.labels.vector_scaling import Scaling
    from spatialwhisperer.tl._annotation.labels import Labels
    from spatialwhisperer.tl._annotation.scoring import Normalize

CONVENTION = (
    f"Expected calibration error of the best label, {N_BINS} bins of equal width (Guo et al., ICML 2017). Its confidence is its "
    "probability with those of labels that the ground truth cannot tell apart from it; rows whose true class has no label are left out."
)


@shared
@checked
def calibrate(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    truth: str,
    *,
    model: Whisperer,
    labels: Labels | None = None,
    mapping: Mapping[Any, str | Sequence[str]] | None = None,
    templates: str | Sequence[str] = "{}",
    normalize: Normalize | None = None,
    background: Literal["section", "training"] = "section",
    method: Method | None = None,
    modality: str | None = None,
    embedding_key: str | None = None,
    layer: str | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    **slide: Unpack[SlideOptions],
) -> pd.DataFrame:
    """Fit what turns the scores of a model into calibrated probabilities, and the confidence below which a label is worth nothing.

    A temperature maximises the likelihood of the known labels (Guo et al., ICML 2017). It changes the confidence of a row, never
    the order of its labels. Vector scaling (section 4.2 there) adds a scale and an offset for each label, shrunk towards one scale and no
    offset; it changes the order too. Each section has the same weight, and in it each class that of the square root of its rows, so that
    a section full of one class does not set the offsets. The result is stored in ``model.config.annotation``, is saved with the model,
    and is used by :func:`zero_shot_annotate` for the same modality, normalisation and labels, in any order. Other labels of that
    modality get the temperature alone, and a line says that it was not fitted for them. It holds for tissue and labels like those that
    it was fitted on; measure it on other sections with :func:`evaluate_calibration`.

    Where the model tells regions before labels, and ``labels`` are its own, the regions are kept, and are what is fitted.

    Parameters
    ----------
    data
        One object or several with known labels, of patients that the model was not trained on.
    truth
        Column of ``.obs`` with true classes (rows with NaN are left out), or key of ``.obsm`` with their proportions, of which the
        largest counts; as in :func:`evaluate_annotation`. Rows in which no class is above 0, or several are the largest, are left out,
        and so are rows without a whole tile on tissue (which is asked as in :func:`query`).
    model
        The model. It is changed in place: ``model.config.annotation`` then holds the normalisation, the background, the temperature,
        scales and offsets, the smallest confidence, the expected calibration error with them and with the temperature of the training,
        the number of rows, the modality, the labels and their descriptions.
    labels, templates, embedding_key
        As in :func:`zero_shot_annotate`.
    mapping
        From true class to label, or to several that it covers, whose probabilities are summed; ``None`` matches equal names.
    normalize
        "none" or "centre"; ``None`` takes the one with the higher likelihood of the known labels where they are left out.
    background
        What "centre" subtracts: the mean of the section, or that of the training tissue.
    method
        "temperature" or "vector"; ``None`` takes the one with the higher likelihood of the known labels where they are left out. Patients
        (``.obs["patient"]``) are left out where there are two or more, else sections, else blocks of the section.
    %(modality)s
    %(layer)s
    %(batch_size)s
    %(device)s
    %(slide)s

    Warns
    -----
    SpatialWhispererWarning
        If ``.obs["patient"]`` holds a patient that the model was trained on, or scales and offsets are fitted and no row has one of the
        labels, which then gets the mean offset of the others.

    Returns
    -------
    DataFrame, one row per normalisation that was tried: ``temperature`` and ``temperature_before`` (that of the training), ``nll`` and
    ``nll_before`` (mean negative log-likelihood), ``ece`` and ``ece_before`` (expected calibration error), ``accuracy``, ``n`` rows, all
    measured on the rows that were fitted on; ``method``, ``nll_left_out`` and ``nll_left_out_temperature`` (weighted, on rows that were
    left out, by the method and by a temperature alone), ``min_confidence``, the smallest confidence at which labels are worth more
    than the commonest class of each section, and ``chosen``. ``.attrs["convention"]`` defines the error.

    Raises
    ------
    TypeError
        If ``model`` is not an open model, or the truth is not a name.
    KeyError
        If the truth does not exist.
    ValueError
        If no true class has a label, all rows are of one class, or no row has both scores and a known truth.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> section = sw.datasets.simulate_sections(1, 40, n_genes=100, n_reference_cells=50, random_state=0).sections["P1"]
    >>> model = sw.models.Whisperer.load("her2st-mini")
    >>> report = sw.tl.calibrate(section, "cell_type", model=model, labels=["T cell", "fibroblast", "adipocyte"])
    >>> bool((report["nll"] <= report["nll_before"]).all())
    True
    """
    if model is None or isinstance(model, str | Path):
        raise TypeError(
            f"model must be an open model, which keeps the temperature, not {type(model).__name__}. Open it first: "
            "model = sw.models.Whisperer.load(…), and save it afterwards: model.save(…)."
        )
    model = open_model(model)
    if not isinstance(truth, str):
        raise TypeError(f"truth must be the name of a column or key, not {type(truth).__name__}.")
    if normalize not in (None, "none", "softmax", "centre"):
        raise ValueError(f"normalize must be 'none', 'softmax', 'centre' or None, not {normalize!r}.")
    if background not in ("section", "training"):
        raise ValueError(f"background must be 'section' or 'training' here, not {background!r}.")
    if method is not None:
        one_of("method", method, Method)
    check_modality(modality)
    classes, prompts = check_labels(labels, model)
    sentences = fill_templates(prompts, templates)
    regions = regions_of(model, classes, sentences)
    described = sentences if not regions else [list(region.prompts) for region in regions.values()]
    text = label_embeddings(model, list(regions) or classes, described, device=device)
    options = {"layer": layer, "batch_size": batch_size, "device": device}
    slides = [Slide.open(d, **slide) for d in as_list(data)]
    check_names(slides, layer=layer)
    parts = [_embedded(d, truth, model, modality, embedding_key, options) for d in slides]
    true = list(dict.fromkeys(c for part in parts for c in part.classes))
    sets, names = label_sets(true, classes, mapping), classes
    if regions:
        names = list(regions)
        sets = {c: [n for n, region in regions.items() if set(region.labels) & set(own)] for c, own in sets.items()}
    rows, scalings, absent = {}, {}, {}
    for kind in ("none", "centre") if normalize is None else (normalize,):
        corrections = [_correction(model, kind, background, part.modality) for part in parts]
        rows[kind], scalings[kind], absent[kind] = _fitted(
            parts, corrections, text, sets, names, 1 / model.scale, method
        )
    _warn_trained(parts, model)
    report = pd.DataFrame.from_dict(rows, orient="index")
    best = str(report["nll_left_out"].astype(float).idxmin())
    report["chosen"] = report.index == best
    report.index.name = "normalize"
    report.attrs["convention"] = CONVENTION
    chosen, scaling = rows[best], scalings[best]
    plain = chosen["method"] == "temperature"
    if not plain:
        _warn_absent(absent[best], regions=bool(regions))
    modalities = {part.modality for part in parts}
    model.update(
        annotation=Annotation(
            normalize=best,  # type: ignore[arg-type]
            background=background if best == "centre" else None,
            temperature=float(chosen["temperature"]),
            ece=float(chosen["ece"]),
            ece_before=float(chosen["ece_before"]),
            n=int(chosen["n"]),
            labels=tuple(classes),
            prompts=tuple(tuple(group) for group in sentences),
            modality=modalities.pop() if len(modalities) == 1 else None,
            scale=() if plain else tuple(scaling.scale.tolist()),
            offset=() if plain else tuple(scaling.offset.tolist()),
            regions=regions,
            min_confidence=float(chosen["min_confidence"]),
        )
    )
    return report


def _warn_trained(parts: Sequence[_Part], model: Whisperer) -> None:
    groups = set() if model.config.training is None else set(model.config.training.groups)
    trained = {p for part in parts for p in part.patients} & groups
    if trained:
        warn(
            f"The model was trained on rows of {listing(sorted(trained))}. It is more confident there than on new patients, so the "
            "temperature will be too low. Calibrate on patients that were not in training."
        )


def _warn_absent(names: Sequence[str], *, regions: bool) -> None:
    if not names:
        return
    what, remedy = ("region", "") if regions else ("label", ", or leave it out of labels")
    warn(
        f"No row that was calibrated on has the {what} {listing(names)}, so its scale and offset are the means of those of the other "
        f"{what}s. Add sections that have it, pass method='temperature'{remedy}."
    )


class _Part(NamedTuple):
    """One object: unit embeddings of its rows, their sections, patients, positions and true classes."""

    z: np.ndarray
    sections: np.ndarray
    patient: np.ndarray
    positions: np.ndarray | None
    dominant: np.ndarray
    classes: list[str]
    modality: str | None

    @property
    def patients(self) -> set[str]:
        """Patients that it holds."""
        return set(self.patient) - {""}


def _embedded(
    slide: Slide, truth: str, model: Whisperer, modality: str | None, key: str | None, options: dict[str, Any]
) -> _Part:
    table = slide.table
    known = known_truth(table, truth)
    if key is not None:
        rows = given_rows(slide, model, key, modality)
    else:
        rows = embed_rows(slide, model, modality or choose_modality(slide, model), **options)
    check_any_row(rows, key)
    z = rows.z
    if key is None and rows.modality == "image":
        empty = compare(slide, model, rows.features, rows.results).empty
        say_empty(empty, "part in the calibration")
        z = np.where(empty[:, None], np.float32(np.nan), z)
    patient = np.full(table.n_obs, "", object)
    if _keys.PATIENT in table.obs:
        stated = group_names(table.obs[_keys.PATIENT])
        patient = np.where(stated == None, "", stated)  # noqa: E711
    classes = [str(name) for name in known.proportions.columns]
    return _Part(z, slide.sections, patient, slide.positions(), known.dominant, classes, rows.modality)


def _correction(model: Whisperer, normalize: str, background: str, modality: str | None) -> scoring.Correction:
    return scoring.choose_correction(model, normalize, background if normalize == "centre" else None, modality=modality)


def _fitted(
    parts: Sequence[_Part],
    corrections: Sequence[scoring.Correction],
    text: np.ndarray,
    sets: Mapping[str, Sequence[str]],
    classes: Sequence[str],
    before: float,
    method: Method | None,
) -> tuple[dict[str, Any], Scaling, list[str]]:
    """Figures and scaling of one normalisation, and the labels that no row has."""
    # scores are cosines here: "softmax" stores the probabilities of the same cosines
    of_cosines = [scoring.of_cosines(c) for c in corrections]
    scores = np.concatenate(
        [
            scoring.score_rows(p.z, text, sections=p.sections, correction=c)[0]
            for p, c in zip(parts, of_cosines, strict=True)
        ]
    ).astype(np.float64)
    dominant = np.concatenate([p.dominant for p in parts])
    correct = correct_labels(dominant, sets, classes)
    take = np.isfinite(scores).all(axis=1) & correct.any(axis=1)
    if not take.any():
        raise ValueError(
            f"No row has both scores and a known truth among {listing(sets)} ({int(correct.any(axis=1).sum())} rows have a known truth)."
        )
    kinds = list(dict.fromkeys(dominant[take]))
    if len(kinds) < 2:
        raise ValueError(
            f"All {int(take.sum())} rows with a known truth are {kinds[0]!r}; a temperature needs rows of two classes."
        )
    scores, correct = scores[take], correct[take]
    together = indistinct(sets, classes)
    sections, units = _units(parts, take)
    found = choose_scaling(scores, correct, sections=sections, units=units, method=method)
    logits = found.scaling.logits(scores)
    probability = found.scaling.probabilities(scores)
    ece, accuracy = _calibration(probability, correct, together)
    best = judged(probability, correct, together)
    figures = {
        "temperature": found.scaling.temperature,
        "temperature_before": before,
        "nll": negative_log_likelihood(logits, correct, 1.0),
        "nll_before": negative_log_likelihood(scores, correct, before),
        "ece": ece,
        "ece_before": _calibration(probabilities(scores, before), correct, together)[0],
        "accuracy": accuracy,
        "n": len(scores),
        "method": "temperature" if found.penalty is None else "vector",
        "nll_left_out": found.loss,
        "nll_left_out_temperature": found.loss_temperature,
        "min_confidence": least_confidence(best.confidence, best.correct, sections, commonest_class(correct, sections)),
    }
    return (
        figures,
        found.scaling,
        [name for name, occurs in zip(classes, correct.any(axis=0), strict=True) if not occurs],
    )


def _units(parts: Sequence[_Part], take: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Section of the rows that are taken, and what is left out together."""
    sections = np.concatenate([[f"{i}:{s}" for s in part.sections] for i, part in enumerate(parts)])[take]
    patient = np.concatenate([part.patient for part in parts])[take]
    where = [part.positions for part in parts]
    known = all(xy is not None for xy in where)
    positions = np.concatenate([xy for xy in where if xy is not None])[take] if known else None
    return sections, scaling_units(patient, sections, positions)


def _calibration(probability: np.ndarray, correct: np.ndarray, together: np.ndarray) -> tuple[float, float]:
    """Expected calibration error and accuracy."""
    rows = judged(probability, correct, together)
    return expected_calibration_error(rows.summed, rows.correct), float(rows.correct.mean())
