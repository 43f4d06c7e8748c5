"""What is known of an annotated slide: how many rows got which label, which got none and why, and how all that came about."""

from __future__ import annotations

import platform
import shlex
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access.elements.colours import classes_of, colours_of
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._provenance import recorded

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer._access.sections.section import Section
    from spatialwhisperer.cli.notes import Notes
    from spatialwhisperer.cli.slides.jobs import Job
    from spatialwhisperer.models.whisperer import Whisperer

_PACKAGES = ("spatialwhisperer", "torch", "anndata", "spatialdata", "numpy")

_REASONS = {
    "no embedding": "no whole tile on the slide could be read there",
    "section out of range": "the slide as a whole is unlike the training tissue of the model",
    "row out of range": "the tile is unlike the training tissue of the model",
}
"""What reasons of :func:`spatialwhisperer.tl.zero_shot_annotate` mean; those of a threshold name its value."""


@dataclass(frozen=True)
class Label:
    """One label and the rows that got it.

    Attributes
    ----------
    name
        The label.
    colour
        Its colour in pictures and in QuPath, ``#rrggbb``.
    n
        Number of rows.
    confidence
        Their mean confidence; NaN where there are none.
    """

    name: str
    colour: str
    n: int
    confidence: float


@dataclass(frozen=True)
class Facts:
    """What a report says of a slide.

    Attributes
    ----------
    file, result
        Names of slide and result.
    table
        The table with the labels.
    section
        The section that is drawn; ``None`` where there is no image or position.
    images
        Size, and scale with its rule, of each image, by the name of its section.
    reading
        How an image file was read, with the rule that gave its scale; ``None`` for an object.
    labels
        All labels, the most frequent first.
    n_rows
        Rows of the table.
    unlabelled
        Rows without a label, by the reason in words.
    tissue
        How each section compares with the training tissue, as :func:`spatialwhisperer.tl.tissue_range` reports it, or why that is not
        known; ``None`` where it was not asked.
    warnings, remarks
        What the package said.
    model
        The model in words.
    parameters, run, versions
        Name and value of what shaped the result: parameters of the annotation, the command, versions.
    """

    file: str
    result: str
    table: AnnData
    section: str | None
    images: Mapping[str, str]
    reading: str | None
    labels: tuple[Label, ...]
    n_rows: int
    unlabelled: Mapping[str, int]
    tissue: pd.DataFrame | str | None
    warnings: tuple[str, ...]
    remarks: tuple[str, ...]
    model: Mapping[str, str]
    parameters: Mapping[str, str]
    run: Mapping[str, str]
    versions: Mapping[str, str]

    @classmethod
    def of(
        cls,
        data: AnnData | SpatialData,
        job: Job,
        options: Namespace,
        model: Whisperer,
        notes: Notes,
        opening: Mapping[str, Any],
        tissue: pd.DataFrame | str | None = None,
    ) -> Facts:
        """Gather the facts of an annotated object.

        Parameters
        ----------
        data
            The object.
        job
            Its names.
        options
            What was typed.
        model
            The model.
        notes
            What the package said.
        opening
            How the object is opened.
        tissue
            How its sections compare with the training tissue.

        Raises
        ------
        KeyError
            If a section that was named does not exist.
        """
        opened = Slide.open(data, drawing=True, **opening)
        key = options.key_added
        record = recorded(opened.table, key) or {}
        frames = list(opened.frames) if opened.has_image() else []
        return cls(
            file=job.source.file,
            result=job.result.name,
            table=opened.table,
            section=_section(frames, options.section),
            images={frame.name: _image(frame) for frame in frames if frame.image is not None},
            # the remark of the reader comes first
            reading=notes.remarks[0] if job.source.kind == "image" and notes.remarks else None,
            labels=tuple(_labels(opened.table, key)),
            n_rows=opened.n_rows,
            unlabelled=_unlabelled(opened.table, key, _thresholds(record, options)),
            tissue=tissue,
            warnings=tuple(notes.warnings),
            remarks=tuple(notes.remarks),
            model=_model(model),
            parameters=_parameters(record),
            run=_run(options),
            versions=versions(),
        )

    @property
    def n_labelled(self) -> int:
        """Rows with a label."""
        return sum(label.n for label in self.labels)

    @property
    def few_labelled(self) -> bool:
        """Whether most rows have no label."""
        return 2 * self.n_labelled < self.n_rows

    @property
    def reasons(self) -> str:
        """Why rows have no label, in one line."""
        return ", ".join(f"{reason} ({n})" for reason, n in self.unlabelled.items())

    def summary(self, most: int) -> str:
        """How many rows got a label, and the most frequent labels, in one line."""
        parts = [f"{self.n_rows} rows, {percent(self.n_labelled, self.n_rows)} with a label"]
        named = [label for label in self.labels if label.n][:most]
        if named:
            parts.append(", ".join(f"{label.name} {percent(label.n, self.n_labelled)}" for label in named))
        if self.few_labelled:
            parts.append(f"no label: {self.reasons}")
        if self.warnings:
            parts.append(f"{len(self.warnings)} warning{'s' if len(self.warnings) > 1 else ''}")
        return "; ".join(parts)


def percent(n: float, of: float) -> str:
    """A fraction in words that does not hide a few rows, nor the lack of a few."""
    value = 100 * n / max(of, 1)
    if 0 < value < 1:
        return "<1 %"
    return ">99 %" if 99 < value < 100 else f"{value:.0f} %"


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that shape a result."""
    out = {"Python": platform.python_version()}
    for name in _PACKAGES:
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            out[name] = "not installed"
    return out


def _section(frames: list[Section], name: str | None) -> str | None:
    """Name of the section to draw: the one that was named, else the first."""
    names = [frame.name for frame in frames]
    if name is None:
        return names[0] if names else None
    if name not in names:
        raise KeyError(f"There is no section {name!r} with an image (found: {', '.join(names) or 'none'}).")
    return name


def _image(frame: Section) -> str:
    width, height = frame.image.size_px if frame.image is not None else (0, 0)
    size = f"{width:.0f} × {height:.0f} pixels"
    if frame.scale is None:
        return f"{size}; microns per pixel not known"
    return f"{size}; {frame.scale.mpp:.4g} µm per pixel by {frame.scale.rule}"


def _labels(table: AnnData, key: str) -> list[Label]:
    given = pd.Series(table.obs[key]).astype("category")
    confidence = pd.Series(table.obs[_keys.confidence(key)]).to_numpy(dtype=float)
    categories = [str(name) for name in given.cat.categories]
    every = list(dict.fromkeys([*categories, *classes_of(table, key)]))
    colours = dict(zip(every, colours_of(table, key, every), strict=True))
    out = []
    for name in every:
        rows = (given.astype(object) == name).to_numpy() & np.isfinite(confidence)
        mean = float(confidence[rows].mean()) if rows.any() else float("nan")
        out.append(Label(name, colours[name], int((given.astype(object) == name).sum()), mean))
    return sorted(out, key=lambda label: -label.n)


def _thresholds(record: Mapping[str, Any], options: Namespace) -> dict[str, str]:
    """Reasons of thresholds in words: the value, and who chose it."""
    what = {"min_confidence": "confidence", "min_margin": "margin to the next label"}
    out = {}
    for name, measured in what.items():
        typed = getattr(options, name) is not None
        limit = f"{record.get(name, float('nan')):.4g}"
        chosen = f"the --{name.replace('_', '-')} of {limit}" if typed else f"{limit}, the threshold of the model"
        out[f"below {name}"] = f"the {measured} is below {chosen}"
    return out


def _unlabelled(table: AnnData, key: str, thresholds: Mapping[str, str]) -> dict[str, int]:
    """Number of rows without a label, by the reason; the reason that is recorded, else what the confidence tells."""
    missing = pd.Series(table.obs[key]).isna().to_numpy()
    if not missing.any():
        return {}
    column = f"{key}_reason"
    if column in table.obs:
        why = pd.Series(table.obs[column]).astype(object)
        reasons = why.where(why.notna(), "no reason is recorded").astype(str).to_numpy()
    else:
        empty = ~np.isfinite(pd.Series(table.obs[_keys.confidence(key)]).to_numpy(dtype=float))
        reasons = np.where(empty, "no embedding", "the confidence or the margin is below what was asked for")
    counted = pd.Series(reasons[missing]).value_counts()
    words = _REASONS | dict(thresholds)
    return {words.get(str(reason), str(reason)): int(n) for reason, n in counted.items()}


def _model(model: Whisperer) -> dict[str, str]:
    card = model.config.card
    out = {
        "name": card.name if card is not None else model.folder.name if model.folder is not None else "without a name"
    }
    if card is not None:
        out |= {"trained on": card.tissue, "use": card.use, "training data": card.data}
    out["encoders"] = ", ".join(f"{name}: {one.features.name}" for name, one in model.config.modalities.items())
    return out


def _parameters(record: Mapping[str, Any]) -> dict[str, str]:
    """The record of the annotation; labels are listed by the report itself."""
    left_out = ("classes", "labels", "prompts", "model")
    shown = {name: value for name, value in record.items() if name not in left_out and value not in (None, [], {})}
    out = {name: _plain(value) for name, value in shown.items()}
    for label, prompts in zip(record.get("labels", []), record.get("prompts", []), strict=False):
        out[f"descriptions of {label}"] = "; ".join(map(str, prompts))
    return out


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_plain(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _run(options: Namespace) -> dict[str, str]:
    import datetime

    now = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    typed = []
    for name, value in vars(options).items():
        if name in ("command", "slides", "debug", "quiet") or value in (None, False):
            continue
        option = f"--{name.replace('_', '-')}"
        text = ",".join(value) if isinstance(value, list) else str(value)
        typed.append(option if value is True or not text else f"{option} {shlex.quote(text)}")
    return {"made": now, "options": " ".join(typed)}
