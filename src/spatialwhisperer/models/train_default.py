"""Train the embedded model: ``python -m spatialwhisperer.models.train_default --data FOLDER [--out FOLDER] [--seed 0]``.

Image–gene pairs come from the HER2-positive breast sections with an image, gene–text pairs from the sections without one and from
labelled single cells; no image meets a text. The same recipe is first trained without each patient that has an image: those scores
calibrate the confidence and are what the model's card reports, since the model itself has seen all of its patients.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer._utils import say
from spatialwhisperer.benchmarks import her2st_text as words
from spatialwhisperer.models.calibration import expected_calibration_error, fit_temperature, shares
from spatialwhisperer.models.default import NAME, weights_folder
from spatialwhisperer.models.default_labels import LABELS, REGIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer.models import Vocabulary, Whisperer

WITH_IMAGE = ("A1", "C2", "C3", "C4", "C5")
CELLS = "wu2021_breast_CID4465.h5ad"
ONTOLOGY = "cell_ontology_2022-09-15.tsv.gz"
RECIPE: dict[str, Any] = {
    "preset": "whisperer",
    "schedule": "sequential",
    "gene_encoder": "pca",
    "text_key": words.SEVERAL_COLUMNS,
    "batch_key": "patient",
    "tile_um": (100.0, 154.0),
    "tile_px": 48,
    "expression": False,
}
"""Arguments of :func:`spatialwhisperer.tl.train`. Tiles are read at 2.1 and 3.2 µm per pixel, near the coarsest of the slides."""

UNCALIBRATED = 0.07  # temperature that training starts from
MAX_BYTES = 8_000_000


def train_default(
    data: Path, out: Path, *, gene_encoder: str = RECIPE["gene_encoder"], seed: int = 0, smoke: bool = False
) -> Whisperer:
    """Train, calibrate, describe and write the model; returns it.

    Parameters
    ----------
    data
        Folder that holds ``her2st/``, ``singlecell/`` and ``text/``.
    out
        Folder of the model; an older model there is replaced.
    gene_encoder
        "pca" or "scvi".
    seed
        Of everything random.
    smoke
        Few sections: shows that it runs.

    Raises
    ------
    FileNotFoundError
        If the data are not there.
    ValueError
        If the model is larger than 8 MB.
    """
    start = time.perf_counter()
    images, texts, cells = load(data, smoke=smoke)
    recipe = RECIPE | {"gene_encoder": gene_encoder}
    held_out = [
        leave_patient_out(patient, images, texts, cells, recipe, seed)
        for patient in sorted({name[0] for name in images})
    ]
    say("all patients")
    model = fit(list(images.values()), list(texts.values()), cells, recipe, seed)
    model.vocabulary = vocabulary(data, model)
    model.config["annotation"] = calibration(held_out)
    model.config["card"] = card(images, texts, held_out, recipe, seed)
    write(model, out)
    say(f"{out}: {_size(out) / 1e6:.1f} MB in {time.perf_counter() - start:.0f} s")
    return model


# ------------------------------------------------------------------------------------------------- data


def load(data: Path, *, smoke: bool = False) -> tuple[dict[str, SpatialData], dict[str, AnnData], AnnData]:
    """Sections with an image, tables of those without one, and single cells, the last two with captions."""
    import anndata as ad

    folder = data / "her2st"
    for path in (folder, data / "singlecell" / CELLS, data / "text" / ONTOLOGY):
        if not path.exists():
            raise FileNotFoundError(
                f"{path} is not there; --data needs her2st/, singlecell/{CELLS} and text/{ONTOLOGY}."
            )
    names = sorted(p.parent.name for p in folder.glob("*/counts.h5ad"))
    others = [n for n in names if n not in WITH_IMAGE]
    with_image = ("A1", "C3") if smoke else WITH_IMAGE
    images = {n: sw.datasets.her2st(n, data_dir=data) for n in with_image}
    texts = {n: _texts(data, n) for n in (others[::8] if smoke else others)}
    cells = ad.read_h5ad(data / "singlecell" / CELLS)
    words.add_reference_captions(cells)
    cells.obs["patient"] = "CID4465"
    return images, texts, cells


def _texts(data: Path, name: str) -> AnnData:
    table = sw.datasets.her2st(name, data_dir=data, with_image=False)["table"].copy()
    table.uns.pop("spatialdata_attrs")
    words.add_captions(table)
    return table


def fit(
    images: Sequence[SpatialData], texts: Sequence[AnnData], cells: AnnData, recipe: dict[str, Any], seed: int
) -> Whisperer:
    """Train on what is given."""
    with tempfile.TemporaryDirectory() as folder:
        return sw.tl.train([*images, *texts, cells], random_state=seed, folder=folder, **recipe)


# ------------------------------------------------------------------------------------------------- what it is worth


def leave_patient_out(
    patient: str,
    images: dict[str, SpatialData],
    texts: dict[str, AnnData],
    cells: AnnData,
    recipe: dict[str, Any],
    seed: int,
) -> dict[str, Any]:
    """Scores of the sections of a patient by a model that has seen neither its images nor its texts."""
    say(f"without patient {patient}")
    model = fit(
        [s for n, s in images.items() if n[0] != patient],
        [t for n, t in texts.items() if n[0] != patient],
        cells,
        recipe,
        seed,
    )
    prompts = {name: label["prompts"] for name, label in LABELS.items()}
    out: dict[str, Any] = {"patient": patient, "auroc": {}, "scores": [], "truth": []}
    for name, sdata in images.items():
        if name[0] != patient:
            continue
        table = sdata["table"]
        scores = sw.tl.zero_shot_annotate(
            sdata, words.TARGETS, model=model, modality="image", normalize="none", inplace=False
        )
        out["auroc"][name] = macro_auroc(scores, words.targets(table))
        labels = sw.tl.zero_shot_annotate(
            sdata, prompts, model=model, modality="image", normalize="centre", inplace=False
        )
        known = table.obs["pathologist_label"].astype(object).map(REGIONS)
        keep = known.notna().to_numpy() & np.isfinite(labels.to_numpy()).all(axis=1)
        out["scores"].append(labels.to_numpy()[keep])
        out["truth"].append(np.array([[c in right for c in LABELS] for right in known[keep]], bool))
    return out


def macro_auroc(scores: pd.DataFrame, truth: pd.DataFrame) -> float:
    """Mean over the classes of the AUROC of presence."""
    from spatialwhisperer.benchmarks.annotation import aurocs

    return float(aurocs(scores, truth)["auroc"].mean())


def calibration(held_out: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Temperature over all held-out rows; its error on each patient is that of the temperature of the others."""
    parts = [(np.concatenate(h["scores"]), np.concatenate(h["truth"])) for h in held_out]
    scores, truth = (np.concatenate(x) for x in zip(*parts, strict=True))
    errors, before = [], []
    for i, (own_scores, own_truth) in enumerate(parts):
        rest = [p for j, p in enumerate(parts) if j != i] or [parts[i]]
        temperature = fit_temperature(*(np.concatenate(x) for x in zip(*rest, strict=True)))
        errors.append(_ece(own_scores, own_truth, temperature))
        before.append(_ece(own_scores, own_truth, UNCALIBRATED))
    return {
        "normalize": "centre",
        "temperature": fit_temperature(scores, truth),
        "ece": float(np.mean(errors)),
        "ece_before": float(np.mean(before)),
        "n": len(scores),
        "labels": list(LABELS),
    }


def _ece(scores: np.ndarray, right: np.ndarray, temperature: float) -> float:
    share = shares(scores, temperature)
    best = share.argmax(axis=1)
    return expected_calibration_error(share.max(axis=1), right[np.arange(len(right)), best])


# ------------------------------------------------------------------------------------------------- what it carries


def vocabulary(data: Path, model: Whisperer) -> Vocabulary:
    """Default labels, Cell Ontology names and synonyms, and their text features."""
    ontology = sw.models.Ontology.read(data / "text" / ONTOLOGY)
    known = pd.read_csv(data / "text" / "label_map.tsv", sep="\t", dtype=str)
    ids = dict.fromkeys([*(label["cl"] for label in LABELS.values()), *known["cl_id"].dropna()])
    part = ontology.subset(ids)
    texts = [p for label in LABELS.values() for p in label["prompts"]]
    texts += [t for c in words.TARGETS.values() for t in c]
    for term in part.terms.values():
        texts += [term.name, *(term.synonyms if term.id in ids else ())]
    texts = list({t.casefold(): t for t in reversed(texts)}.values())[::-1]
    features = sw.pp.embed_texts(texts, encoder=model.config["encoders"]["text"]["name"])
    return sw.models.Vocabulary(LABELS, texts, features, part)


def card(
    images: dict[str, SpatialData],
    texts: dict[str, AnnData],
    held_out: Sequence[dict[str, Any]],
    recipe: dict[str, Any],
    seed: int,
) -> dict[str, Any]:
    """What the model says about itself."""
    return {
        "name": NAME,
        "tissue": "HER2-positive breast cancer",
        "use": "Research on H&E sections of breast cancer. Not for diagnosis.",
        "data": "Andersson et al. 2021 (CC BY 4.0), single cells of Wu et al. 2021, Cell Ontology 2022-09-15 (CC BY 4.0)",
        "sections_with_image": sorted(images),
        "sections_with_text": sorted(texts),
        "patients": sorted({n[0] for n in [*images, *texts]}),
        "recipe": recipe,
        "seed": seed,
        "held_out_macro_auroc": {n: round(a, 4) for h in held_out for n, a in h["auroc"].items()},
        "versions": {p: version(p) for p in ("spatialwhisperer", "torch", "scvi-tools", "numpy")},
        "command": "python -m spatialwhisperer.models.train_default --data FOLDER",
    }


def write(model: Whisperer, out: Path) -> None:
    """Write to a temporary folder, check the size, then put it in place."""
    with tempfile.TemporaryDirectory() as temporary:
        path = model.save(Path(temporary) / NAME)
        size = _size(path)
        if size > MAX_BYTES:
            raise ValueError(f"The model has {size / 1e6:.1f} MB; the package holds at most {MAX_BYTES / 1e6:.0f} MB.")
    model.save(out)


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m spatialwhisperer.models.train_default", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds her2st/, singlecell/ and text/")
    parser.add_argument(
        "--out", type=Path, default=weights_folder(), help="folder of the model (default: the package's)"
    )
    parser.add_argument("--gene-encoder", default=RECIPE["gene_encoder"], choices=("pca", "scvi"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="few sections: shows that it runs")
    options = parser.parse_args(arguments)
    logging.getLogger("scvi").setLevel(logging.WARNING)
    model = train_default(
        options.data, options.out, gene_encoder=options.gene_encoder, seed=options.seed, smoke=options.smoke
    )
    print(json.dumps({k: model.config[k] for k in ("annotation", "card")}, indent=1), file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
