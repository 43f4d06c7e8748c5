"""The recipe of the embedded model on patients that it has not seen: ranks, agreement with expression, calibration, abstention.

Each patient with an image is left out in turn, its images and its texts, and its sections are annotated by a model of the others.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer._messages import inform
from spatialwhisperer.protocols import annotation
from spatialwhisperer.protocols import her2st_text as words
from spatialwhisperer.protocols.default_labels import LABELS, REGIONS
from spatialwhisperer.protocols.markdown import markdown
from spatialwhisperer.statistics.calibration import (
    expected_calibration_error,
    fit_temperature,
    reliability_bins,
    shares,
)
from spatialwhisperer.tl.calibrate import judged
from spatialwhisperer.tl.evaluation.truth import indistinct, right_labels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer.models import Whisperer

RECIPE: dict[str, Any] = {
    "preset": "whisperer",
    "schedule": "sequential",
    "gene_encoder": "scvi",
    "text_key": words.SEVERAL_COLUMNS,
    "batch_key": "patient",
    "tile_um": annotation.TWO_SIZES,
    "tile_px": annotation.COARSE,
    "expression": False,
}
"""Arguments of :func:`spatialwhisperer.tl.train`. Tiles are read at 2.1 and 3.2 µm per pixel, near the coarsest of the slides."""

PROMPTS = {name: label["prompts"] for name, label in LABELS.items()}
CELLS = "wu2021_breast_CID4465.h5ad"
SCVI_EPOCHS = 40
COVERAGES = (1.0, 0.5, 0.25, 0.1)
N_EXAMPLES, N_DRAWS = 5, 5
_MIN_ROWS = 5


@dataclass
class Data:
    """Sections with an image, tables of those without one, and single cells, the last two with captions."""

    images: dict[str, SpatialData]
    texts: dict[str, AnnData]
    cells: AnnData

    @property
    def patients(self) -> list[str]:
        """Patients with an image."""
        return sorted({name[0] for name in self.images})

    def fit(self, recipe: Mapping[str, Any], seed: int, *, without: str | None = None) -> Whisperer:
        """Train on all patients but one."""
        images = [s for n, s in self.images.items() if n[0] != without]
        texts = [t for n, t in self.texts.items() if n[0] != without]
        if recipe["gene_encoder"] == "scvi":
            inform(f"scVI, {SCVI_EPOCHS} epochs")
            encoder = sw.pp.fit_gene_encoder(
                [*texts, self.cells], "scvi", batch_key="patient", max_epochs=SCVI_EPOCHS, random_state=seed
            )
            recipe = {**recipe, "gene_encoder": encoder}
        with tempfile.TemporaryDirectory() as folder:
            return sw.tl.train([*images, *texts, self.cells], random_state=seed, folder=folder, **recipe)


@dataclass
class HeldOut:
    """A section scored by a model that has not seen its patient.

    Attributes
    ----------
    section
        Its name.
    auroc
        AUROC of presence by class.
    labels, right
        Scores of the embedded model's labels, and which labels are right, in the rows with a known region.
    agreement
        Of labels from the image with labels from the expression of the same rows, by measure.
    few_shot
        Macro AUROC of the regions in rows that are no examples, from words alone and with examples.
    """

    section: str
    auroc: pd.DataFrame
    labels: np.ndarray
    right: np.ndarray
    agreement: dict[str, float]
    few_shot: dict[str, float]


def load(data: Path, *, smoke: bool = False) -> Data:
    """Read what the recipe needs.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    """
    import anndata as ad

    path = data / "singlecell" / CELLS
    if not (data / "her2st").is_dir() or not path.is_file():
        raise FileNotFoundError(f"{data} must hold her2st/ and singlecell/{CELLS}.")
    names = sorted(p.parent.name for p in (data / "her2st").glob("*/counts.h5ad"))
    others = [n for n in names if n not in annotation.WITH_IMAGE]
    images = {n: sw.datasets.her2st(n, data_dir=data) for n in (("A1", "C3") if smoke else annotation.WITH_IMAGE)}
    texts = {n: _captioned(data, n) for n in (others[::8] if smoke else others)}
    cells = ad.read_h5ad(path)
    words.add_reference_captions(cells)
    cells.obs["patient"] = "CID4465"
    return Data(images, texts, cells)


def _captioned(data: Path, name: str) -> AnnData:
    table = sw.datasets.her2st(name, data_dir=data, with_image=False)["table"].copy()
    table.uns.pop("spatialdata_attrs")
    words.add_captions(table)
    return table


# ------------------------------------------------------------------------------------------------- one patient


def leave_patient_out(patient: str, data: Data, recipe: Mapping[str, Any], seed: int) -> list[HeldOut]:
    """Score the sections of a patient by a model of the others."""
    inform(f"without patient {patient}")
    model = data.fit(recipe, seed, without=patient)
    return [score(name, sdata, model) for name, sdata in data.images.items() if name[0] == patient]


def score(name: str, sdata: SpatialData, model: Whisperer) -> HeldOut:
    """Everything that is measured of a section."""

    def scored(prompts: Any, modality: Any) -> pd.DataFrame:
        return sw.tl.zero_shot_annotate(sdata, prompts, model=model, modality=modality, normalize="none", inplace=False)

    table = sdata["table"]
    image, gene = scored(PROMPTS, "image").to_numpy(), scored(PROMPTS, "gene").to_numpy()
    right = right_labels(table.obs["pathologist_label"].astype(object).to_numpy(), REGIONS, list(LABELS))
    known = right.any(axis=1) & np.isfinite(image).all(axis=1)
    aurocs = annotation.aurocs(scored(words.TARGETS, "image"), words.targets(table))
    return HeldOut(name, aurocs, image[known], right[known], agreement(image, gene), few_shot(sdata, model))


def agreement(image: np.ndarray, gene: np.ndarray) -> dict[str, float]:
    """Cohen's kappa of the best labels, and macro AUROC of image scores against the best label of the expression."""
    from sklearn.metrics import cohen_kappa_score, roc_auc_score

    both = np.isfinite(image).all(axis=1) & np.isfinite(gene).all(axis=1)
    image, best = image[both], gene[both].argmax(axis=1)
    counts = np.bincount(best, minlength=image.shape[1])
    usable = np.flatnonzero((counts >= _MIN_ROWS) & (counts <= len(best) - _MIN_ROWS))
    return {
        "kappa": float(cohen_kappa_score(best, image.argmax(axis=1))),
        "auroc": float(np.mean([roc_auc_score(best == c, image[:, c]) for c in usable])),
    }


def few_shot(sdata: SpatialData, model: Whisperer) -> dict[str, float]:
    """Macro AUROC of the regions from words alone, and with a few labelled spots of each; mean over draws."""
    sw.tl.embed(sdata, model=model, modality="image")
    table = sdata["table"]
    region = table.obs["pathologist_label"].astype(object).map(words.REGION_TARGETS)
    counts = region[np.isfinite(table.obsm["X_sw_image"]).all(axis=1)].value_counts()
    classes = [c for c in words.TARGETS if counts.get(c, 0) >= 2 * N_EXAMPLES]
    if len(classes) < 2:
        return {"words": np.nan, "examples": np.nan}
    options = {"model": model, "embedding_key": "X_sw_image", "normalize": "none", "inplace": False}
    prompts, out = {c: words.TARGETS[c] for c in classes}, []
    for draw in range(N_DRAWS):
        rng = np.random.default_rng(draw)
        shown = {c: rng.choice(np.flatnonzero(region == c), N_EXAMPLES, replace=False) for c in classes}
        rest = np.setdiff1d(np.flatnonzero(region.isin(classes)), np.concatenate(list(shown.values())))
        truth = pd.DataFrame({c: pd.array(region.iloc[rest] == c, dtype="boolean") for c in classes})
        for kind, examples in (("words", None), ("examples", shown)):
            scores = sw.tl.zero_shot_annotate(sdata, prompts, examples=examples, **options)
            out.append((kind, annotation.aurocs(scores.iloc[rest], truth)["auroc"].mean()))
    return pd.DataFrame(out, columns=["kind", "auroc"]).groupby("kind")["auroc"].mean().to_dict()


# ------------------------------------------------------------------------------------------------- calibration


def pooled(parts: Sequence[HeldOut]) -> tuple[np.ndarray, np.ndarray]:
    """Scores and right labels of several sections."""
    return np.concatenate([p.labels for p in parts]), np.concatenate([p.right for p in parts])


def calibration(held_out: Mapping[str, Sequence[HeldOut]], before: float) -> dict[str, Any]:
    """Temperature over the rows of all patients; its error on each patient is that of the temperature of the others."""
    everything = [part for parts in held_out.values() for part in parts]
    scores, right = pooled(everything)
    across = [(pooled(parts), _of_others(held_out, patient)) for patient, parts in held_out.items()]
    return {
        "normalize": "none",
        "background": None,
        "temperature": fit_temperature(scores, right),
        "ece": float(np.mean([_ece(*own, t) for own, t in across])),
        "ece_before": float(np.mean([_ece(*own, before) for own, _ in across])),
        "n": len(scores),
        "labels": list(LABELS),
    }


def _of_others(held_out: Mapping[str, Sequence[HeldOut]], patient: str) -> float:
    others = [part for p, parts in held_out.items() if p != patient for part in parts]
    return fit_temperature(*pooled(others or held_out[patient]))


def _judged(scores: np.ndarray, right: np.ndarray, temperature: float) -> Any:
    return judged(shares(scores, temperature), right, indistinct(REGIONS, list(LABELS)))


def _ece(scores: np.ndarray, right: np.ndarray, temperature: float) -> float:
    rows = _judged(scores, right, temperature)
    return expected_calibration_error(rows.summed, rows.correct)


# ------------------------------------------------------------------------------------------------- the command


def run(
    data: Path, out: Path, *, gene_encoder: str = RECIPE["gene_encoder"], seed: int = 0, smoke: bool = False
) -> pd.DataFrame:
    """Measure every section and write ``held_out.csv``, ``held_out.md`` and ``held_out.png`` into a folder."""
    materials = load(data, smoke=smoke)
    recipe = RECIPE | {"gene_encoder": gene_encoder}
    held_out = {p: leave_patient_out(p, materials, recipe, seed) for p in materials.patients}
    temperatures = {p: _of_others(held_out, p) for p in held_out}
    rows = [_row(part, temperatures[p]) for p, parts in held_out.items() for part in parts]
    table = pd.DataFrame(rows).set_index("section")
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / "held_out.csv")
    text = markdown(table.map(lambda v: f"{v:.3f}")) + "\n"
    (out / "held_out.md").write_text(text, encoding="utf-8")
    draw(held_out, temperatures, out / "held_out.png")
    print(text)
    return table


def _row(part: HeldOut, temperature: float) -> dict[str, Any]:
    rows = _judged(part.labels, part.right, temperature)
    order = np.argsort(-rows.confidence, kind="stable")
    kept = {f"right, {c:.0%} kept": rows.correct[order][: max(1, round(c * len(order)))].mean() for c in COVERAGES}
    return {
        "section": part.section,
        "macro AUROC": part.auroc["auroc"].mean(),
        "AUROC against expression": part.agreement["auroc"],
        "kappa with expression": part.agreement["kappa"],
        "commonest class": part.right.mean(axis=0).max(),
        **kept,
        "ECE": expected_calibration_error(rows.summed, rows.correct),
        "regions, words": part.few_shot["words"],
        f"regions, {N_EXAMPLES} examples each": part.few_shot["examples"],
    }


def draw(held_out: Mapping[str, Sequence[HeldOut]], temperatures: Mapping[str, float], path: Path) -> None:
    """Reliability and what abstaining buys, one colour per patient."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for colour, (patient, parts) in zip(("#0072b2", "#d55e00", "#009e73"), held_out.items(), strict=False):
        rows = _judged(*pooled(parts), temperatures[patient])
        name = f"patient {patient} ({', '.join(p.section for p in parts)})"
        bins = reliability_bins(rows.summed, rows.correct, n_bins=10)
        left.scatter(bins.confidence, bins.accuracy, s=10 + 2 * np.sqrt(bins.n) * 3, color=colour, label=name)
        left.plot(bins.confidence[bins.n > 0], bins.accuracy[bins.n > 0], color=colour, lw=1)
        order = np.argsort(-rows.confidence, kind="stable")
        n = np.arange(1, len(order) + 1)
        right.plot(n[9:] / len(n), rows.correct[order].cumsum()[9:] / n[9:], color=colour, label=name)
        right.axhline(pooled(parts)[1].mean(axis=0).max(), color=colour, ls=":", lw=1)
    left.plot([0, 1], [0, 1], color="0.6", ls="--", lw=1)
    left.set(xlabel="confidence", ylabel="share right", xlim=(0, 1), ylim=(0, 1.02), title="calibration")
    right.set(
        xlabel="share of rows that keep a label",
        ylabel="share right",
        ylim=(0, 1.02),
        title="abstention (dotted: commonest class)",
    )
    left.legend(frameon=False, fontsize=8)
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
