"""Train the embedded model: ``python -m spatialwhisperer.protocols.train_default --data FOLDER [--out FOLDER] [--seed 0]``.

Image–gene pairs come from the HER2-positive breast sections with an image, gene–text pairs from the sections without one and from
labelled single cells; no image is trained with a text. The same recipe is first trained without each patient that has an image. Those
scores calibrate the confidence and are what the model's card reports, since the model itself is trained on all patients.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer._messages import inform
from spatialwhisperer.models.configuration.model import Card
from spatialwhisperer.models.store import EMBEDDED, embedded_folder
from spatialwhisperer.protocols import captions
from spatialwhisperer.protocols.default_model.decisions import calibration
from spatialwhisperer.protocols.default_model.held_out import report
from spatialwhisperer.protocols.default_model.image_range import with_image_range
from spatialwhisperer.protocols.default_model.labels import LABELS, REASONED_PARENTS, TISSUE
from spatialwhisperer.protocols.default_model.recipe import TrainingRecipe, load
from spatialwhisperer.protocols.default_model.unseen_patients import leave_patient_out
from spatialwhisperer.protocols.wordings.generate import LABEL_MAP, ONTOLOGY, check_files, make_wordings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialwhisperer.models import Vocabulary, Whisperer
    from spatialwhisperer.protocols.default_model.decisions import ByPatient
    from spatialwhisperer.protocols.default_model.recipe import TrainingData

COMMAND = "python -m spatialwhisperer.protocols.train_default"
STORED = ("name", "definition")
"""Kinds of wordings whose text features are stored, so that they need no text encoder."""

MAX_BYTES = 8_000_000


def train_default(
    data: Path,
    out: Path,
    *,
    gene_encoder: str = "scvi",
    seed: int = 0,
    smoke: bool = False,
    held_out: Path | None = None,
) -> Whisperer:
    """Train, calibrate, describe and write the model.

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
        Use few sections, to show that everything runs.
    held_out
        Folder for the tables of ``protocols held-out``, whose models are trained here too; ``None`` writes none.

    Returns
    -------
    The model.

    Raises
    ------
    FileNotFoundError
        If the data are not there.
    ValueError
        If the model is larger than 8 MB.
    """
    start = time.perf_counter()
    check_files(data)
    materials = load(data, smoke=smoke)
    recipe = replace(TrainingRecipe(), gene_encoder=gene_encoder)
    unseen = {p: leave_patient_out(p, materials, recipe, seed) for p in materials.patients}
    if held_out is not None:
        report(unseen, held_out)
    inform("all patients")
    model = materials.fit(recipe, seed)
    model.vocabulary = vocabulary(data, model)
    model.update(annotation=calibration(unseen, 1 / model.scale), card=card(materials, unseen, recipe, seed))
    write(model, out)
    inform(f"{out}: {_size(out) / 1e6:.1f} MB in {time.perf_counter() - start:.0f} s")
    return model


def vocabulary(data: Path, model: Whisperer) -> Vocabulary:
    """Default labels, Cell Ontology names and synonyms, and their text features."""
    ontology = sw.models.Ontology.read(data / "text" / ONTOLOGY).with_parents(REASONED_PARENTS)
    known = pd.read_csv(data / "text" / LABEL_MAP, sep="\t", dtype=str)
    ids = dict.fromkeys([*(label.cl for label in LABELS.values() if label.cl), *known["cl_id"].dropna()])
    part = ontology.subset(ids)
    texts = [text for label in LABELS.values() for text in label.prompts]
    texts += [*model.config.labels, *(w.text for w in make_wordings(data) if w.kind in STORED)]
    texts += [text for region in TISSUE.values() for text in region.prompts]
    texts += [text for group in captions.TARGETS.values() for text in group]
    for term in part.terms.values():
        texts += [term.name, *(term.synonyms if term.id in ids else ())]
    # of texts that differ in case alone the first one stays
    texts = list({text.casefold(): text for text in reversed(texts)}.values())[::-1]
    features = sw.pp.embed_texts(texts, encoder=model.config.modality("text").features.name)
    return sw.models.Vocabulary(LABELS, texts, features, part)


def card(materials: TrainingData, unseen: ByPatient, recipe: TrainingRecipe, seed: int) -> Card:
    """What the model says about itself."""
    names = [*materials.images, *materials.texts]
    return Card(
        name=EMBEDDED,
        tissue="HER2-positive breast cancer",
        use="Research on H&E sections of breast cancer. Not for diagnosis.",
        data="Andersson et al. 2021 (CC BY 4.0), single cells of Wu et al. 2021, Cell Ontology 2022-09-15 (CC BY 4.0)",
        sections_with_image=tuple(sorted(materials.images)),
        sections_with_text=tuple(sorted(materials.texts)),
        patients=tuple(sorted({name[0] for name in names})),
        recipe=recipe.plain(),
        random_state=seed,
        held_out_macro_auroc={
            part.section: round(float(part.auroc["auroc"].mean()), 4) for parts in unseen.values() for part in parts
        },
        versions={p: version(p) for p in ("spatialwhisperer", "torch", "scvi-tools", "numpy")},
        command=f"{COMMAND} --data FOLDER",
    )


def write(model: Whisperer, out: Path) -> None:
    """Check the size in a temporary folder, then put the model in place.

    Raises
    ------
    ValueError
        If the model is larger than 8 MB.
    """
    with tempfile.TemporaryDirectory() as temporary:
        size = _size(model.save(Path(temporary) / EMBEDDED))
    if size > MAX_BYTES:
        raise ValueError(f"The model has {size / 1e6:.1f} MB; the package holds at most {MAX_BYTES / 1e6:.0f} MB.")
    model.save(out)


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Train the embedded model.")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds her2st/, singlecell/ and text/")
    parser.add_argument(
        "--out", type=Path, default=embedded_folder(), help="folder of the model (default: that of the package)"
    )
    parser.add_argument("--gene-encoder", default="scvi", choices=("pca", "scvi"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="few sections: shows that everything runs")
    parser.add_argument("--held-out", type=Path, help="folder for the tables of the patients that are left out")
    parser.add_argument(
        "--only-range",
        action="store_true",
        help="measure the distances of the training images anew, and leave all else of the model in --out as it is",
    )
    options = parser.parse_args(arguments)
    logging.getLogger("scvi").setLevel(logging.WARNING)
    if options.only_range:
        write(with_image_range(options.out, load(options.data)), options.out)
        return 0
    model = train_default(
        options.data,
        options.out,
        gene_encoder=options.gene_encoder,
        seed=options.seed,
        smoke=options.smoke,
        held_out=options.held_out,
    )
    described = model.config.to_json()
    print(json.dumps({k: described[k] for k in ("annotation", "card")}, indent=1), file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
