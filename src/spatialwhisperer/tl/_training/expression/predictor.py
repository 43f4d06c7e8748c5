"""Training of the predictor of expression: choice of genes, their values, the bank, and the held-out accuracy of each gene."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from spatialwhisperer._access.table.counts import align_counts, find_genes, match_genes, matched_genes
from spatialwhisperer._messages import inform, listing, progress, warn
from spatialwhisperer.models.expression.config import ExpressionConfig
from spatialwhisperer.models.expression.fit import fit_predictor
from spatialwhisperer.pp.gene_selection import select_genes
from spatialwhisperer.statistics.expression.gene_numbers import (
    GeneNumbers,
    different_scales,
    gene_numbers,
    joined_numbers,
)
from spatialwhisperer.statistics.expression.value_spaces import OVER_ALL, to_space
from spatialwhisperer.tl._training.expression.held_out import OWN, with_accuracy, with_own_accuracy
from spatialwhisperer.tl._training.expression.regression import FEWEST, with_own_regression
from spatialwhisperer.tl._training.expression.values import Values
from spatialwhisperer.tl._training.fitting import Plan, fit_model

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from spatialwhisperer.models.configuration.parts import Preset
    from spatialwhisperer.models.expression.predictor import ExpressionPredictor
    from spatialwhisperer.models.whisperer import Whisperer
    from spatialwhisperer.retrieval.rule import Retrieval
    from spatialwhisperer.tl._training.expression.regression import OwnInputs
    from spatialwhisperer.tl._training.inputs import Inputs
    from spatialwhisperer.tl._training.sources import Source
    from spatialwhisperer.training.batches import Items

MOST = 0.9
"""Fraction of the predicted genes that a section without an image must have to be used; its other genes count as zero."""

LISTS = 50
"""Genes in the lists HEG50 and HVG50."""


def choose_genes(
    sources: Sequence[Source],
    genes: str | Sequence[str] | None,
    preset: Preset,
    held_out: set[str],
    layer: str | None,
) -> tuple[list[str], list[str]]:
    """Names and Ensembl ids of the genes that were named, or that the rule of the preset chooses on training rows.

    Raises
    ------
    KeyError
        If a gene that is named is not in the counts of every object with images.
    ValueError
        If there is no object with image and counts, or their genes have nothing in common.
    """
    tables = []
    for source in _paired(sources):
        keep = ~source.of_groups(held_out)
        if keep.any():
            tables.append(source.table if keep.all() else source.table[keep])
    if not tables:
        raise ValueError(
            "No training object holds both an image and counts, which the prediction of expression learns from."
        )
    columns, names, ids = matched_genes(tables)
    if genes is None:
        spec = preset.expression
        chosen = select_genes(tables, method=spec.genes, n_top=spec.n_genes, layer=layer)  # type: ignore[union-attr]
        at = np.flatnonzero(tables[0].var_names.isin(chosen))
    else:
        at = _named(genes, names, ids, (columns >= 0).all(axis=0))
    return [names[i] for i in at], [ids[i] for i in at]


def _named(genes: str | Sequence[str], names: Sequence[str], ids: Sequence[str], everywhere: np.ndarray) -> np.ndarray:
    """Positions of the genes that were named by name or Ensembl id, each once."""
    asked = [genes] if isinstance(genes, str) else [str(g) for g in genes]
    at = find_genes(asked, names, ids)
    missing = [gene for gene, i in zip(asked, at, strict=True) if i < 0 or not everywhere[i]]
    if missing:
        raise KeyError(
            f"genes not in the counts: {listing(sorted(set(missing)))}. Every object with images must have them, by name or Ensembl id "
            f"(found: {listing(names, 5)})."
        )
    return np.array(list(dict.fromkeys(at.tolist())), dtype=np.int64)


def _paired(sources: Sequence[Source]) -> list[Source]:
    return [s for s in sources if {"image", "gene"} <= s.has]


def read_values(
    sources: Sequence[Source],
    inputs: Inputs,
    genes: Sequence[str],
    gene_ids: Sequence[str],
    *,
    preset: Preset,
    layer: str | None,
    values_layer: str | None,
    held_out: set[str],
) -> Values:
    """Expression of every row with image and counts, in the value space of the preset or from a layer as it is.

    Raises
    ------
    KeyError
        If an object has no such layer.
    ValueError
        If a layer holds values that are not finite, or the preset predicts no expression.
    """
    if preset.expression is None:
        raise ValueError(f"The preset {preset.name!r} predicts no expression.")
    space = preset.expression.value_space
    rows = inputs.observations
    both = np.asarray((rows["image"] >= 0) & (rows["gene"] >= 0))
    blocks = []
    unpaired: dict[str, sp.csr_matrix] = {}
    groups: dict[str, set[str]] = {}
    scaled_over: dict[str, GeneNumbers] = {}
    for number, source in enumerate(sources):
        inside = np.asarray(rows["source"] == number)
        if (both & inside).any():
            matrix, numbers = _source_values(source, genes, gene_ids, space, layer, values_layer)
            blocks.append(matrix[both[inside]])
        elif _serves(source, genes, gene_ids, values_layer) and not set(source.group.astype(str)) & held_out:
            matrix, numbers = _source_values(source, genes, gene_ids, space, layer, None)
            unpaired |= {str(code): matrix[source.section == code] for code in np.unique(source.section)}
            groups |= {
                str(code): set(source.group[source.section == code].astype(str)) for code in np.unique(source.section)
            }
        else:
            continue
        if numbers is not None:
            scaled_over[source.name] = numbers
    matrix = sp.vstack(blocks, format="csr").astype(np.float32)
    stated = "as given" if values_layer else space
    measured = _measured(scaled_over)
    return Values(list(genes), list(gene_ids), matrix, np.flatnonzero(both), stated, unpaired, groups, measured)


def _measured(scaled_over: Mapping[str, GeneNumbers]) -> GeneNumbers | None:
    """Genes over which spots are scaled; a warning names the objects whose values are on another scale than those of others."""
    if text := different_scales(scaled_over):
        warn(
            f"{text} Their expression is on different scales, and predictions are a mixture of both. Pass objects with the same genes, such "
            "as adata[:, genes].copy()."
        )
    return joined_numbers(scaled_over.values())


def _serves(source: Source, genes: Sequence[str], ids: Sequence[str], values_layer: str | None) -> bool:
    """Whether an object without an image can help to find components of expression: it is spatial and has nearly all genes."""
    spatial = source.xy is not None and values_layer is None and "image" not in source.has and "gene" in source.has
    return spatial and bool((match_genes(genes, ids, source.table) >= 0).sum() >= MOST * len(genes))


def _source_values(
    source: Source, genes: Sequence[str], ids: Sequence[str], space: str, layer: str | None, values_layer: str | None
) -> tuple[sp.csr_matrix, GeneNumbers | None]:
    """Values of the genes, and over how many genes they were scaled, where values depend on all genes of the table."""
    if values_layer is not None:
        if values_layer not in source.table.layers:
            raise KeyError(
                f"values_layer={values_layer!r} not in .layers of {source.name} ({listing(source.table.layers)})."
            )
        columns = match_genes(genes, ids, source.table)
        if (columns < 0).any():
            missing = [gene for gene, j in zip(genes, columns, strict=True) if j < 0]
            raise KeyError(f"genes without values in .layers[{values_layer!r}] of {source.name}: {listing(missing)}.")
        values = sp.csr_matrix(source.table[:, columns].layers[values_layer], dtype=np.float32)
        if not np.isfinite(values.data).all():
            raise ValueError(f".layers[{values_layer!r}] of {source.name} holds values that are not finite.")
        return values, None
    counts, _, library, of_table = align_counts(list(genes), list(ids), source.table, layer)
    values = to_space(sp.csr_matrix(counts), space, library=library, sections=source.section)
    return values, gene_numbers(of_table) if space in OVER_ALL else None


def with_values(items: Items, values: Values, n_rows: int) -> Items:
    """Items with the expression of their row, for a decoder."""
    position = np.full(n_rows, -1)
    position[values.rows] = np.arange(len(values.rows))
    return replace(items, values=values.matrix, value_index=position[items.row])


def attach_predictor(
    model: Whisperer,
    inputs: Inputs,
    items: Items,
    values: Values,
    plan: Plan,
    sources: Sequence[Source],
    *,
    own: OwnInputs | None = None,
    cross_validate: bool,
    folder: Path,
    resume: bool = False,
) -> None:
    """Set ``model.expression``, with the accuracy of each gene on held-out training groups where it is measured.

    Each group is held out by a run of its own, in a folder of its own; a resumed run continues after those that were finished.
    """
    training = np.isin(values.rows, items.row)
    known = np.concatenate([source.row_ids for source in sources])[values.rows[training]]
    model.expression = _predictor(model, inputs, values, training, plan, own, known)
    k, asked = model.expression.config.retrieval.k, plan.preset.expression.retrieval.k  # type: ignore[union-attr]
    if k != asked:
        warn(
            f"The preset averages {asked} neighbours, and there are {k} training rows: retrieval averages all of them."
        )
    if not cross_validate:
        return
    rows = inputs.observations.iloc[values.rows]
    folds = _folds(rows[training])
    if len(folds) < 2:
        inform("One section with images: how well each gene is predicted on held-out tissue was not measured.")
        return
    repeat = partial(_out_of_fold, inputs, items, values, training, plan, own, resume=resume)
    predicted = repeat(folds, training, folder, "fold")
    model.expression = with_accuracy(model.expression, predicted, values, training, inputs.observations)
    if own is None:
        return
    if OWN not in predicted:
        # without the only patient with fine images none are left, so its sections are left out one by one
        fine = training & np.isfinite(own.x[values.rows]).all(axis=1)
        folds = _folds(rows[fine])
        predicted = repeat(folds[len(rows[fine]) - folds >= FEWEST], fine, folder, "own-fold")
    model.expression = with_own_accuracy(model.expression, predicted, values, inputs.observations)


def _predictor(
    model: Whisperer,
    inputs: Inputs,
    values: Values,
    keep: np.ndarray,
    plan: Plan,
    own: OwnInputs | None = None,
    known: np.ndarray | None = None,
) -> ExpressionPredictor:
    """Predictor with a bank of training observations, and regressions fitted on them."""
    spec = plan.preset.expression
    if spec is None:
        raise ValueError(f"The preset {plan.preset.name!r} predicts no expression.")
    rows = inputs.observations.iloc[values.rows[keep]]
    matrix = values.matrix[keep]
    sections = rows["section"].to_numpy()
    trained = "image" in model.towers
    config = ExpressionConfig(
        genes=tuple(values.genes),
        gene_ids=tuple(values.gene_ids),
        value_space=values.space,
        retrieval=_reachable(spec.retrieval, len(rows)),
        method=spec.method,  # type: ignore[arg-type]
        regression="decoder" if model.decoder is not None else "embedding" if trained else "features",
        regression_rank=spec.regression_rank,
        gene_lists={name: tuple(genes) for name, genes in gene_lists(matrix, values.genes, sections).items()},
        measured=values.measured,
    )
    xy = {m: rows[["x", "y"]].to_numpy() for m in model.contexts}
    raw = inputs.rows_of("image", rows)
    where = {"sections": sections, "positions": xy.get("image")}
    image = model.project("image", raw, unit=False, **where)
    gene = None
    if spec.retrieval.key == "gene":
        gene = model.project(
            "gene", inputs.rows_of("gene", rows), unit=False, sections=sections, positions=xy.get("gene")
        )
    regress_on = None
    if config.regression != "decoder":
        regress_on = image if trained else model.regression_input(raw, **where)
    predictor = fit_predictor(
        config=config,
        image=image,
        gene=gene,
        regress_on=regress_on,
        values=matrix,
        sections=sections,
        groups=rows["group"].to_numpy(),
        positions=rows[["x", "y"]].to_numpy(),
        unpaired=list(values.unpaired.values()),
        rows=known,
    )
    return predictor if own is None else with_own_regression(predictor, own, values, keep, rows)


# --------------------------------------------------------------------------------------------- held-out accuracy


def _folds(rows: pd.DataFrame) -> pd.Series:
    """What is left out in turn: patients where there are several, else sections; names as index, numbers of rows as values."""
    key = "group" if rows["group"].nunique() > 1 else "section"
    return rows[key].value_counts().rename_axis(key)


def _out_of_fold(
    inputs: Inputs,
    items: Items,
    values: Values,
    training: np.ndarray,
    plan: Plan,
    own: OwnInputs | None,
    folds: pd.Series,
    measured: np.ndarray,
    folder: Path,
    name: str,
    *,
    resume: bool,
) -> dict[str, np.ndarray]:
    """Predictions of every method for the rows that are measured, each by a model that was fitted without the patient (or section)."""
    key = str(folds.index.name)
    names = inputs.observations[key].to_numpy()
    out: dict[str, np.ndarray] = {}
    empty = np.full(values.matrix.shape, np.nan, np.float32)
    for number, left_out in enumerate(progress(folds.index, desc="held-out accuracy", unit="fold")):
        left_in = items.subset(np.flatnonzero(names[items.row] != left_out))
        held = {pair: weight for pair, weight in plan.pairs.items() if left_in.count(*pair)}
        fitted = fit_model(inputs, left_in, None, replace(plan, pairs=held), folder / f"{name}-{number}", resume=resume)
        inside = names[values.rows] == left_out
        fitted.expression = _predictor(
            fitted, inputs, values.without(key, str(left_out)), training & ~inside, plan, own=own
        )
        inside &= measured
        rows = inputs.observations.iloc[values.rows[inside]]
        predict = partial(
            fitted.predict_expression,
            inputs.rows_of("image", rows),
            sections=rows["section"].to_numpy(),
            positions=rows[["x", "y"]].to_numpy() if "image" in fitted.contexts else None,
        )
        for method in fitted.expression.methods():
            if method != "both":
                out.setdefault(method, empty.copy())[inside] = predict(method=method)[0]
        x = None if own is None else own.x[values.rows[inside]]
        if x is not None and fitted.expression.config.own_features and np.isfinite(x).all(axis=1).any():
            out.setdefault(OWN, empty.copy())[inside] = predict(method="regression", regression_features=x)[0]
    return out


def _reachable(retrieval: Retrieval, n: int) -> Retrieval:
    """The rule of the preset, or with all rows of a bank of n that has fewer than its number of neighbours."""
    return retrieval if retrieval.k is None else replace(retrieval, k=min(retrieval.k, n))


def gene_lists(matrix: sp.csr_matrix, genes: Sequence[str], sections: np.ndarray) -> dict[str, list[str]]:
    """The 50 genes of highest mean (HEG50) and of highest variance (HVG50), each averaged over sections."""
    mean, variance = [], []
    for name in np.unique(sections):
        part = matrix[sections == name]
        mean.append(np.asarray(part.mean(axis=0)).ravel())
        variance.append(np.asarray(part.multiply(part).mean(axis=0)).ravel() - mean[-1] ** 2)
    ranked = {"HEG50": np.mean(mean, axis=0), "HVG50": np.mean(variance, axis=0)}
    return {name: [genes[i] for i in np.argsort(-score, kind="stable")[:LISTS]] for name, score in ranked.items()}
