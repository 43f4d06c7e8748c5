"""How well tissue that a model does not know is told from tissue that it knows.

Positives are breast sections of a patient that was left out, negatives other tissue, other stains and spoilt sections. Distances and
limits are refitted without the patient, from the image features alone; no model is trained. The limits never see a negative.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialwhisperer._messages import inform
from spatialwhisperer.models.reference import Reference, ReferenceConfig
from spatialwhisperer.models.training_range import look_scale, nearest, on_tissue, unseen_distances, unseen_looks
from spatialwhisperer.protocols.annotation.guard.figure import Judged, draw
from spatialwhisperer.protocols.annotation.guard.tissue import breast, changed, foreign
from spatialwhisperer.protocols.output import markdown, write_text
from spatialwhisperer.statistics.standardize import MIN_ROWS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from spatialwhisperer.protocols.annotation.guard.tissue import Tissue

PATIENT, SECTION = "breast, patient left out", "breast, section left out"


def run(data: Path, out: Path, *, smoke: bool = False) -> pd.DataFrame:
    """Measure every set and write ``guard.csv``, ``guard.md`` and ``guard.png``.

    Parameters
    ----------
    data
        Folder of the data.
    out
        Folder of the results.
    smoke
        Use few sections, to show that everything runs.
    """
    known, others = breast(data, smoke=smoke), foreign(data, smoke=smoke)
    inform("spoilt sections")
    others |= changed(data, smoke=smoke)
    table, distances = measure(known, others)
    write_text(out / "guard.csv", table.to_csv())
    text = markdown(_rounded(table)) + "\n"
    write_text(out / "guard.md", text)
    draw(distances, reference_of(known), out / "guard.png")
    print(text)
    return table


def measure(
    known: Mapping[str, Tissue], others: Mapping[str, Mapping[str, Tissue]]
) -> tuple[pd.DataFrame, dict[str, list[Judged]]]:
    """Compare training sections with those of other patients, and everything else with all of them.

    Parameters
    ----------
    known
        Training sections; the first letter of a name is the patient.
    others
        Other sections, by set and section.

    Returns
    -------
    The table, and by set how each section compares: the training sections with those of other patients, the others with all.
    """
    folds = {p: reference_of({n: x for n, x in known.items() if n[0] != p}) for p in patients(known)}
    crossed = {p: with_limits_without(p, known, reference) for p, reference in folds.items()}
    whole = reference_of(known)
    tested = {p: {n: x for n, x in known.items() if n[0] == p} for p in folds}
    unseen = {p: [judge(x, folds[p]) for x in tested[p].values()] for p in folds}
    distances = {PATIENT: [part for parts in unseen.values() for part in parts]}
    rows = [
        {
            "set": PATIENT,
            "sections": len(known),
            "rows": sum(map(len, known.values())),
            "one patient": np.mean([fraction(parts) for parts in unseen.values()]),
            "two patients": np.mean([fraction([judge(x, crossed[p]) for x in tested[p].values()]) for p in folds]),
        },
        _section_left_out(known),
    ]
    for name, parts in others.items():
        found = {p: [judge(x, folds[p]) for x in parts.values()] for p in folds}
        distances[name] = [judge(x, whole) for x in parts.values()]
        rows.append(
            {
                "set": name,
                "sections": len(parts),
                "rows": sum(map(len, parts.values())),
                "AUROC, rows": np.mean([_auroc(unseen[p], found[p], rows=True) for p in folds]),
                "AUROC, sections": np.mean([_auroc(unseen[p], found[p], rows=False) for p in folds]),
                "one patient": np.mean([fraction(f) for f in found.values()]),
                "two patients": np.mean([fraction([judge(x, crossed[p]) for x in parts.values()]) for p in folds]),
                "embedded model, rows alone": fraction(distances[name], alone=True),
                "embedded model": fraction(distances[name]),
            }
        )
    columns = ["sections", "rows", "AUROC, rows", "AUROC, sections", "one patient", "two patients"]
    return pd.DataFrame(rows).set_index("set")[[*columns, "embedded model, rows alone", "embedded model"]], distances


def patients(known: Mapping[str, Tissue]) -> list[str]:
    """Patients of the sections."""
    return sorted({name[0] for name in known})


def reference_of(known: Mapping[str, Tissue]) -> Reference:
    """What a model that was trained on these sections holds of their images."""
    parts = [tissue.features for tissue in known.values()]
    looks = np.array([tissue.look for tissue in known.values()])
    mean = np.stack([x.mean(axis=0, dtype=np.float64) for x in parts]).astype(np.float32)
    std = np.stack([x.std(axis=0, dtype=np.float64) for x in parts]).astype(np.float32)
    kind, row, section = unseen_distances(parts, [name[0] for name in known], mean, std)
    config = ReferenceConfig(sections=tuple(known), encoder="stain_texture", unseen=kind)
    arrays = {"feature_mean": mean, "feature_std": std, "unseen_row": row, "unseen_section": section}
    arrays |= {"look": looks.astype(np.float32), "unseen_look": unseen_looks(looks, [name[0] for name in known])}
    return Reference(config, arrays)


def with_limits_without(patient: str, known: Mapping[str, Tissue], reference: Reference) -> Reference:
    """The reference of the other patients, with limits between patients that the tissue of one patient did not set.

    The limits of a model of two patients come from comparing both ways. Here the way in which the patient is compared with the others
    is left out, and the way in which the others are compared with it stays.
    """
    own = reference_of({n: x for n, x in known.items() if n[0] == patient})
    others = [x for n, x in known.items() if n[0] != patient]
    distance = np.concatenate([own.row_distance(x.features) for x in others])
    section = np.array([own.image_distance(x.features) for x in others], np.float32)
    centres, sd = look_scale(own.arrays["look"].astype(np.float64))
    looks = np.array([nearest(np.array(x.look)[None, : len(sd)], centres, sd)[0] for x in others], np.float32)
    row = np.quantile(distance, np.linspace(0, 1, len(reference.arrays["unseen_row"]))).astype(np.float32)
    # one for each row of "look": the largest sets the limit
    looks = np.full(len(reference.arrays["look"]), looks.max(), np.float32)
    arrays = reference.arrays | {"unseen_row": row, "unseen_section": section, "unseen_look": looks}
    return Reference(replace(reference.config, unseen="groups"), arrays)


def judge(section_tissue: Tissue, reference: Reference) -> Judged:
    """Compare a section as an annotation does."""
    x, look = section_tissue
    tissue = on_tissue(x, reference.config.encoder)
    section = reference.image_distance(x[tissue]) if tissue.any() else np.inf
    seen = reference.look_distance(look) or 0.0
    whole = max(seen, section if tissue.sum() >= MIN_ROWS else 0.0) > reference.image_limit()
    section = max(section, seen)
    limit = reference.row_limit()
    if limit is None:
        raise ValueError("This reference holds no distances of left-out training tissue.")
    rows = reference.row_distance(x)
    alone = float((rows > limit).mean())
    return Judged(rows, float(section), alone, 1.0 if whole else alone)


def fraction(parts: Iterable[Judged], *, alone: bool = False) -> float:
    """Fraction of the rows of some sections that get no label, or that are out of range by themselves."""
    parts = list(parts)
    n = np.array([len(p.rows) for p in parts])
    return float(np.average([p.alone if alone else p.abstain for p in parts], weights=n))


def _section_left_out(known: Mapping[str, Tissue]) -> dict[str, Any]:
    """Sections whose patient has others are compared with all sections but themselves."""
    several = [n for n in known if sum(o[0] == n[0] for o in known) > 1]
    parts = [judge(known[n], reference_of({o: x for o, x in known.items() if o != n})) for n in several]
    return {
        "set": SECTION,
        "sections": len(parts),
        "rows": sum(len(known[n]) for n in several),
        "embedded model, rows alone": fraction(parts, alone=True),
        "embedded model": fraction(parts),
    }


def _auroc(known: list[Judged], other: list[Judged], *, rows: bool) -> float:
    from sklearn.metrics import roc_auc_score

    a, b = (np.concatenate([np.atleast_1d(p.rows if rows else p.section) for p in parts]) for parts in (known, other))
    return float(roc_auc_score(np.r_[np.zeros(len(a)), np.ones(len(b))], np.nan_to_num(np.r_[a, b], posinf=1e9)))


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    text = table.astype(object)
    for name in table.columns:
        if name not in ("sections", "rows"):
            text[name] = [None if pd.isna(v) else f"{v:.3f}" for v in table[name]]
    return text
