"""Choose a recipe on the training sections alone, and report it beside other routes on sections that no choice has seen.

Every outer fold leaves out a patient with its texts, or a section. On the rest a candidate is chosen by leaving out patients,
sections or blocks. The chosen candidate is trained on all of the rest, and scored once.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer._messages import inform
from spatialwhisperer.protocols import captions
from spatialwhisperer.protocols.annotation import references
from spatialwhisperer.protocols.annotation.paired import null_p_values, over_sections, paired
from spatialwhisperer.protocols.annotation.scores import aurocs, near_truth
from spatialwhisperer.protocols.nested.bridge import candidate_scores, train_bridge
from spatialwhisperer.protocols.nested.candidates import EMBEDDED, FEATURES, candidates, choose, means, usable
from spatialwhisperer.protocols.nested.folds import OUTER, inner_folds, unit_kind, units_of
from spatialwhisperer.protocols.nested.materials import load, standardised
from spatialwhisperer.protocols.nested.tables import report
from spatialwhisperer.protocols.output import write_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData

    from spatialwhisperer.protocols.nested.bridge import Bridge
    from spatialwhisperer.protocols.nested.candidates import Candidate
    from spatialwhisperer.protocols.nested.folds import Outer
    from spatialwhisperer.protocols.nested.materials import Materials

SMOKE_FEATURES = tuple(FEATURES)[:2]


def run(
    data: Path, out: Path, *, gene_encoder: str = "pca", n_nulls: int = 50, seed: int = 0, smoke: bool = False
) -> pd.DataFrame:
    """Run all outer folds and write ``nested.csv``, ``nested_choices.csv``, ``nested_paired.csv``, ``nested_null.csv`` and ``nested.md``.

    Parameters
    ----------
    data
        Folder that holds ``her2st/`` and ``singlecell/``.
    out
        Folder of the results.
    gene_encoder
        "pca" or "scvi".
    n_nulls
        Shufflings of the image–gene pairs of each outer fold.
    seed
        Of scVI; nothing else is random.
    smoke
        Use one outer fold, few candidates and five shufflings, to show that everything runs.

    Returns
    -------
    AUROC of every class, method and section.
    """
    start = time.perf_counter()
    folds, features = (OUTER[3:4], SMOKE_FEATURES) if smoke else (OUTER, tuple(FEATURES))
    n_nulls = 5 if smoke else n_nulls
    materials = load(data, dict.fromkeys(n for f in folds for n in (*f.train, *f.tests)), features, smoke=smoke)
    materials.gene_encoder, materials.seed = gene_encoder, seed
    found = [_outer_fold(fold, materials, features, n_nulls) for fold in folds]
    table = pd.concat([row for f in found for row in f.rows], ignore_index=True)
    choices = pd.concat([f.choice for f in found], ignore_index=True)
    pairs = pd.concat([d for f in found for d in f.differences], ignore_index=True)
    nulls = split_p_values(table)
    files = {"nested": table, "nested_choices": choices, "nested_paired": pairs, "nested_null": nulls}
    for name, frame in files.items():
        write_text(out / f"{name}.csv", frame.to_csv(index=False))
    text = report(table, choices, over_sections(pairs), nulls, n_nulls, time.perf_counter() - start)
    write_text(out / "nested.md", text)
    print(text)
    return table


def strict_truth(table: AnnData) -> pd.DataFrame:
    """Regions whose labels are the section's own or come from less than 50 µm away, and cell types of the deconvolution."""
    truth = captions.targets(table)
    return pd.concat([near_truth(truth, table), truth[list(captions.CELLS)]], axis=1)


def split_p_values(table: pd.DataFrame) -> pd.DataFrame:
    """How often shuffled pairs reach the mean AUROC of a class over the sections of a split; columns as `null_p_values` has them."""
    mean = table.groupby(["split", "class", "method", "seed"], sort=False)["auroc"].mean().reset_index()
    return null_p_values(mean.assign(test="mean", truth="all"), {"product": "null"})


@dataclass
class _Found:
    """Results of an outer fold, ready to be joined."""

    choice: pd.DataFrame
    rows: list[pd.DataFrame] = field(default_factory=list)
    differences: list[pd.DataFrame] = field(default_factory=list)


def _outer_fold(fold: Outer, materials: Materials, features: Sequence[str], n_nulls: int) -> _Found:
    """Choose, train and score."""
    start = time.perf_counter()
    to_choose = candidates(usable(materials.parts((*fold.train, *fold.tests)), features))
    inner, kind = inner_scores(fold, materials, to_choose)
    name = choose(inner)
    chosen = next(c for c in to_choose if c.name == name)
    out = _Found(_choice(fold, inner, name, kind))
    train, tests = standardised(
        [materials.images[n] for n in fold.train],
        [materials.images[n] for n in fold.tests],
        [n for n in features if n in {c.features for c in to_choose}],
    )
    texts, encoder = materials.without(frozenset(fold.patient))
    bridge = train_bridge(train, texts, encoder, chosen)
    each = candidate_scores(bridge, tests, to_choose)
    truths = [strict_truth(t) for t in tests]
    best = _best(each, truths)
    nulls = [bridge.shuffled(chosen.features, s) for s in range(n_nulls)]
    for i, (section, test, truth) in enumerate(zip(fold.tests, tests, truths, strict=True)):
        place = {"split": fold.split, "test": section}
        scored = {
            **_routes(bridge, train, test, texts, encoder, chosen.features),
            "embedded": each[EMBEDDED.name][i],
            "hindsight": each[best][i],
        }
        out.rows += [aurocs(s, truth).assign(method=m, seed=0, **place) for m, s in scored.items()]
        draws = [bridge.scores(w, test, chosen) for w in nulls]
        out.rows += [aurocs(s, truth).assign(method="null", seed=k, **place) for k, s in enumerate(draws)]
        out.differences.append(paired(scored, truth, test, ["product"]).assign(**place))
    inform(f"{fold.split}: {', '.join(fold.tests)} by {name}, {time.perf_counter() - start:.0f} s")
    return out


def inner_scores(fold: Outer, materials: Materials, to_choose: Sequence[Candidate]) -> tuple[pd.DataFrame, str]:
    """Macro AUROC of each candidate in each training section, whose rows are scored by models that have not seen them.

    Parameters
    ----------
    fold
        The outer fold. Its reported sections are not read.
    materials
        Sections and texts.
    to_choose
        The candidates.

    Returns
    -------
    Columns ``candidate``, ``patient``, ``section`` and ``auroc``, and what was left out.
    """
    tables = [materials.images[n] for n in fold.train]
    units = units_of(tables)
    features = list(dict.fromkeys(c.features for c in to_choose))
    left_out = {
        (c.name, n): np.full((t.n_obs, len(captions.TARGETS)), np.nan)
        for c in to_choose
        for n, t in zip(fold.train, tables, strict=True)
    }
    for inner in inner_folds(fold.train, tables, units):
        train, tests = standardised(inner.train, [t for _, t, _ in inner.tests], features)
        texts, encoder = materials.without(inner.patients | {fold.patient})
        bridge = train_bridge(train, texts, encoder, to_choose[0])
        for name, scores in candidate_scores(bridge, tests, to_choose).items():
            for (section, _, rows), frame in zip(inner.tests, scores, strict=True):
                left_out[name, section][rows] = frame.to_numpy()[rows]
    truths = {n: strict_truth(t) for n, t in zip(fold.train, tables, strict=True)}
    macro = [
        (name, section[0], section, _macro(pd.DataFrame(scores, columns=list(captions.TARGETS)), truths[section]))
        for (name, section), scores in left_out.items()
    ]
    return pd.DataFrame(macro, columns=["candidate", "patient", "section", "auroc"]), unit_kind(tables, units)


def _routes(
    bridge: Bridge, train: Sequence[AnnData], test: AnnData, texts: Sequence[AnnData], encoder: Any, key: str
) -> dict[str, pd.DataFrame]:
    """Scores of a section by the model, and by the other routes from the same image features."""
    return {
        "product": _zero_shot(bridge, test, "image"),
        "darkness": references.darkness(train, test),
        "ridge": references.two_stage(train, test, texts, encoder, key, several=True, how="none"),
        "probe": references.probe(train, test, key, how="none"),
        "own probe": references.own_probe(test, key, how="none"),
        "expression": _zero_shot(bridge, test, "gene"),
    }


def _zero_shot(bridge: Bridge, test: AnnData, modality: str) -> pd.DataFrame:
    scores = sw.tl.zero_shot_annotate(test, captions.TARGETS, model=bridge.model, modality=modality, inplace=False)
    if scores is None:
        raise TypeError("zero_shot_annotate(inplace=False) returns the scores.")
    return scores.reset_index(drop=True)


def _choice(fold: Outer, inner: pd.DataFrame, name: str, kind: str) -> pd.DataFrame:
    """All candidates of a fold, with their mean on the inner folds."""
    found = means(inner).rename("inner").rename_axis("candidate").reset_index()
    return found.assign(
        split=fold.split,
        reported=", ".join(fold.tests),
        chosen_on=", ".join(fold.train),
        left_out=kind,
        chosen=found["candidate"] == name,
    )


def _best(scores: dict[str, list[pd.DataFrame]], truths: Sequence[pd.DataFrame]) -> str:
    """Name of the candidate that is best on the reported sections themselves."""
    macro = {c: np.mean([_macro(s, t) for s, t in zip(each, truths, strict=True)]) for c, each in scores.items()}
    return max(macro, key=lambda c: macro[c])


def _macro(scores: pd.DataFrame, truth: pd.DataFrame) -> float:
    return float(aurocs(scores, truth)["auroc"].mean())
