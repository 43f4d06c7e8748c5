"""The recipe of the embedded model and its changes on patients that they have not seen.

Each patient with an image is left out in turn, with images and texts, and its sections are annotated by a model of the others.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer._messages import inform
from spatialwhisperer.protocols import captions
from spatialwhisperer.protocols.ablation.materials import Sections
from spatialwhisperer.protocols.ablation.report import draw, report, summary
from spatialwhisperer.protocols.ablation.variants import BASE, chosen
from spatialwhisperer.protocols.annotation.scores import aurocs
from spatialwhisperer.protocols.default_model.recipe import gene_encoder, load, text_features
from spatialwhisperer.protocols.output import write_text

if TYPE_CHECKING:
    from pathlib import Path

    from spatialwhisperer.models import GeneEncoder, Whisperer
    from spatialwhisperer.protocols.ablation.variants import Variant

COLUMNS = ("row", "part", "change", "against", "patient", "section", "class", "auroc")


def run(
    data: Path, out: Path, *, parts: tuple[str, ...] = (), slow: bool = False, seed: int = 0, smoke: bool = False
) -> pd.DataFrame:
    """Measure every row and write ``ablation.csv``, ``ablation.md`` and ``ablation.png``.

    Parameters
    ----------
    data
        Folder of the data.
    out
        Folder of the results.
    parts
        Parts of the recipe that are changed; none takes all.
    slow
        Whether to train the rows that take long, too.
    seed
        Of everything random.
    smoke
        Use few sections, to show that everything runs.

    Returns
    -------
    One row for each change: see :func:`~spatialwhisperer.protocols.ablation.report.summary`.
    """
    sections = Sections(load(data, smoke=smoke))
    encoders: dict[str, GeneEncoder] = {}
    rows: list[pd.DataFrame] = []
    left_out: dict[str, str] = {}
    for variant in chosen(parts, slow=slow):
        start = time.perf_counter()
        why = sections.too_coarse(variant.images)
        if why is None:
            try:
                rows += [_score(variant, p, sections, encoders, seed) for p in sections.data.patients]
            except (ImportError, FileNotFoundError) as error:
                # weights that are not on this machine are no reason to lose the other rows
                why = str(error)
        if why is not None:
            left_out[variant.name] = why
        inform(f"{variant.name}: {time.perf_counter() - start:.0f} s")
        write_text(out / "ablation.csv", pd.concat(rows).to_csv(index=False))
    table = summary(pd.concat(rows))
    text = report(table, left_out)
    write_text(out / "ablation.md", text)
    draw(table).savefig(out / "ablation.png", dpi=110)
    print(text)
    return table


def train(variant: Variant, patient: str, sections: Sections, encoders: dict[str, GeneEncoder], seed: int) -> Whisperer:
    """Train a row without a patient.

    Parameters
    ----------
    variant
        The row.
    patient
        Patient that is left out.
    sections
        What is trained on.
    encoders
        PCA of the genes by the patient that is left out, which rows with the same tables have in common. It is added to.
    seed
        Of everything random.
    """
    data, recipe = sections.data, variant.recipe
    key = sections.with_features(variant.images)
    images = [t for n, t in sections.tables.items() if n[0] != patient]
    captioned = [t for n, t in data.texts.items() if n[0] != patient]
    if variant.cells:
        captioned.append(data.cells)
    words = [w for w in data.words if variant.negations or w.kind != "negation"]
    preset = sw.models.get_preset(recipe.preset).replace(schedule=recipe.schedule, refine="never")
    preset = preset.replace(standardize={**preset.standardize, "image": variant.standardize}).replace(**variant.preset)
    text = text_features(recipe, captioned, words)
    if preset.letter("text") == "L":
        text = replace(text, encoder=sections.texts)
    shared = recipe.gene_encoder == "pca" and variant.cells
    fitted = encoders.get(patient) if shared else None
    with tempfile.TemporaryDirectory() as folder:
        model = sw.tl.train(
            [*images, *captioned],
            preset=preset,
            image=sw.tl.ImageFeatures(key=key),
            gene=sw.tl.GeneFeatures(fitted or gene_encoder(recipe, captioned, seed), batch_key=recipe.batch_key),
            text=text,
            expression=False,
            random_state=seed,
            folder=folder,
        )
    if shared:
        encoders[patient] = model.encoders["gene"]  # type: ignore[assignment]
    return model


def _score(
    variant: Variant, patient: str, sections: Sections, encoders: dict[str, GeneEncoder], seed: int
) -> pd.DataFrame:
    """AUROC of each class in each section of a patient, by a model of the others."""
    model = train(variant, patient, sections, encoders, seed)
    found = []
    for name, table in sections.tables.items():
        if name[0] == patient:
            scores = sw.tl.zero_shot_annotate(
                table, captions.TARGETS, model=model, modality="image", normalize="none", inplace=False
            )
            found.append(aurocs(scores, captions.targets(table)).assign(section=name))
    against = variant.against or (None if variant.name == BASE else BASE)
    plain = {
        "row": variant.name,
        "part": variant.part,
        "change": variant.change,
        "against": against,
        "patient": patient,
    }
    return pd.concat(found).assign(**plain)[list(COLUMNS)]
