"""Run a paper on a folder of its data: every row that the folder has, beside what was published.

A finished fold is kept in a file of its own and is not repeated. Results go to ``paper_<name>.csv`` (tidy) and ``paper_<name>.md``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from statistics import median
from typing import TYPE_CHECKING, Any

import pandas as pd

from spatialwhisperer._messages import inform
from spatialwhisperer.protocols.finished import finished, stamp
from spatialwhisperer.protocols.her2st.folds import Fold, Materials
from spatialwhisperer.protocols.her2st.frozen_features import Task
from spatialwhisperer.protocols.her2st.trained_networks import TRAINED, NetworkOptions
from spatialwhisperer.protocols.output import write_text
from spatialwhisperer.protocols.papers.measuring import PROTOCOL, measure
from spatialwhisperer.protocols.papers.rows import Row, rows_of
from spatialwhisperer.protocols.papers.sources import HOW_TO_GET, microns_per_pixel, open_source, place_of
from spatialwhisperer.protocols.papers.table import Done, report

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from spatialwhisperer.protocols.papers.sources import Source

SMOKE_TRAINING = 2
"""Training sections of a fold in a smoke run."""

SMOKE_NETWORKS = NetworkOptions(epochs=1, spots=24, batch_size=16)
"""How much of an image network is trained in a smoke run; published weights would be downloaded."""


@dataclass(frozen=True)
class Options:
    """How a paper is run.

    Attributes
    ----------
    image
        Image features: a registered encoder, kept frozen, or "trained:NAME", a timm model that is trained end to end as in the papers.
    networks
        How much is trained; of frozen features the epochs alone count.
    seeds
        Training runs of each fold.
    model
        Folder or name of the model that labels tiles, for rows of labels.
    rows
        Names of the rows that are run; none takes all.
    smoke
        Use one fold of each row, few spots and epochs, to show that everything runs.
    """

    image: str = "stain_texture"
    networks: NetworkOptions = field(default_factory=NetworkOptions)
    seeds: int = 1
    model: str | None = None
    rows: tuple[str, ...] = ()
    smoke: bool = False


def run(paper: str, data: Path, out: Path, *, options: Options | None = None) -> pd.DataFrame:
    """Run what has not been run yet and write the table.

    Parameters
    ----------
    paper
        A name among :func:`spatialwhisperer.protocols.papers.rows.papers`.
    data
        Folder that holds a folder for each data set.
    out
        Folder of the results, of finished folds and of features that are kept.
    options
        How it is run; ``None`` takes the defaults.

    Raises
    ------
    ValueError
        If the paper or a row is unknown.
    FileNotFoundError
        If no data set of the paper is in the folder.
    """
    options = options or Options()
    chosen = _chosen(paper, options)
    done: list[Done] = []
    left_out: dict[str, str] = {}
    for row in chosen:
        found = _labels(row, data, out, options) if row.task == "labels" else _folds(row, data, out, options)
        if isinstance(found, Done):
            done.append(found)
        else:
            left_out[row.name] = found
            inform(f"{row.name} is left out: {found}")
    if not done:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise FileNotFoundError(f"{data} holds no data set of the paper {paper!r}. {reasons}.")
    table = pd.concat([one.rows.assign(row=one.row.name) for one in done], ignore_index=True)
    write_text(out / f"paper_{paper}.csv", table.to_csv(index=False))
    text = report(paper, done, left_out)
    write_text(out / f"paper_{paper}.md", text)
    print(text)
    return table


def _chosen(paper: str, options: Options) -> list[Row]:
    rows = rows_of(paper)
    names = [row.name for row in rows]
    if unknown := [name for name in options.rows if name not in names]:
        raise ValueError(f"The paper {paper!r} has no row {unknown[0]!r}; it has {', '.join(map(repr, names))}.")
    return [row for row in rows if not options.rows or row.name in options.rows]


# ------------------------------------------------------------------------------------------------- presets that are trained


@dataclass
class _RowRun:
    """Folds of a row. Sections are read when the first fold is not finished yet."""

    row: Row
    source: Source
    data: Path
    out: Path
    options: Options

    @cached_property
    def splits(self) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
        splits = list(self.row.splits(self.source.patients))
        if not self.options.smoke:
            return splits
        name, train, test = splits[0]
        return [(name, train[:SMOKE_TRAINING], test[:1])]

    @cached_property
    def mpp(self) -> list[float]:
        """Microns per pixel of the images, sorted."""
        used = {name for _, train, test in self.splits for name in (*train, *test)}
        return sorted(microns_per_pixel(self.source.read(n)["table"], self.row.dataset, n) for n in used)

    @cached_property
    def materials(self) -> Materials:
        cache = self.out / "cache" / self.row.dataset
        # a section that is there at a lower resolution has the field of view of the others
        tile_um = round(self.row.patch_px * median(self.mpp), 1)
        return Materials(self.data, cache, smoke=self.options.smoke, read=self.source.read, tile_um=tile_um)

    def tasks(self) -> Iterator[tuple[Task, Path]]:
        """Tasks and their files; the scale is filled in when a task runs."""
        presets = self.row.presets[:1] if self.options.smoke else self.row.presets
        folder = self.out / "papers" / self.row.paper / self.row.name.replace(", ", "-").replace(" ", "_")
        split = "patient" if self.row.test == "each patient" else "section"
        for name, train, test in self.splits:
            for preset in presets:
                for seed in range(1 if self.options.smoke else self.options.seeds):
                    fold = Fold(split, name.replace(" ", "-"), train, test, float("nan"))
                    task = Task(preset, PROTOCOL, fold, self.options.image, seed)
                    # other sections in the folder, or other options, are another run
                    depends = stamp(self.row, train, test, self.options.networks, self.options.smoke)
                    yield task, folder / f"{task.key.replace('/', '_')}-{depends}.csv"

    def measured(self, task: Task) -> pd.DataFrame:
        # tiles of all images are read at the resolution of the coarsest
        known = replace(task, fold=replace(task.fold, mpp=self.mpp[-1]))
        networks = SMOKE_NETWORKS if self.options.smoke else self.options.networks
        rows = measure(self.row, known, self.materials, networks)
        return rows.assign(preset=task.preset, fold=task.fold.name, features=task.features, seed=task.seed)


def _folds(row: Row, data: Path, out: Path, options: Options) -> Done | str:
    source = open_source(row, data)
    if source is None:
        return f"its sections are not there; {HOW_TO_GET[row.dataset]}"
    folds = _RowRun(row, source, data, out, options)
    tasks = list(folds.tasks())
    frames = [
        finished(path, f"{row.name}, {i + 1} of {len(tasks)}: {task.key}", partial(folds.measured, task))
        for i, (task, path) in enumerate(tasks)
    ]
    used = {name for task, _ in tasks for name in (*task.fold.train, *task.fold.test)}
    return Done(row, pd.concat(frames, ignore_index=True), f"{_sections(row, used)}; {_how(row, options)}")


def _sections(row: Row, used: set[str]) -> str:
    own = sum(name in row.sections for name in used)
    if own < len(used):
        others = ", ".join(sorted(used))
        return f"{len(used)} sections that are there ({others}), not only those of the paper"
    return f"{own} of the {len(row.sections)} sections of the paper"


def _how(row: Row, options: Options) -> str:
    import spatialwhisperer as sw

    networks = options.networks
    preset = sw.models.get_preset(row.presets[0], PROTOCOL)
    paper = preset.published_image_encoder or "its own network"
    trained = options.image.startswith(TRAINED)
    harmony = "; not corrected by Harmony" if trained and preset.evaluation.correction != "none" else ""
    image = f"image features {options.image}{'' if trained else ', frozen'} (paper: {paper}, trained)"
    epochs = (
        "smoke run" if options.smoke else f"{networks.epochs} epochs" if networks.epochs else "epochs of the preset"
    )
    return f"protocol {PROTOCOL}{harmony}; {image}; {epochs}"


# ------------------------------------------------------------------------------------------------- models that label tiles


def _labels(row: Row, data: Path, out: Path, options: Options) -> Done | str:
    place = place_of(row.dataset, data)
    if place is None:
        return f"it is not there; {HOW_TO_GET[row.dataset]}"
    if options.model is None:
        return "it needs a model: --model FOLDER, or the published one, --model Good-Lab/spatialwhisperer"
    from spatialwhisperer.protocols.annotation.cell_images import measure as cell_images
    from spatialwhisperer.protocols.annotation.cell_images.tables import macro

    how = cell_images.Options(smoke=options.smoke)
    tidy = cell_images.run(row.dataset, place, out / "papers" / row.paper, model=options.model, options=how)
    shown: dict[str, Any] = {
        "section": "all",
        "predictor": "prediction",
        "gene_list": "macro",
        "metric": "auroc",
        "value": macro(tidy),
        "preset": row.presets[0],
        "fold": "all",
        "features": "",
        "seed": 0,
    }
    about = f"model {options.model}; {tidy['image'].nunique()} images"
    return Done(row, pd.DataFrame([shown]), about)
