"""Confidence that means something: a temperature fitted on rows with known labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from spatialwhisperer._access import get_table, section_codes
from spatialwhisperer._access.slots import as_list
from spatialwhisperer._messages import found, warn
from spatialwhisperer.statistics.calibration import (
    N_BINS,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    shares,
)
from spatialwhisperer.tl._annotation import scoring
from spatialwhisperer.tl._annotation.labels import check_labels, class_embeddings, fill_templates
from spatialwhisperer.tl.annotate import check_any_row, row_embeddings, side_of
from spatialwhisperer.tl.evaluation.truth import indistinct, known_truth, label_sets, right_labels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer.models import Whisperer
    from spatialwhisperer.tl._annotation.labels import Labels
    from spatialwhisperer.tl._annotation.scoring import Normalize

CONVENTION = (
    f"Expected calibration error of the best label, {N_BINS} bins of equal width (Guo et al., ICML 2017). Its confidence is its share "
    "with those of labels that the truth cannot tell apart from it; rows whose true class has no label are left out."
)


def calibrate(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    truth: str,
    *,
    model: Whisperer,
    labels: Labels | None = None,
    mapping: Mapping[str, str | Sequence[str]] | None = None,
    templates: str | Sequence[str] = "{}",
    normalize: Normalize | None = None,
    background: Literal["section", "training"] = "section",
    modality: Literal["image", "gene"] | None = None,
    embedding_key: str | None = None,
    table_key: str | None = None,
    layer: str | None = None,
    library_key: str | None = None,
    batch_size: int | None = None,
    device: str | None = None,
) -> pd.DataFrame:
    """Fit the temperature at which the shares of a model's labels are most likely to be right.

    The temperature is the one of highest likelihood on rows with known labels (Guo et al., ICML 2017). It changes no order
    of labels, only how sure a row is. It is kept in ``model.config["annotation"]``, is saved with the model, and is used by
    :func:`zero_shot_annotate` for the same normalisation. It holds for tissue and labels like those it was fitted on; measure it
    on other sections with :func:`evaluate_calibration`.

    Parameters
    ----------
    data
        One object or several with known labels, of patients that the model was not trained on.
    truth
        Column of ``.obs`` with true classes (NaN: unknown, left out), or slot of ``.obsm`` with their shares, of which the largest
        counts; as in :func:`evaluate_annotation`.
    model
        The model. Changed in place: ``model.config["annotation"]`` gets "normalize", "background", "temperature", "ece",
        "ece_before" (at the temperature of the training), "n" and "labels".
    labels, templates, modality, embedding_key, table_key, layer, library_key, batch_size, device
        As in :func:`zero_shot_annotate`.
    mapping
        From true class to label, or to several that it covers, whose shares are summed. By equal names if not given.
    normalize
        "none" or "centre". Not given: whichever makes the known labels more likely.
    background
        What "centre" takes off.

    Warns
    -----
    SpatialWhispererWarning
        If ``.obs["patient"]`` holds a patient that the model was trained on.

    Returns
    -------
    DataFrame, one row per normalisation that was tried: ``temperature`` and ``temperature_before``, ``nll`` and ``nll_before`` (mean
    negative log-likelihood), ``ece`` and ``ece_before`` (expected calibration error), ``accuracy``, ``n`` rows, and ``chosen``.
    ``.attrs["convention"]`` states what the error is. Figures are those of the rows that the temperature was fitted on.

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
    >>> sections, reference = sw.datasets.simulate_sections(2, 80, n_genes=100, n_reference_cells=200, random_state=0)
    >>> model = sw.tl.train([sections["P1"], reference], max_epochs=20, tile_px=64)
    >>> labels = dict(zip(reference.obs["cell_type"], reference.obs["text"]))
    >>> report = sw.tl.calibrate(sections["P2"], "cell_type", model=model, labels=labels)
    >>> bool((report["nll"] <= report["nll_before"] + 1e-9).all())
    True
    """
    if not hasattr(model, "project") or not hasattr(model, "config"):
        raise TypeError(
            f"model must be an open model, which keeps the temperature, not {type(model).__name__}. Open it first: "
            "model = sw.models.Whisperer.load(…), and save it afterwards: model.save(…)."
        )
    if not isinstance(truth, str):
        raise TypeError(f"truth must be the name of a column or slot, not {type(truth).__name__}.")
    if normalize not in (None, "none", "softmax", "centre"):
        raise ValueError(f"normalize must be 'none', 'softmax', 'centre' or None, not {normalize!r}.")
    if background not in ("section", "training"):
        raise ValueError(f"background must be 'section' or 'training' here, not {background!r}.")
    classes, prompts = check_labels(labels, model)
    text = class_embeddings(model, fill_templates(prompts, templates), device=device)
    options = {"table_key": table_key, "layer": layer, "library_key": library_key}
    parts = [_embedded(d, truth, model, modality, embedding_key, batch_size, device, options) for d in as_list(data)]
    true = list(dict.fromkeys(c for part in parts for c in part.classes))
    sets = label_sets(true, classes, mapping)
    rows = {}
    for kind in ("none", "centre") if normalize is None else (normalize,):
        plan = [_plan(model, kind, background, part.side) for part in parts]
        rows[kind] = _fitted(parts, plan, text, sets, classes, 1 / model.scale)
    _warn_taught(parts, model)
    report = pd.DataFrame.from_dict(rows, orient="index")
    best = str(report["nll"].idxmin())
    report["chosen"] = report.index == best
    report.index.name = "normalize"
    report.attrs["convention"] = CONVENTION
    kept = {k: float(report.loc[best, k]) for k in ("temperature", "ece", "ece_before")}
    model.config["annotation"] = {
        **model.config.get("annotation", {}),
        "normalize": best,
        "background": background if best == "centre" else None,
        **kept,
        "n": int(report.loc[best, "n"]),
        "labels": classes,
    }
    return report


def _warn_taught(parts: Sequence[_Part], model: Whisperer) -> None:
    taught = {p for part in parts for p in part.patients} & set(model.config.get("training", {}).get("groups", ()))
    if taught:
        warn(
            f"Rows of {found(sorted(taught))} taught this model, which is surer of them than of new patients: the temperature will "
            "be too low. Calibrate on patients that were not in training."
        )


class _Part(NamedTuple):
    z: np.ndarray
    sections: np.ndarray
    dominant: np.ndarray
    classes: list[str]
    side: str | None
    patients: set[str]


def _embedded(
    data: Any, truth: str, model: Whisperer, modality: Any, key: Any, batch_size: Any, device: Any, options: Any
) -> _Part:
    table = get_table(data, options["table_key"])
    known = known_truth(table, truth)
    side = side_of(data, table, model, modality, key)
    z = row_embeddings(data, table, model, side, key, batch_size, device, False, options)
    check_any_row(z, side, key)
    where = {k: options[k] for k in ("table_key", "library_key")}
    patients = set(table.obs["patient"].astype(str)) if "patient" in table.obs else set()
    return _Part(z, section_codes(data, **where), known.dominant, list(known.shares), side, patients)


def _plan(model: Whisperer, normalize: str, background: str, side: str | None) -> scoring.Correction:
    return scoring.correction(model, normalize, background if normalize == "centre" else None, modality=side)


def _fitted(
    parts: Sequence[_Part],
    plan: Sequence[scoring.Correction],
    text: np.ndarray,
    sets: Mapping[str, Sequence[str]],
    classes: Sequence[str],
    before: float,
) -> dict[str, float]:
    """Temperature and figures of one normalisation."""
    # shares say the same as the cosines they come from
    how = [p._replace(normalize="none") if p.normalize == "softmax" else p for p in plan]
    scores = np.concatenate(
        [scoring.score_rows(p.z, text, sections=p.sections, how=h)[0] for p, h in zip(parts, how, strict=True)]
    ).astype(np.float64)
    dominant = np.concatenate([p.dominant for p in parts])
    right = right_labels(dominant, sets, classes)
    take = np.isfinite(scores).all(axis=1) & right.any(axis=1)
    if not take.any():
        raise ValueError(
            f"No row has both scores and a known truth among {found(sets)} ({int(right.any(axis=1).sum())} rows have a known truth)."
        )
    kinds = list(dict.fromkeys(dominant[take]))
    if len(kinds) < 2:
        raise ValueError(
            f"All {int(take.sum())} rows with a known truth are {kinds[0]!r}; a temperature needs rows of two classes."
        )
    scores, right = scores[take], right[take]
    together = indistinct(sets, classes)
    t = fit_temperature(scores, right)
    ece, accuracy = _calibration(scores, right, together, t)
    ece_before, _ = _calibration(scores, right, together, before)
    return {
        "temperature": t,
        "temperature_before": before,
        "nll": negative_log_likelihood(scores, right, t),
        "nll_before": negative_log_likelihood(scores, right, before),
        "ece": ece,
        "ece_before": ece_before,
        "accuracy": accuracy,
        "n": len(scores),
    }


def _calibration(scores: np.ndarray, right: np.ndarray, together: np.ndarray, t: float) -> tuple[float, float]:
    rows = judged(shares(scores, t), right, together)
    return expected_calibration_error(rows.summed, rows.correct), float(rows.correct.mean())


class Judged(NamedTuple):
    """The best label of each row.

    Attributes
    ----------
    confidence
        Its share.
    summed
        Its share together with those of the labels that the truth cannot tell apart from it.
    correct
        Whether it is right.
    """

    confidence: np.ndarray
    summed: np.ndarray
    correct: np.ndarray


def judged(share: np.ndarray, right: np.ndarray, together: np.ndarray) -> Judged:
    """Judge the best label of each row.

    Parameters
    ----------
    share, right
        Shares of the labels, and which are right; shape (n, labels).
    together
        Which label belongs to which part that the truth cannot divide, Boolean of shape (labels, parts).
    """
    rows, best = np.arange(len(share)), share.argmax(axis=1)
    summed = share @ together.astype(share.dtype)
    return Judged(share[rows, best], summed[rows, together.argmax(axis=1)[best]], right[rows, best])
