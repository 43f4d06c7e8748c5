"""The estimates of the transitivity report, one group after the other, each with an interval and a sentence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialwhisperer.statistics import bridge
from spatialwhisperer.statistics import transitivity as tr
from spatialwhisperer.statistics.intervals.auroc import auroc, placements
from spatialwhisperer.statistics.intervals.uncertainty import Uncertainty, over_units
from spatialwhisperer.tl._transitivity import sentences as words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialwhisperer.models.reference import Reference
    from spatialwhisperer.statistics.intervals.spatial import SpatialErrors
    from spatialwhisperer.tl._annotation.range.training_range import SectionRange

SAMPLE = 500
"""Rows of either sample in a two-sample test."""

REACH = 0.95
"""Fraction of training rows that count as similar to the training rows of other groups."""

SHOWN = 2000

ANY, COSINE_ERROR, KAPPA, RATIO = (-np.inf, np.inf), (0.0, 2.0), (-1.0, 1.0), (0.0, np.inf)
"""Values that a quantity can have; a cosine error is one minus a cosine."""


@dataclass(frozen=True)
class Rows:
    """Rows of the user's data, complete in every modality that there is.

    Attributes
    ----------
    image, gene
        Unit embeddings, shape (n, u), or ``None``.
    sections, blocks
        Section of each row, and block of neighbouring rows that are held out together.
    errors
        Uncertainty of estimates from these rows.
    cross_entropy
        Excess cross-entropy of the counts under known profiles (:mod:`~spatialwhisperer.statistics.cross_entropy`), or ``None``.
    """

    image: np.ndarray | None
    gene: np.ndarray | None
    sections: np.ndarray
    blocks: np.ndarray
    errors: SpatialErrors
    cross_entropy: np.ndarray | None = None

    def mean(
        self, values: np.ndarray, *, bounded: bool = False, within: tuple[float, float] = ANY
    ) -> tuple[float, float]:
        """Interval of the mean of the values that are known, shape (n,); bounded ones lie between 0 and 1."""
        found = self.errors.fraction(values) if values.dtype == bool else self.errors.mean(values)
        return found.interval(float(np.nanmean(values)), bounded=bounded or values.dtype == bool, within=within)


@dataclass
class Report:
    """Quantities in the order in which they are added, and their details."""

    classes: list[str]
    quantities: dict[str, tuple[float, float, float, str]] = field(default_factory=dict)
    attrs: dict[str, Any] = field(default_factory=lambda: {"untestable": [], "range": []})

    def add(self, name: str, value: Any, meaning: str, ends: tuple[float, float] = (np.nan, np.nan)) -> None:
        """Add a quantity with its interval."""
        self.quantities[name] = (float(value), float(ends[0]), float(ends[1]), meaning)

    def untestable(self, name: str, reason: str) -> None:
        """Add a quantity that cannot be estimated on these data."""
        sentence = f"Untestable: {reason}"
        self.add(name, np.nan, sentence)
        if sentence not in self.attrs["untestable"]:
            self.attrs["untestable"].append(sentence)

    def frame(self) -> pd.DataFrame:
        """The report as a table."""
        out = pd.DataFrame.from_dict(self.quantities, orient="index", columns=["value", "low", "high", "meaning"])
        out.index.name = "quantity"
        out.attrs.update({"classes": self.classes} | self.attrs)
        return out


def _known(reference: Reference) -> bool:
    """Whether the reference holds rows with captions to compare expression with."""
    return reference.has("text_bridge", "caption") and len(reference.arrays["text_bridge"]) >= 2


# ------------------------------------------------------------------------------------------------- headlines


def add_headlines(out: Report, rows: Rows, reference: Reference, text: np.ndarray) -> None:
    """Agreement of image and expression on the labels, and coverage of the expression."""
    if rows.image is None or rows.gene is None:
        missing = "expression" if rows.gene is None else "image"
        out.untestable("transitive_consistency", words.NO_PAIRS[missing])
    else:
        _consistency(out, rows, rows.image, rows.gene, text)
    if rows.gene is None or not _known(reference):
        out.untestable("coverage", words.NO_PAIRS["expression"] if rows.gene is None else words.NO_TEXT_ROWS)
    else:
        _coverage(out, rows, rows.gene, reference)
    if rows.image is not None and rows.gene is not None:
        _kappa(out, rows, rows.image, rows.gene, text)


def _coverage(out: Report, rows: Rows, gene: np.ndarray, reference: Reference) -> None:
    """Fraction of rows that are as near to training rows, with as low a cross-entropy, as 95 % of training rows to other groups."""
    known = reference.unit("text_bridge")
    reach = np.quantile(bridge.to_other_groups(known, reference.arrays["text_group"]), REACH)
    covered = bridge.distances(gene, known).min(axis=1) <= reach
    out.attrs["within_reach"] = float(covered.mean())
    if rows.cross_entropy is not None:
        limit = float(np.quantile(reference.arrays["excess_cross_entropy"].astype(np.float64), REACH))
        # a row with too few counts has no cross-entropy and does not count as similar
        alike = np.nan_to_num(rows.cross_entropy, nan=np.inf) <= limit
        out.attrs["expression_alike"] = float(alike.mean())
        covered = covered & alike
    value = covered.mean()
    out.add("coverage", value, words.coverage(value, out.attrs), rows.mean(covered))


def _consistency(out: Report, rows: Rows, image: np.ndarray, gene: np.ndarray, text: np.ndarray) -> None:
    by_image, by_gene = (tr.centred_scores(z, text, rows.sections) for z in (image, gene))
    best = by_gene.argmax(axis=1)
    each = tr.class_aurocs(by_image, best)
    found = [rows.errors.auroc(by_image[:, c], best == c) for c in range(len(text))]
    # a label that lies in one or two places only has an AUROC by accident
    each = np.array([a if u.enough else np.nan for a, u in zip(each, found, strict=True)])
    ends = [u.interval(a, bounded=True) for a, u in zip(each, found, strict=True)]
    out.attrs["class_auroc"] = [float(v) for v in each]
    out.attrs["class_low"], out.attrs["class_high"] = ([float(e[i]) for e in ends] for i in (0, 1))
    out.attrs["class_rows"] = np.bincount(best, minlength=len(text)).tolist()
    out.attrs["class_patches"] = [round(float(u.parts), 1) for u in found]
    if not np.isfinite(each).any():
        out.untestable("transitive_consistency", words.NO_CLASS)
        return
    judged = np.flatnonzero(np.isfinite(each))
    value = float(np.nanmean(each))
    low_high = rows.errors.macro_auroc(by_image, best, judged).interval(value, bounded=True)
    meaning = words.consistency(value, low_high, len(judged), len(text))
    out.add("transitive_consistency", value, meaning, low_high)


def _kappa(out: Report, rows: Rows, image: np.ndarray, gene: np.ndarray, text: np.ndarray) -> None:
    a, b = (tr.centred_scores(z, text, rows.sections).argmax(axis=1) for z in (image, gene))
    value, moved = tr.kappa(a, b, len(text))
    same = float((a == b).mean())
    ends = rows.errors.labels(moved, b).interval(value, within=KAPPA) if np.isfinite(value) else (np.nan, np.nan)
    out.add("label_kappa", value, words.kappa(same), ends)


# ------------------------------------------------------------------------------------------------- links


def add_links(out: Report, rows: Rows) -> None:
    """The image–gene link on the user's own pairs."""
    if rows.image is None or rows.gene is None:
        return
    for name, a, b in (
        ("image_gene_error", rows.image, rows.gene),
        ("image_gene_error_centred", bridge.centred(rows.image), bridge.centred(rows.gene)),
    ):
        errors = tr.link_errors(a, b)
        out.add(
            name,
            errors.mean(),
            words.link(errors.mean(), "image", "expression"),
            rows.mean(errors, within=COSINE_ERROR),
        )
    ranked = tr.retrieval(bridge.centred(rows.image), bridge.centred(rows.gene), rows.sections)
    value, ends = np.nanmean(ranked.above), rows.mean(ranked.above, bounded=True)
    out.add("image_gene_rank", value, words.rank(value, ends), ends)
    value, chance = np.nanmean(ranked.found), np.nanmean(ranked.chance)
    out.add("image_gene_recall_10", value, words.recall(value, chance), rows.mean(ranked.found, bounded=True))


def add_gene_text(out: Report, reference: Reference) -> None:
    """The gene–text link on training rows; its intervals are over their patients."""
    if not _known(reference):
        return
    gene, caption = reference.unit("text_bridge"), reference.unit("caption")
    index, patients = reference.arrays["text_caption"], reference.arrays["text_group"]
    errors = tr.link_errors(gene, caption[index])
    ends = over_units(errors, patients).interval(errors.mean(), within=COSINE_ERROR)
    out.add("gene_text_error", errors.mean(), words.link(errors.mean(), "expression", "caption"), ends)
    if len(caption) > 1:
        ranks = tr.caption_ranks(gene, caption, index)
        ends = over_units(ranks, patients).interval(ranks.mean(), bounded=True)
        out.add("gene_text_rank", ranks.mean(), words.caption_rank(ranks.mean(), len(caption)), ends)


# ------------------------------------------------------------------------------------------------- bridge


def add_bridge(out: Report, rows: Rows, reference: Reference, random_state: int) -> None:
    """How similar the user's expression is to that of the training rows with captions."""
    if rows.gene is None or not _known(reference):
        return
    known = reference.unit("text_bridge")
    plain = bridge.overlap(rows.gene, known)
    own = bridge.to_other_groups(known, reference.arrays["text_group"]) ** 2 / 2
    out.attrs["bridge"] = {"data": _some(plain.error), "training": _some(own)}
    value = plain.error.mean()
    out.add("bridge_error", value, words.bridge(value, float(own.mean())), rows.mean(plain.error, within=COSINE_ERROR))
    centred = bridge.overlap(bridge.centred(rows.gene), bridge.centred(known))
    out.add("bridge_error_centred", centred.error.mean(), words.CENTRED, rows.mean(centred.error, within=COSINE_ERROR))
    _two_samples(out, rows, known, reference.arrays["text_group"], random_state)
    out.add("bridge_reach", plain.covered.mean(), words.REACH, rows.mean(plain.covered))
    out.add("bridge_reach_centred", centred.covered.mean(), words.CENTRED, rows.mean(centred.covered))
    if rows.cross_entropy is not None and np.isfinite(rows.cross_entropy).any():
        usual = reference.arrays["excess_cross_entropy"].astype(np.float64)
        value = np.nanmean(rows.cross_entropy)
        out.add("expression_cross_entropy", value, words.cross_entropy(value, usual), rows.mean(rows.cross_entropy))


def _some(values: np.ndarray) -> list[float]:
    """At most `SHOWN` values, evenly from the sorted ones."""
    ordered = np.sort(values)
    step = max(1, -(-len(ordered) // SHOWN))
    return [round(float(v), 5) for v in ordered[::step]]


def _two_samples(out: Report, rows: Rows, known: np.ndarray, patients: np.ndarray, random_state: int) -> None:
    """Classifiers, mixing and discrepancy in a balanced sample."""
    first, second = bridge.balanced(len(rows.gene), len(known), SAMPLE, random_state)  # type: ignore[arg-type]
    own = np.r_[np.ones(len(first), bool), np.zeros(len(second), bool)]
    a, b = rows.gene[first], known[second]  # type: ignore[index]
    # rows of a model with one training patient are held out one by one
    units = patients if len(np.unique(patients[second])) > 1 else np.arange(len(patients))
    blocks = np.r_[rows.blocks[first], units[second] + rows.blocks.max() + 1]
    plain = np.vstack([a, b])
    for name, method in (("bridge_auroc", "logistic"), ("bridge_auroc_knn", "knn")):
        scores = bridge.separability(plain, own, blocks, method, random_state=random_state)
        value = auroc(scores, own)
        placed = placements(scores, own) - value
        error = _of_sample(rows, first, placed[own]) + over_units(placed[~own], patients[second])
        out.add(name, value, words.separable(float(value), name), error.interval(value, bounded=True))
    near = bridge.mixing(plain, own)
    ends = _of_sample(rows, first, near).interval(near.mean(), within=RATIO)
    out.add("bridge_mixing", near.mean(), words.mixing(near.mean()), ends)
    statistic, p = bridge.mmd(plain, own, random_state=random_state)
    out.attrs["bridge_mmd"] = statistic
    out.add("bridge_mmd_p", p, words.mmd(p))


def _of_sample(rows: Rows, taken: np.ndarray, values: np.ndarray) -> Uncertainty:
    """Uncertainty of the mean of values of some of the rows."""
    whole = np.full(len(rows.sections), np.nan)
    whole[taken] = values
    return rows.errors.mean(whole)


# ------------------------------------------------------------------------------------------------- prompts, chain


def add_prompts(out: Report, rows: Rows, text: np.ndarray) -> None:
    """Distances between the labels, and how often the most frequent one is the best."""
    z = rows.image if rows.image is not None else rows.gene
    labels = tr.prompts(text, z)  # type: ignore[arg-type]
    names = out.classes
    out.attrs["prompt_distance"] = labels.distance.round(5).tolist()
    out.attrs["prompt_margin"] = [float(v) for v in labels.margin]
    out.attrs["prompt_sink"] = [float(v) for v in labels.sink]
    out.attrs["prompt_fraction"] = [float(v) for v in labels.fraction]
    out.attrs["prompts_together"] = [[names[i], names[j]] for i, j in labels.together()]
    i, j = divmod(int((labels.distance + 3 * np.eye(len(text))).argmin()), len(text))
    out.add("prompt_margin", labels.margin.min(), words.margin(names[i], names[j], out.attrs["prompts_together"]))
    hub = int(labels.fraction.argmax())
    scores = z @ text.T
    taken = scores.argmax(axis=1) == hub
    out.add(
        "largest_hub",
        labels.fraction[hub],
        words.hub(names[hub], labels.fraction[hub], len(names)),
        rows.mean(taken),
    )


def add_chain(out: Report, rows: Rows, reference: Reference) -> None:
    """How far the image is from the caption of the training row that is nearest to its expression."""
    if rows.image is None or rows.gene is None or not _known(reference):
        return
    nearest = bridge.overlap(rows.gene, reference.unit("text_bridge")).nearest
    caption = reference.unit("caption")[reference.arrays["text_caption"][nearest]]
    chain = tr.link_errors(rows.image, caption)
    out.add(
        "chain_error", chain.mean(), words.link(chain.mean(), "image", "caption"), rows.mean(chain, within=COSINE_ERROR)
    )


# ------------------------------------------------------------------------------------------------- image


def add_image(
    out: Report, rows: Rows, reference: Reference, features: np.ndarray | None, ranges: Sequence[SectionRange]
) -> None:
    """How similar the images are to those of the training."""
    if features is not None and reference.has("feature_sample"):
        covered = bridge.overlap(
            features.astype(np.float64), reference.arrays["feature_sample"].astype(np.float64)
        ).covered
        value = covered.mean()
        out.add("image_coverage", value, words.image_coverage(value), rows.mean(covered))
    far = [r for r in ranges if r.distance is not None]
    if far:
        worst = max(far, key=lambda r: r.distance / r.limit)  # type: ignore[operator]
        out.add("image_distance", worst.distance, words.image_distance(worst))
    scaled = [r for r in ranges if r.factor is not None]
    if scaled:
        worst = max(scaled, key=lambda r: abs(np.log(r.factor)))  # type: ignore[arg-type]
        out.add("image_scale", worst.factor, words.image_scale(worst))
