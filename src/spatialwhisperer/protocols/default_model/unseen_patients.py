"""Sections of a patient, scored by a model of the other patients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer import _keys
from spatialwhisperer._messages import inform
from spatialwhisperer.protocols import captions
from spatialwhisperer.protocols.annotation.scores import aurocs
from spatialwhisperer.protocols.default_model.labels import LABELS, PATHOLOGIST, TISSUE
from spatialwhisperer.tl.evaluation.rows.truth import correct_labels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spatialdata import SpatialData

    from spatialwhisperer.models import Whisperer
    from spatialwhisperer.protocols.default_model.recipe import TrainingData, TrainingRecipe
    from spatialwhisperer.protocols.wordings.generate import Wording

PROMPTS = {name: list(label.prompts) for name, label in LABELS.items()}
REGION_PROMPTS = {name: list(region.prompts) for name, region in TISSUE.items()}
N_EXAMPLES, N_DRAWS = 5, 5
_MIN_ROWS = 5


@dataclass(frozen=True)
class HeldOut:
    """A section scored by a model that has not seen its patient.

    Attributes
    ----------
    section
        Its name.
    auroc
        AUROC of presence by class.
    scores, correct
        Scores of the regions, and which region is correct, in the rows where it is known; shape (n, regions).
    positions
        Of these rows, in full-resolution pixels, shape (n, 2).
    agreement
        Of labels from the image with labels from the expression of the same rows, by measure.
    few_shot
        Macro AUROC and balanced accuracy of the regions in rows that are no examples, from words alone and with examples.
    row_agreement
        Agreement of image and genes on the region, shape (n,).
    wording_sd
        Standard deviation of the score of each region over its names, shape (n, regions); NaN where it has one.
    """

    section: str
    auroc: pd.DataFrame
    scores: np.ndarray
    correct: np.ndarray
    positions: np.ndarray
    agreement: dict[str, float]
    few_shot: dict[str, float]
    row_agreement: np.ndarray
    wording_sd: np.ndarray


def leave_patient_out(patient: str, data: TrainingData, recipe: TrainingRecipe, seed: int) -> list[HeldOut]:
    """Score the sections of a patient by a model of the others."""
    inform(f"without patient {patient}")
    model = data.fit(recipe, seed, without=patient)
    names = region_names(data.words) if recipe.wordings else REGION_PROMPTS
    return [score(n, section, model, names) for n, section in data.images.items() if n[0] == patient]


def region_names(words: Sequence[Wording]) -> dict[str, list[str]]:
    """Prompts of each region, and its other names among the wordings."""
    short = {region: captions.REGION_TARGETS[own] for own, region in PATHOLOGIST.items()}
    return {
        region: [*prompts, *(w.text for w in words if w.kind == "name" and w.target == short[region])]
        for region, prompts in REGION_PROMPTS.items()
    }


def score(name: str, section: SpatialData, model: Whisperer, names: Mapping[str, list[str]]) -> HeldOut:
    """Everything that is measured of a section."""
    table = section["table"]
    image, gene = (_scores(section, model, PROMPTS, modality).to_numpy() for modality in ("image", "gene"))
    regions = table.obs["pathologist_label"].astype(object).map(PATHOLOGIST).to_numpy()
    correct = correct_labels(regions, {name: [name] for name in TISSUE}, list(TISSUE))
    scores = _scores(section, model, REGION_PROMPTS, "image").to_numpy()
    known = correct.any(axis=1) & np.isfinite(scores).all(axis=1)
    row_agreement, wording_sd = doubt(section, model, names)
    by_class = aurocs(_scores(section, model, captions.TARGETS, "image"), captions.targets(table))
    return HeldOut(
        name,
        by_class,
        scores[known],
        correct[known],
        np.asarray(table.obsm["spatial"], float)[known],
        agreement(image, gene),
        few_shot(section, model),
        row_agreement[known],
        wording_sd[known],
    )


def doubt(section: SpatialData, model: Whisperer, names: Mapping[str, list[str]]) -> tuple[np.ndarray, np.ndarray]:
    """What else is known of the answer of each row.

    Parameters
    ----------
    section
        The section, to which the columns are added.
    model
        The model.
    names
        Other names of each region.

    Returns
    -------
    Agreement of image and genes on the region (n,), and the standard deviation of the score of each region over its names (n, regions).
    """
    for key, prompts in (("tissue", REGION_PROMPTS), ("region_names", names)):
        sw.tl.zero_shot_annotate(
            section, prompts, model=model, modality="image", normalize="none", unknown="label", key_added=key
        )
    sw.tl.agreement(section, key="tissue", model=model)
    table = section["table"]
    none = np.full((table.n_obs, len(TISSUE)), np.nan)
    return np.asarray(table.obs[_keys.agreement("tissue")]), table.obsm.get(_keys.wording_sd("region_names"), none)


def _scores(section: SpatialData, model: Whisperer, prompts: Mapping[str, list[str]], modality: str) -> pd.DataFrame:
    scores = sw.tl.zero_shot_annotate(section, prompts, model=model, modality=modality, normalize="none", inplace=False)
    if scores is None:
        raise TypeError("zero_shot_annotate(inplace=False) returns the scores.")
    return scores


def agreement(image: np.ndarray, gene: np.ndarray) -> dict[str, float]:
    """How far labels from the image agree with those from the expression.

    Parameters
    ----------
    image, gene
        Scores of the same rows and labels, shape (n, labels).

    Returns
    -------
    ``kappa``: Cohen's kappa of the best labels. ``auroc``: macro AUROC of the image scores against the best label of the expression.
    """
    from sklearn.metrics import cohen_kappa_score, roc_auc_score

    both = np.isfinite(image).all(axis=1) & np.isfinite(gene).all(axis=1)
    image, best = image[both], gene[both].argmax(axis=1)
    counts = np.bincount(best, minlength=image.shape[1])
    usable = np.flatnonzero((counts >= _MIN_ROWS) & (counts <= len(best) - _MIN_ROWS))
    return {
        "kappa": float(cohen_kappa_score(best, image.argmax(axis=1))),
        "auroc": float(np.mean([roc_auc_score(best == c, image[:, c]) for c in usable])),
    }


def few_shot(section: SpatialData, model: Whisperer) -> dict[str, float]:
    """Macro AUROC and balanced accuracy of the regions from words alone, and with a few labelled spots of each; mean over draws."""
    sw.tl.embed(section, model=model, modality="image")
    table = section["table"]
    region = table.obs["pathologist_label"].astype(object).map(captions.REGION_TARGETS)
    counts = region[np.isfinite(table.obsm["X_sw_image"]).all(axis=1)].value_counts()
    classes = [c for c in captions.TARGETS if counts.get(c, 0) >= 2 * N_EXAMPLES]
    if len(classes) < 2:
        return dict.fromkeys(("words", "examples", "words, balanced", "examples, balanced"), np.nan)
    prompts, out = {c: captions.TARGETS[c] for c in classes}, []
    for number in range(N_DRAWS):
        rng = np.random.default_rng(number)
        shown = {c: rng.choice(np.flatnonzero(region == c), N_EXAMPLES, replace=False) for c in classes}
        rest = np.setdiff1d(np.flatnonzero(region.isin(classes)), np.concatenate(list(shown.values())))
        truth = pd.DataFrame({c: pd.array(region.iloc[rest] == c, dtype="boolean") for c in classes})
        for kind, examples in (("words", None), ("examples", shown)):
            scores = sw.tl.zero_shot_annotate(
                section,
                prompts,
                model=model,
                examples=examples,
                embedding_key="X_sw_image",
                normalize="none",
                inplace=False,
            )
            if scores is None:
                raise TypeError("zero_shot_annotate(inplace=False) returns the scores.")
            out.append((kind, aurocs(scores.iloc[rest], truth)["auroc"].mean()))
            right = scores.iloc[rest].to_numpy().argmax(axis=1) == truth.to_numpy(bool).argmax(axis=1)
            recall = [right[truth[c].to_numpy(bool)].mean() for c in classes]
            out.append((f"{kind}, balanced", float(np.mean(recall))))
    means = pd.DataFrame(out, columns=["kind", "value"]).groupby("kind")["value"].mean()
    return {str(kind): float(mean) for kind, mean in means.items()}
