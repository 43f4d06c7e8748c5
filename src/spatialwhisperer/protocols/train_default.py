"""Train the embedded model: ``python -m spatialwhisperer.protocols.train_default --data FOLDER [--out FOLDER] [--seed 0]``.

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

import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer._messages import inform
from spatialwhisperer.models.default import NAME, weights_folder
from spatialwhisperer.protocols import held_out
from spatialwhisperer.protocols import her2st_text as words
from spatialwhisperer.protocols.default_labels import LABELS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spatialwhisperer.models import Vocabulary, Whisperer

ONTOLOGY = "cell_ontology_2022-09-15.tsv.gz"
LABEL_MAP = "label_map.tsv"
MAX_BYTES = 8_000_000


def train_default(
    data: Path, out: Path, *, gene_encoder: str = held_out.RECIPE["gene_encoder"], seed: int = 0, smoke: bool = False
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
    for name in (ONTOLOGY, LABEL_MAP):
        if not (data / "text" / name).is_file():
            raise FileNotFoundError(f"{data / 'text' / name} is not there.")
    materials = held_out.load(data, smoke=smoke)
    recipe = held_out.RECIPE | {"gene_encoder": gene_encoder}
    unseen = {p: held_out.leave_patient_out(p, materials, recipe, seed) for p in materials.patients}
    inform("all patients")
    model = materials.fit(recipe, seed)
    model.vocabulary = vocabulary(data, model)
    model.config["annotation"] = held_out.calibration(unseen, 1 / model.scale)
    model.config["card"] = card(materials, unseen, recipe, seed)
    write(model, out)
    inform(f"{out}: {_size(out) / 1e6:.1f} MB in {time.perf_counter() - start:.0f} s")
    return model


def vocabulary(data: Path, model: Whisperer) -> Vocabulary:
    """Default labels, Cell Ontology names and synonyms, and their text features."""
    ontology = sw.models.Ontology.read(data / "text" / ONTOLOGY)
    known = pd.read_csv(data / "text" / LABEL_MAP, sep="\t", dtype=str)
    ids = dict.fromkeys([*(label["cl"] for label in LABELS.values()), *known["cl_id"].dropna()])
    part = ontology.subset(ids)
    texts = [text for label in LABELS.values() for text in label["prompts"]]
    texts += [text for group in words.TARGETS.values() for text in group]
    for term in part.terms.values():
        texts += [term.name, *(term.synonyms if term.id in ids else ())]
    texts = list({text.casefold(): text for text in reversed(texts)}.values())[::-1]
    features = sw.pp.embed_texts(texts, encoder=model.config["encoders"]["text"]["name"])
    return sw.models.Vocabulary(LABELS, texts, features, part)


def card(
    materials: held_out.Data,
    unseen: Mapping[str, Sequence[held_out.HeldOut]],
    recipe: Mapping[str, Any],
    seed: int,
) -> dict[str, Any]:
    """What the model says about itself."""
    return {
        "name": NAME,
        "tissue": "HER2-positive breast cancer",
        "use": "Research on H&E sections of breast cancer. Not for diagnosis.",
        "data": "Andersson et al. 2021 (CC BY 4.0), single cells of Wu et al. 2021, Cell Ontology 2022-09-15 (CC BY 4.0)",
        "sections_with_image": sorted(materials.images),
        "sections_with_text": sorted(materials.texts),
        "patients": sorted({name[0] for name in [*materials.images, *materials.texts]}),
        "recipe": dict(recipe),
        "seed": seed,
        "held_out_macro_auroc": {
            part.section: round(float(part.auroc["auroc"].mean()), 4) for parts in unseen.values() for part in parts
        },
        "versions": {p: version(p) for p in ("spatialwhisperer", "torch", "scvi-tools", "numpy")},
        "command": "python -m spatialwhisperer.protocols.train_default --data FOLDER",
    }


def write(model: Whisperer, out: Path) -> None:
    """Check the size in a temporary folder, then put the model in place."""
    with tempfile.TemporaryDirectory() as temporary:
        size = _size(model.save(Path(temporary) / NAME))
    if size > MAX_BYTES:
        raise ValueError(f"The model has {size / 1e6:.1f} MB; the package holds at most {MAX_BYTES / 1e6:.0f} MB.")
    model.save(out)


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(
        prog="python -m spatialwhisperer.protocols.train_default", description="Train the embedded model."
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds her2st/, singlecell/ and text/")
    parser.add_argument("--out", type=Path, default=weights_folder(), help="folder of the model; the package's own")
    parser.add_argument("--gene-encoder", default=held_out.RECIPE["gene_encoder"], choices=("pca", "scvi"))
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
