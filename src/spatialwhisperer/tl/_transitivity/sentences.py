"""What each quantity of the transitivity report means at its value, in one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spatialwhisperer.tl._annotation.range.training_range import SectionRange

NO_PAIRS = {
    "expression": (
        "these data hold no expression, so that the labels from the image cannot be compared with labels from it; known labels of "
        "some rows would help (sw.tl.evaluate_annotation)."
    ),
    "image": "these data hold no image (or the model reads none), so that only the expression can be assessed.",
}
NO_TEXT_ROWS = "the model was trained on no expression with captions that could be compared with."
NO_CLASS = (
    "no label is the best one by expression of at least ten rows in three independent patches of the tissue, and not of all but so many, "
    "so that no AUROC is defined."
)
CENTRED = (
    "The same after the mean of each of the two is subtracted, which removes a constant shift of platform or protocol."
)

AGREES, HINTS = 0.7, 0.55
"""Consistency from which labels by image and expression agree, and from which they agree weakly."""


def consistency(value: float, ends: tuple[float, float], n: int, of: int) -> str:
    """Agreement of labels by image with labels by expression."""
    over = f"({n} of {of} labels could be assessed)" if n < of else f"(all {of} labels)"
    if np.isnan(ends[0]) and value < 1:
        return f"Too few independent patches of the labels for an interval {over}: agreement cannot be told from chance (.50)."
    if ends[0] <= 0.5 or value < HINTS:
        return f"Labels from the image agree with labels from the expression no better than by chance (.50) {over}: do not use them."
    if value < AGREES:
        return f"Labels from the image agree weakly with labels from the expression {over}: use the scores, not single labels."
    return (
        f"Labels from the image rank the spots as labels from their expression do {over}; whether the latter are correct cannot be "
        "seen here."
    )


def coverage(value: float, details: Mapping[str, Any]) -> str:
    """Fraction of the rows that are similar to training rows."""
    near, alike = details["within_reach"], details.get("expression_alike")
    why = f"{near:.0%} are as near to training rows as these are to each other"
    if alike is not None:
        why += f", {alike:.0%} have similar counts"
    why = f"{why}; 95 % is the value of training tissue"
    if value >= 0.8:
        return f"The expression is similar to the expression with captions in training ({why})."
    if value >= 0.5:
        return f"Part of the expression differs from the expression with captions in training: labels are extrapolated there ({why})."
    return f"Most of the expression differs from the expression with captions in training: do not expect correct labels ({why})."


REACH = (
    "Fraction of rows that are nearer to a training row than its fifth neighbour (a strict criterion in many dimensions, and "
    "insensitive to what the gene encoder ignores; coverage corrects for both)."
)


def cross_entropy(value: float, usual: np.ndarray) -> str:
    """Excess cross-entropy of the counts under the best-fitting caption."""
    low, high = np.quantile(usual, [0.05, 0.95])
    how = "as well as" if value <= high else "worse than"
    return (
        f"The expression profile of the best-fitting caption fits the counts {how} it fits training rows whose patient is left out "
        f"(nats per count: {low:.1f} to {high:.1f})."
    )


def kappa(same: float) -> str:
    """Agreement of the best labels."""
    return f"{same:.0%} of the rows have the same best label by image and by expression; 0 is chance, 1 full agreement."


def link(error: float, a: str, b: str) -> str:
    """Mean 1 - cosine of two modalities."""
    angle = np.degrees(np.arccos(np.clip(1 - error, -1, 1)))
    return f"{a.capitalize()} and {b} of a row are {angle:.0f}° apart (90°: unrelated)."


def rank(value: float, ends: tuple[float, float]) -> str:
    """How often the own expression is nearer than that of another row."""
    if not ends[0] > 0.5:
        return "The image is no nearer to its own expression than by chance (.50): check that image and spots are registered."
    return f"A tile is nearer to its own expression than to that of another row of the section in {value:.0%} of the cases (50 % by chance)."


def recall(value: float, chance: float) -> str:
    """Own expression among the ten nearest."""
    return f"{value:.0%} of the tiles have their own expression among the ten nearest of the section; {chance:.0%} by chance."


def caption_rank(value: float, n: int) -> str:
    """Rank of the own caption."""
    return f"A training row is nearer to its own caption than to {value:.0%} of the other {n - 1}."


def bridge(value: float, usual: float) -> str:
    """Distance to the nearest training row."""
    return (
        f"The nearest training row with a caption is {value / max(usual, 1e-9):.1f} times as far as training rows are from the nearest "
        "one of another patient."
    )


def separable(value: float, name: str) -> str:
    """Held-out two-sample classifier."""
    what = {
        "bridge_auroc": "A linear classifier",
        "bridge_auroc_knn": "A nearest-neighbour classifier",
    }[name]
    how = "hardly distinguishes" if value < 0.65 else "partly distinguishes" if value < 0.9 else "distinguishes"
    return f"{what} {how} this expression from that of the training (.50: alike, 1: apart)."


def mixing(value: float) -> str:
    """Neighbours from the other sample."""
    return f"Training rows are {value:.2f} times as frequent among the nearest rows as in a random arrangement (1: mixed, 0: apart)."


def mmd(p: float) -> str:
    """Permutation test."""
    if p > 0.05:
        return "No difference between this expression and that of the training was found."
    return (
        "This expression and that of the training differ (the test assumes independent spots, so that p is too small)."
    )


def margin(a: str, b: str, together: Sequence[Sequence[str]]) -> str:
    """Nearest labels."""
    text = f"{a!r} and {b!r} are the nearest labels (distance; 2 at most)"
    if together:
        pairs = ", ".join(f"{x!r} with {y!r}" for x, y in together[:3])
        more = f" and {len(together) - 3} more pairs" if len(together) > 3 else ""
        return f"{text}; labels with highly correlated scores cannot be distinguished on these rows: {pairs}{more}."
    return f"{text}; no two labels have highly correlated scores on these rows."


def hub(name: str, fraction: float, n: int) -> str:
    """Most frequent label."""
    if fraction > max(0.5, 2 / n):
        return f"{name!r} is the best raw score of {fraction:.0%} of the rows: subtract its offset with normalize='centre'."
    return f"{name!r} is the best raw score most often; no label is the best of most rows."


def image_coverage(value: float) -> str:
    """Fraction of tiles that are similar to training tiles."""
    how = "similar to" if value >= 0.5 else "unlike"
    return (
        f"Most tiles are {how} those of the training: {value:.0%} are near a training tile, in standardised features."
    )


def image_distance(one: SectionRange) -> str:
    """Distance of the mean features of the section that differs most."""
    where = f"section {one.name!r}: "
    if one.distance > one.limit:  # type: ignore[operator]
        return f"Colour and texture differ from every training section ({where}up to {one.limit:.1f} is usual)."
    return f"Colour and texture are within the usual range ({where}up to {one.limit:.1f} standard deviations)."


def image_scale(one: SectionRange) -> str:
    """Scale of the section that differs most."""
    from spatialwhisperer.tl._annotation.range.training_range import SAME_MPP

    if 1 / SAME_MPP <= one.factor <= SAME_MPP:  # type: ignore[operator]
        return f"Tiles are read at the scale of the training images ({one.mpp:.2g} µm per pixel)."
    how = "coarser" if one.factor > 1 else "finer"  # type: ignore[operator]
    return f"Section {one.name!r} is read {how} than any training image ({one.mpp:.2g} µm per pixel)."
