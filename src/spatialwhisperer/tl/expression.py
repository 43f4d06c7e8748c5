"""Expression from H&E: retrieved from the training observations of a model, regressed, or both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access import (
    add_annotating_table,
    check_name,
    get_table,
    is_spatialdata,
    positions,
    section_codes,
)
from spatialwhisperer._access.slots import all_or_nothing
from spatialwhisperer._checks import check_key_added
from spatialwhisperer._messages import found, warn
from spatialwhisperer._provenance import record
from spatialwhisperer.tl._training.expression import row_hash
from spatialwhisperer.tl.embed import describe_model, image_inputs, off_slide_rows, open_model

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer.models import ExpressionPredictor, Whisperer


def predict_expression(
    data: AnnData | SpatialData,
    *,
    model: Whisperer | str | Path | None = None,
    method: Literal["retrieval", "regression", "both"] | None = None,
    genes: Sequence[str] | None = None,
    k: int | None = None,
    bank_scope: Literal["all", "other_groups"] = "all",
    group_key: str = "patient",
    table_key: str | None = None,
    library_key: str | None = None,
    key_added: str = _keys.EXPRESSION,
    batch_size: int | None = None,
    device: str | None = None,
    inplace: bool = True,
) -> AnnData | None:
    """Predict the expression of genes from the H&E image alone.

    The model carries a bank: the embeddings of its training observations and their expression. Retrieval averages the
    neighbours of a tile in it, as BLEEP, mclSTExp, HECLIP and PredEx do, each by the rule of its preset. Regression is
    ridge regression from the image features, or the decoder of a preset that trains one. Both mixes the two with the
    weight that did best on held-out training tissue.

    A section that the model was trained on is recognised by the names of its rows and never retrieves itself.

    Parameters
    ----------
    data
        Slide with tiles; see :func:`spatialwhisperer.pp.tiles`. It needs no expression.
    model
        Trained by :func:`train` with a preset that predicts expression, its folder or its name on the hub.
    method
        Not given: that of the preset.
    genes
        Some of the genes of the model; all if not given.
    k
        Neighbours instead of the preset's number.
    bank_scope
        "other_groups" leaves out bank observations of the same patient.
    group_key
        Column of ``.obs`` with the patient, for ``bank_scope="other_groups"``.
    table_key
        Table of a SpatialData.
    library_key
        Column of ``.obs`` that names the library of each row (AnnData with several libraries).
    key_added
        Table of the SpatialData to write.
    batch_size
        Tiles in one pass of the image encoder.
    device
        Torch device; ``settings.device`` if not given.
    inplace
        Write to a SpatialData, or return. For an AnnData the prediction is always returned.

    Returns
    -------
    ``None`` for a SpatialData with ``inplace=True``, which then holds the table ``sw_expression``; else that table:

    ``.X`` : :class:`numpy.ndarray` (dtype ``float32``)
        Predicted values in the value space of the model; NaN where the tile leaves the slide.
    ``.obs['sw_expression_spread']`` : :class:`pandas.Series` (dtype ``float32``)
        Standard deviation among the retrieved neighbours, mean over the genes: how far they disagree.
    ``.var['held_out_pearson']`` : :class:`pandas.Series` (dtype ``float32``)
        Correlation that the method reached for this gene on training tissue that was left out; drop genes with it.

    Raises
    ------
    ValueError
        If the model predicts no expression, ``k`` is larger than the bank, the method is unknown, or the name of the table is
        taken by something else.
    KeyError
        If a gene is not among those of the model, or there is no image.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sections, _ = sw.datasets.simulate_sections(3, 60, n_genes=60, n_reference_cells=50, random_state=0)
    >>> training = [sections["P1"], sections["P2"]]
    >>> model = sw.tl.train(training, preset="bleep", max_epochs=2, tile_px=64, cross_validate=False)
    >>> sw.tl.predict_expression(sections["P3"], model=model)
    >>> sections["P3"]["sw_expression"].n_obs
    60
    """
    check_key_added(key_added)
    model = open_model(model)
    predictor = _predictor(model)
    method = predictor.check_method(method)  # type: ignore[assignment]
    columns = _columns(predictor, genes)
    table = get_table(data, table_key)
    if bank_scope not in ("all", "other_groups"):
        raise ValueError(f"bank_scope must be 'all' or 'other_groups', not {bank_scope!r}.")
    sections = section_codes(data, table_key=table_key, library_key=library_key)
    exclude = _exclude(table, predictor, sections, bank_scope, group_key)
    writes = is_spatialdata(data) and inplace
    if writes:
        check_name(data, key_added, key=_keys.EXPRESSION)
    where = {"table_key": table_key, "library_key": library_key}
    with all_or_nothing([table], model.config["encoders"]["image"].get("slot")):
        x = image_inputs(data, table, model, inplace, where, batch_size=batch_size, device=device)
        values, spread = predictor.predict(
            model,
            x,
            method=method,
            sections=sections,
            positions=_positions(table, model),
            k=k,
            exclude=exclude,
            device=device,
        )
    if "image" in model.towers:
        values[off_slide_rows(table)] = np.nan
        spread[off_slide_rows(table)] = np.nan
    out = _table(table, predictor, str(method), values[:, columns], spread, columns)
    record(
        out,
        _keys.EXPRESSION,
        method=method,
        value_space=predictor.config["value_space"],
        gene_lists=predictor.config["gene_lists"],
        weight=predictor.config["weight"],
        k=k or predictor.retrieval.k,
        bank=predictor.values.shape[0],
        bank_scope=bank_scope,
        model=describe_model(model),
    )
    if not writes:
        return out
    add_annotating_table(data, table, out, key_added)
    return None


def _predictor(model: Whisperer) -> ExpressionPredictor:
    if model.expression is None:
        name = model.config.get("card", {}).get("name")
        which = (
            f"embedded model {name!r}" if name else f"model (preset {model.config.get('training', {}).get('preset')!r})"
        )
        raise ValueError(
            f"The {which} did not learn to predict expression. Train one on sections with image and counts, and pass it: "
            "model = sw.tl.train(sections, preset='whisperer', expression=True)."
        )
    return model.expression


def _columns(predictor: ExpressionPredictor, genes: Sequence[str] | None) -> np.ndarray:
    known = {g: i for i, g in enumerate(predictor.genes)}
    if genes is None:
        return np.arange(len(known))
    genes = [genes] if isinstance(genes, str) else list(genes)
    missing = [g for g in genes if g not in known]
    if missing:
        raise KeyError(
            f"genes that this model does not predict: {found(missing)}. It predicts {len(known)}, such as "
            f"{found(predictor.genes, 5)}; train with genes=… to choose others."
        )
    return np.array([known[g] for g in genes], dtype=np.int64)


def _exclude(
    table: AnnData, predictor: ExpressionPredictor, sections: np.ndarray, bank_scope: str, group_key: str
) -> tuple[str, np.ndarray] | None:
    """Which bank observations each row must not meet: those of its patient, or its own section."""
    trained = predictor.config["training_sections"]
    hashes = {str(s): row_hash(table, sections == s) for s in np.unique(sections)}
    seen = {code: trained[row] for code, row in hashes.items() if row in trained}
    if seen:
        warn(
            f"The model was trained on these rows (section {found(sorted(seen))}). What it predicts there says nothing about new tissue.",
            stacklevel=4,
        )
    if bank_scope == "other_groups":
        if group_key not in table.obs:
            raise KeyError(f"group_key={group_key!r} not in .obs (found: {found(table.obs)}).")
        return "group", table.obs[group_key].astype(str).to_numpy()
    return ("section", np.array([seen.get(s, "") for s in sections])) if seen else None


def _positions(table: AnnData, model: Whisperer) -> np.ndarray | None:
    context = model.config["contexts"].get("image")
    return None if context is None else positions(table, array=context["kind"] == "batch_peer")


def _table(
    table: AnnData,
    predictor: ExpressionPredictor,
    method: str,
    values: np.ndarray,
    spread: np.ndarray,
    columns: np.ndarray,
) -> AnnData:
    from anndata import AnnData

    var = pd.DataFrame(index=pd.Index([predictor.genes[i] for i in columns]))
    var["gene_id"] = np.array(predictor.config["gene_ids"], dtype=object)[columns]
    var["held_out_pearson"] = predictor.held_out(method)[columns]
    obs = pd.DataFrame(index=table.obs_names.copy())
    for name in ("section", "patient"):
        if name in table.obs:
            obs[name] = table.obs[name].to_numpy()
    obs[f"{_keys.EXPRESSION}_spread"] = spread.astype(np.float32)
    out = AnnData(np.ascontiguousarray(values, dtype=np.float32), obs=obs, var=var)
    if "spatial" in table.obsm:
        out.obsm["spatial"] = np.asarray(table.obsm["spatial"]).copy()
    return out
