"""Expression from H&E: by retrieval of training observations, by regression, or by both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access.names import check_names
from spatialwhisperer._access.sections.positions import xy_part
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.table.counts import find_genes
from spatialwhisperer._access.table.groups import group_names
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._docs import shared
from spatialwhisperer._messages import inform, listing, warn
from spatialwhisperer._provenance import record
from spatialwhisperer.statistics.expression.value_spaces import OVER_CHOSEN
from spatialwhisperer.tl._annotation.range.compared import compare
from spatialwhisperer.tl._annotation.range.trained import trained_on
from spatialwhisperer.tl._embedding.bank import own_observations
from spatialwhisperer.tl._embedding.models import describe_model, open_model
from spatialwhisperer.tl._embedding.regression import Known, read_side_by_side, why_not
from spatialwhisperer.tl._embedding.rows import context_positions, row_inputs
from spatialwhisperer.tl._embedding.tissue_grid import on_tissue

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer._access.result import Result
    from spatialwhisperer._access.slide_options import SlideOptions
    from spatialwhisperer.models.expression.predictor import ExpressionPredictor
    from spatialwhisperer.models.whisperer import Whisperer
    from spatialwhisperer.tl._embedding.bank import Own
    from spatialwhisperer.tl._embedding.rows import Inputs


@shared
@checked
def predict_expression(
    data: AnnData | SpatialData,
    *,
    model: Whisperer | str | Path | None = None,
    method: Literal["retrieval", "regression", "both"] | None = None,
    genes: str | Sequence[str] | None = None,
    k: int | None = None,
    bank_scope: Literal["all", "other_groups"] = "all",
    group_key: str | None = None,
    key_added: str = _keys.EXPRESSION,
    batch_size: int | None = None,
    device: str | None = None,
    inplace: bool = True,
    **slide: Unpack[SlideOptions],
) -> AnnData | None:
    """Predict the expression of genes from the H&E image alone.

    The model stores a bank: the embeddings of its training observations and their expression. "retrieval" averages the nearest
    neighbours of a tile in the bank, as BLEEP, mclSTExp, HECLIP and PredEx do, each by the rule of its preset. "regression" is
    ridge regression from the image features, or the decoder of a preset that trains one. "both" is the weighted mean of the two, with
    the weight that was best on held-out training tissue.

    A model of the preset "whisperer" holds two regressions, where its training images are fine enough: one on several kinds of image features,
    trained on images that are fine enough for all of them (0.75 µm per pixel), and one on the image features of the model, trained on
    all. A slide whose image is coarser is predicted by the latter, and a message says so. The record of the result states what was read.

    Rows that the model was trained on are recognised by their names and positions, also where a section was cut or joined with others.
    The observations of their section are then left out of the bank.

    A warning says where the images are unlike the training tissue of the model (:func:`tissue_range`). Their rows are predicted
    nevertheless.

    Parameters
    ----------
    data
        Slide with spots, cells or tiles, or a slide without a table (:func:`spatialwhisperer.io.read_slide`), over whose tissue a grid of
        tiles is laid, as far apart as the first tile size of the model. It needs no expression.
    model
        A model trained with ``expression=True`` or with a preset that predicts expression, its folder or its name on the hub. The
        embedded model predicts none.
    method
        "retrieval", "regression" or "both"; ``None`` takes that of the preset.
    genes
        Some of the genes of the model, each once, by name or Ensembl id; ``None`` takes all.
    k
        Number of neighbours; ``None`` takes that of the preset, or all rows of a bank that is smaller. Of "regression" the standard
        deviation alone depends on it.
    bank_scope
        "other_groups" leaves out the observations of the same patient: that of ``group_key``, and of rows that the model was trained
        on the patient that they had in training.
    group_key
        Column of ``.obs`` with the patient, for ``bank_scope="other_groups"``; ``None`` takes the column that the model was trained with.
    key_added
        Table of the SpatialData to write.
    %(batch_size)s
    %(device)s
    inplace
        Write to a SpatialData, or return. For an AnnData the prediction is always returned.
    %(slide)s

    Returns
    -------
    ``None`` for a SpatialData with ``inplace=True``, which then holds the table ``sw_expression``; else that table:

    ``.X`` : :class:`numpy.ndarray` (dtype ``float32``)
        Predicted values in the value space of the model; NaN where the tile leaves the slide, and with a frozen image encoder where
        no whole tile is on tissue.
    ``.obs['sw_expression_std']`` : :class:`pandas.Series` (dtype ``float32``)
        Standard deviation among the retrieved neighbours, mean over all genes of the model, with every method. It says how much
        similar training tissue differs, noise of the counts included. It is not the error of the prediction, and no interval follows
        from it: the mean of k neighbours varies less than they do, and tissue unlike any in the bank may have neighbours that agree.
        Of "regression" it is NaN where a row may use fewer than ``k`` neighbours.
    ``.var['held_out_pearson']`` : :class:`pandas.Series` (dtype ``float32``)
        Correlation of predicted and measured values of this gene on held-out training tissue; use it to drop genes that are
        predicted badly. Sections of fewer than four spots are left out. :class:`ExpressionOptions` says what the held-out patient was left
        out of.
    ``.obsm['spatial']`` : :class:`numpy.ndarray`
        The positions, where the slide's table has them: x, then y, also where the columns of a DataFrame are named in another order.

    Raises
    ------
    ValueError
        If the model predicts no expression, ``k`` is larger than the bank, a row may use fewer than ``k`` neighbours (but by
        "regression"), the method is unknown, or the name of the table is taken by something else. If ``genes`` is empty or names a
        gene twice. If the observations of a patient are to be left out, and the model was trained without patients. If no row has a
        whole tile on tissue. Nothing is written then.
    KeyError
        If a gene is not among those of the model, or there is no image or no column of the patients.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sections, _ = sw.datasets.simulate_sections(3, 60, n_genes=60, n_reference_cells=50, random_state=0)
    >>> training = [sections["P1"], sections["P2"]]
    >>> expression = sw.tl.ExpressionOptions(cross_validate=False)
    >>> tiles = sw.tl.ImageFeatures(tile_px=64)
    >>> model = sw.tl.train(training, preset="bleep", image=tiles, max_epochs=2, expression=expression)
    >>> sw.tl.predict_expression(sections["P3"], model=model)
    >>> sections["P3"]["sw_expression"].n_obs
    60
    """
    model = open_model(model)
    predictor = _predictor(model)
    chosen = predictor.check_method(method)
    columns = _columns(predictor, genes)
    if bank_scope not in ("all", "other_groups"):
        raise ValueError(f"bank_scope must be 'all' or 'other_groups', not {bank_scope!r}.")
    tissue = on_tissue(data, model, "image", slide, keeps=inplace)
    opened = Slide.open(tissue.data, **slide)
    check_names([opened], group_key=group_key)
    others = bank_scope == "other_groups"
    key = _group_key(opened, model, group_key) if others else None
    in_bank = own_observations(opened, predictor)
    exclude = _exclude(opened, predictor, in_bank, key)
    writes = opened.is_spatialdata and inplace
    if writes:
        opened.check_table(key_added, key=_keys.EXPRESSION)
    inputs = row_inputs(opened, model, "image", batch_size=batch_size, device=device)
    compared = compare(opened, model, None if "image" in model.towers else inputs.values, inputs.results)
    compared.say(model, "prediction")
    known = set(opened.sections[in_bank.known].astype(str))
    _warn_of_trained([name for name in trained_on(opened, model, inputs.results) if name not in known])
    own, computed = (
        (None, ())
        if chosen == "retrieval"
        else _own_features(opened, model, inputs, batch_size=batch_size, device=device)
    )
    values, std = model.predict_expression(
        inputs.values,
        method=chosen,
        sections=opened.sections,
        positions=context_positions(opened, model, "image"),
        regression_features=own,
        k=k,
        exclude=exclude,
        device=device,
    )
    missing = compared.empty if inputs.missing is None else compared.empty | inputs.missing
    values[missing], std[missing] = np.nan, np.nan
    out = _table(opened, predictor, chosen, values[:, columns], std, columns, own=own is not None)
    parameters = {
        "method": chosen,
        "value_space": predictor.config.value_space,
        "library": _library(predictor),
        "measured": predictor.config.measured,
        "gene_lists": predictor.config.gene_lists,
        "weight": predictor.config.weight if own is None else predictor.config.own_weight,
        "regression": None if chosen == "retrieval" else _regression(model, own=own is not None),
        "k": k or predictor.config.retrieval.k,
        "bank": predictor.values.shape[0],
        "bank_scope": bank_scope,
        "group_key": key,
        "model": describe_model(model),
    }
    record(out, _keys.EXPRESSION, parameters)
    if not writes:
        if inplace:
            opened.put(*inputs.results, *computed)
        return out
    opened.put_table(out, key_added)
    opened.put(*inputs.results, *computed)
    tissue.keep()
    return None


def _predictor(model: Whisperer) -> ExpressionPredictor:
    if model.expression is None:
        card, training = model.config.card, model.config.training
        preset = None if training is None else training.preset
        which = f"embedded model {card.name!r}" if card is not None else f"model (preset {preset!r})"
        raise ValueError(
            f"The {which} predicts no expression. Train one on sections with image and counts, and pass it: "
            "model = sw.tl.train(sections, expression=True)."
        )
    return model.expression


def _library(predictor: ExpressionPredictor) -> dict[str, Any] | None:
    """All genes of the model, where a spot is scaled over them: some of them alone do not define its values."""
    if predictor.config.value_space not in OVER_CHOSEN:
        return None
    return {"genes": list(predictor.genes), "gene_ids": list(predictor.config.gene_ids)}


def _own_features(
    slide: Slide, model: Whisperer, inputs: Inputs, *, batch_size: int | None, device: str | None
) -> tuple[np.ndarray | None, tuple[Result, ...]]:
    """Features that the regression alone reads, and what was computed of them; ``None`` where it reads those of the model."""
    features = _predictor(model).config.own_features
    if not features:
        return None, ()
    recipes = [one.recipe for one in features]
    known = Known(model.config.modality("image").features, inputs.values)
    why = why_not(slide, recipes, known)
    if why:
        names = listing(recipe.name for recipe in recipes)
        inform(f"The regression reads the image features of the model ({known.recipe.name}) instead of {names}: {why}.")
        return None, ()
    blocks, results = read_side_by_side(slide, recipes, known, batch_size=batch_size, device=device)
    return np.concatenate(blocks, axis=1), results


def _regression(model: Whisperer, *, own: bool) -> dict[str, Any]:
    """What the regression read, for the record."""
    config = _predictor(model).config
    if own:
        return {"input": "own features", "features": [one.recipe for one in config.own_features]}
    recipe = model.config.modality("image").features
    return {"input": config.regression, "features": [recipe] if config.regression == "features" else []}


def _columns(predictor: ExpressionPredictor, genes: str | Sequence[str] | None) -> np.ndarray:
    if genes is None:
        return np.arange(len(predictor.genes))
    asked = [genes] if isinstance(genes, str) else list(genes)
    if not asked:
        raise ValueError("genes is empty: name at least one gene, or leave it out for all of the model.")
    at = find_genes(asked, predictor.genes, predictor.config.gene_ids)
    missing = [gene for gene, i in zip(asked, at, strict=True) if i < 0]
    if missing:
        raise KeyError(
            f"genes that this model does not predict: {listing(missing)}. It predicts {len(predictor.genes)}, such as "
            f"{listing(predictor.genes, 5)}; to choose others, train with expression=sw.tl.ExpressionOptions(genes=…)."
        )
    if len(set(at.tolist())) < len(at):
        repeated = dict.fromkeys(gene for gene, i in zip(asked, at, strict=True) if (at == i).sum() > 1)
        raise ValueError(f"genes holds {listing(repeated)} more than once: genes=list(dict.fromkeys(genes)).")
    return at


def _group_key(slide: Slide, model: Whisperer, group_key: str | None) -> str:
    """Column of the patients, which are compared with those of the bank."""
    training = model.config.training
    trained = _keys.PATIENT if training is None else training.group_key
    if trained is None:
        raise ValueError(
            "The model was trained without a column of patients, so that bank_scope='other_groups' cannot leave out those of one. Train it "
            "with group_key=…, or pass bank_scope='all', which leaves out a row's own section."
        )
    key = group_key or trained
    obs = slide.table.obs
    if key not in obs:
        raise KeyError(f"group_key={key!r} not in .obs (found: {listing(obs)}).")
    known = _predictor(model).config.groups
    if key != trained and not set(group_names(obs[key])) & set(known):
        inform(
            f"None of the patients in .obs[{key!r}] is in the bank, whose patients ({listing(known, 4)}) were read from .obs[{trained!r}]."
        )
    return key


def _exclude(
    slide: Slide, predictor: ExpressionPredictor, own: Own, group_key: str | None
) -> tuple[str, np.ndarray] | None:
    """Bank observations that are left out for each row: those of its own section, or for a column of patients of its patient."""
    if own.known.any():
        n = int(own.known.sum())
        which = "these rows" if n == slide.n_rows else f"{n} of these {slide.n_rows} rows"
        warn(
            f"The model was trained on {which} (section {listing(sorted(set(slide.sections[own.known])))}). The accuracy of this "
            "prediction says nothing about new tissue."
        )
    if group_key is None:
        return ("section", _named(own.section, predictor.config.sections)) if own.known.any() else None
    names = _named(own.group, predictor.config.groups)
    stated = group_names(slide.table.obs[group_key])
    # a row that was trained on has the patient of its training, whatever the column says now
    use = ~own.known & (stated != None) & (np.isin(stated, predictor.config.groups) | (own.group < 0))  # noqa: E711
    return "group", np.where(use, stated, names)


def _warn_of_trained(sections: Sequence[str]) -> None:
    """Say so where the image is one of the training, and the rows are not those of training."""
    if sections:
        what = f"{'section' if len(sections) == 1 else 'sections'} {listing(sections, 5)}"
        warn(
            f"The image of {what} is one that the model was trained on, and its observations are in the bank: the accuracy of this "
            "prediction says nothing about new tissue."
        )


def _named(codes: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Names of codes, empty for -1."""
    return np.array([*names, ""], dtype=object)[codes]


def _table(
    slide: Slide,
    predictor: ExpressionPredictor,
    method: str,
    values: np.ndarray,
    std: np.ndarray,
    columns: np.ndarray,
    *,
    own: bool,
) -> AnnData:
    from anndata import AnnData

    table = slide.table
    var = pd.DataFrame(index=pd.Index([predictor.genes[i] for i in columns]))
    var["gene_id"] = np.array(predictor.config.gene_ids, dtype=object)[columns]
    var["held_out_pearson"] = predictor.held_out(method, own=own)[columns]
    obs = pd.DataFrame(index=table.obs_names.copy())
    for name in ("section", "patient"):
        if name in table.obs:
            obs[name] = table.obs[name].to_numpy()
    obs[_keys.std(_keys.EXPRESSION)] = std.astype(np.float32)
    out = AnnData(np.ascontiguousarray(values, dtype=np.float32), obs=obs, var=var)
    if "spatial" in table.obsm:
        out.obsm["spatial"] = np.array(xy_part(table.obsm["spatial"]))
    return out
