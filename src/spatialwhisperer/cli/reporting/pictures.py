"""Pictures for a report: each a file of its own, so that a narrow window can show them one below the other."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from spatialwhisperer import _keys
from spatialwhisperer._access.elements.colours import classes_of
from spatialwhisperer.cli.reporting.facts import percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

    from spatialwhisperer.cli.reporting.facts import Facts

_DPI = 160
_QUALITY = 90
_MOST = 24
"""Scores of at most so many labels are drawn."""


@dataclass(frozen=True)
class Picture:
    """A picture with its words.

    Attributes
    ----------
    title
        Heading.
    alt
        What is seen, for a reader who does not see it.
    content
        The file.
    kind
        "slide", "labels" or "score".
    """

    title: str
    alt: str
    content: bytes
    kind: str

    @property
    def media(self) -> str:
        """Media type of the file."""
        return "image/png" if self.kind == "labels" else "image/jpeg"


def draw(data: AnnData | SpatialData, facts: Facts, *, key: str, opening: Mapping[str, Any]) -> list[Picture]:
    """Draw the slide, its labels and the score of each label.

    Parameters
    ----------
    data
        The annotated object.
    facts
        What is known of it.
    key
        Column of the labels.
    opening
        How the object is opened.
    """
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    from spatialwhisperer.pl import annotation, scores

    classes = classes_of(facts.table, key)[:_MOST]
    try:
        # names come from files: a $ in one is no formula
        with mpl.rc_context({"text.parse_math": False, "figure.dpi": _DPI}):
            both = annotation(data, key=key, sections=[cast("str", facts.section)], **opening)
            slide, labels = _cut(both)
            each = _cut(scores(data, key=key, classes=classes, section=facts.section, **opening)[1:])
    finally:
        plt.close("all")
    named = [f"{label.name} {percent(label.n, facts.n_labelled)}" for label in facts.labels if label.n]
    found = f"Of the rows with a label: {', '.join(named)}." if named else "No row has a label."
    return [
        Picture("Slide", f"The H&E slide {facts.file}.", _jpeg(slide), "slide"),
        Picture(
            "Labels. The fainter a mark, the lower its confidence.",
            f"The labels over the slide, each in its colour. {found}",
            _png(labels),
            "labels",
        ),
        *(_score(name, pixels, _values(facts.table, key, name)) for name, pixels in zip(classes, each, strict=True)),
    ]


def _values(table: AnnData, key: str, name: str) -> np.ndarray:
    values = np.asarray(table.obsm[_keys.scores(key)])[:, classes_of(table, key).index(name)]
    return values[np.isfinite(values)]


def _score(name: str, pixels: np.ndarray, values: np.ndarray) -> Picture:
    low, high = np.percentile(values, [2, 98]) if len(values) else (float("nan"), float("nan"))
    alt = f"Score of {name} over the slide. The yellower, the higher; most scores lie between {low:.2f} and {high:.2f}."
    return Picture(name, alt, _jpeg(pixels), "score")


def _cut(axes: Sequence[Axes]) -> list[np.ndarray]:
    """The pixels of each of the axes of one figure, with its colour bar, and without title and legend."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.transforms import Bbox

    figure = cast("Figure", axes[0].figure)
    for ax in axes:
        ax.set_title("")
        if (legend := ax.get_legend()) is not None:
            legend.remove()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    bars: list[list[Axes]] = [[] for _ in axes]
    for ax in figure.axes:
        if hasattr(ax, "_colorbar"):
            bars[_left_of(ax, axes)].append(ax)
    out = []
    for ax, beside in zip(axes, bars, strict=True):
        boxes = [box for one in (ax, *beside) if (box := one.get_tightbbox(canvas.get_renderer())) is not None]
        box = Bbox.union(boxes)
        left, right = int(max(box.x0, 0)), int(np.ceil(box.x1))
        top, bottom = int(max(len(pixels) - box.y1, 0)), int(np.ceil(len(pixels) - box.y0))
        out.append(pixels[top:bottom, left:right])
    return out


def _left_of(bar: Axes, axes: Sequence[Axes]) -> int:
    """Which of the axes a colour bar stands beside."""
    place = bar.get_position()
    distance = [np.hypot(place.x0 - own.x1, place.y0 - own.y0) for own in (ax.get_position() for ax in axes)]
    return int(np.argmin(distance))


def _png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    # of all colours: a label of few marks would take the colour of another one
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return file.getvalue()


def _jpeg(pixels: np.ndarray) -> bytes:
    """A third of the size of a PNG. Colours keep the resolution of the brightness, so that small marks do not run."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=_QUALITY, subsampling=0)
    return file.getvalue()
