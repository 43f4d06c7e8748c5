"""Predicted expression compared with the measured one, by one stated convention and beside baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access.names import check_names
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._checks.values import check_whole, one_of
from spatialwhisperer._docs import shared
from spatialwhisperer._messages import inform, listing
from spatialwhisperer.statistics.expression import metrics
from spatialwhisperer.statistics.expression.value_spaces import SPACES
from spatialwhisperer.tl.evaluation.baselines import DARKNESS, baseline_values, read_training
from spatialwhisperer.tl.evaluation.rows.pairs import make_pair
from spatialwhisperer.tl.evaluation.rows.scales import warn_of_scales

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer._access.slide_options import SlideOptions
    from spatialwhisperer.tl.evaluation.baselines import TrainingSpots
    from spatialwhisperer.tl.evaluation.rows.pairs import Pair

ListOrigin = Literal["training", "test"]

_PER_GENE = ("pearson", "mse", "mae", "ssim", "rmse_z")
_ORIGIN = {
    "training": "chosen on training data",
    "test": "chosen on the evaluated section's own measured values, as the published evaluations do",
}


@shared
@checked
def evaluate_expression(
    data: AnnData | SpatialData,
    prediction: AnnData | None = None,
    *,
    genes: Sequence[str] | None = None,
    gene_lists: Mapping[str, Sequence[str]] | None = None,
    gene_lists_from: ListOrigin = "training",
    value_space: str | None = None,
    layer: str | None = None,
    group_key: str | None = None,
    train: AnnData | SpatialData | Sequence[AnnData | SpatialData] | None = None,
    baselines: bool = True,
    scalar_key: str = DARKNESS,
    patient_key: str = "patient",
    hits: Sequence[int] = (1, 5),
    key: str = _keys.EXPRESSION,
    per_gene: bool = False,
    **slide: Unpack[SlideOptions],
) -> pd.DataFrame:
    """Compare predicted expression with the measured one, and with baselines that need no image or no model.

    Each metric is computed per gene over the spots of a section, then averaged over the genes of a list, then over sections
    without weights. Where ``train`` is given, baselines are measured too:

    - "training mean": the mean of the training spots.
    - "darkness": the mean of the 200 training spots whose tissue darkness (:func:`tissue_darkness`), ranked within the section, is
      nearest.
    - "total UMI (oracle)": the same with the total count of a spot, which is measured and so not known for a new image.
    - "aligned neighbours": the mean of the 5 nearest training spots of the same patient's other sections, where ``.obs`` holds
      positions in a common frame (``warped_x``, ``warped_y``).

    Parameters
    ----------
    data
        Object with the measured raw counts.
    prediction
        Result of :func:`predict_expression`, the same rows in the same order; ``None`` takes the table ``key`` of a SpatialData.
    genes
        Genes to evaluate, which are then the list "ACG"; ``None`` takes all genes that were predicted. Their values do not depend on
        which of them are chosen: in the space "per_spot_log10" a spot is scaled over all genes of the model, where the prediction
        recorded them, else over all that it holds.
    gene_lists
        Further lists by name.
    gene_lists_from
        Where "HEG50" and "HVG50" (the 50 genes of highest mean and of highest variance) come from: "training", ``train`` or the lists
        that the prediction recorded; or "test", the measured values of the evaluated section itself.
    value_space
        How the values are scaled and transformed: "per_spot_log1p", "per_spot_log10" or "per_gene_log10_peer", which :doc:`/concepts`
        defines. ``None`` takes what the prediction recorded.
    %(layer)s
    group_key
        Column of ``.obs`` with the group; ``None`` takes the section.
    train
        Training objects with counts.
    baselines
        Also evaluate the baselines.
    scalar_key
        Column of ``.obs``, in ``data`` and in ``train``, with the number that the baseline "darkness" ranks.
    patient_key
        Column of ``.obs`` with the patient.
    hits
        For each number k: the fraction of spots in which one of the k highest predicted genes is among the k highest measured ones,
        expected over ties.
    key
        Table of a SpatialData with the prediction.
    per_gene
        Return one row per group, predictor and gene instead.
    %(slide)s

    Returns
    -------
    DataFrame with the columns ``group``, ``predictor``, ``gene_list``, ``metric``, ``value``; the group "mean" is the
    unweighted mean over groups. Metrics: ``pearson``, ``pearson_defined``, ``mse``, ``mae``, ``ssim``, ``rmse_z``, ``hit@k``, and
    ``n_genes``, ``n_constant`` (genes whose prediction is constant, and the truth is not: their correlation counts as 0 in
    ``pearson`` and ``rmse_z``, and is left out of ``pearson_defined``), ``n_undefined`` (these and genes whose truth is constant,
    which no predictor could be judged by; they are left out of all correlations) and ``n_spots``. A group of fewer than four spots
    with a prediction has no correlations: they are NaN, ``n_undefined`` counts all its genes, and the mean over groups leaves it out.
    With ``per_gene``: ``group``, ``predictor``, ``gene`` and one column per metric, where a correlation that does not exist is NaN.
    ``.attrs["convention"]`` states the value space, the origin of the lists and how values are averaged; ``.attrs["gene_lists"]`` holds
    the genes of the lists that are the same for all groups.

    Raises
    ------
    KeyError
        If there is no prediction, or a column, layer, table or gene does not exist.
    ValueError
        If rows differ, no gene is both predicted and measured, a table is of another species, values are not counts, no gene of a list
        is, the space is unknown or not that of the prediction, or ``train`` holds evaluated rows.

    Notes
    -----
    In the space "per_spot_log1p" a spot is scaled over all genes of its table. A warning names the numbers of genes where those of the
    measured table, of ``train`` or of the training of the model are too different for values to be on one scale.

    Correlations in the space "per_gene_log10_peer" mostly show the density of the tissue: compare them with the baselines "darkness"
    and "total UMI (oracle)".

    Examples
    --------
    >>> import anndata as ad, spatialwhisperer as sw
    >>> from spatialwhisperer.statistics.expression.value_spaces import to_space
    >>> sections, _ = sw.datasets.simulate_sections(2, 60, n_genes=80, n_reference_cells=50, random_state=0)
    >>> truth = sections["P2"]["table"]
    >>> values = to_space(truth.X, "per_spot_log1p")
    >>> prediction = ad.AnnData(values, obs=truth.obs[[]], var=truth.var[[]])
    >>> result = sw.tl.evaluate_expression(
    ...     sections["P2"], prediction, value_space="per_spot_log1p", train=sections["P1"]
    ... )
    >>> means = result[result["group"] == "mean"].set_index(["predictor", "gene_list", "metric"])["value"]
    >>> round(float(means["prediction", "HEG50", "pearson"]), 3)
    1.0
    """
    one_of("gene_lists_from", gene_lists_from, ListOrigin)
    if np.ndim(hits) != 1:
        raise TypeError(f"hits must be a list of positive whole numbers, not {hits!r}.")
    for number in hits:
        check_whole("hits", number)
    opened = Slide.open(data, **slide)
    # the default column need not be there
    given = {"patient_key": (patient_key, _keys.PATIENT), "scalar_key": (scalar_key, DARKNESS)}
    named = {name: key for name, (key, default) in given.items() if key != default}
    check_names([opened], layer=layer, group_key=group_key, **named)
    pair = make_pair(
        opened,
        prediction,
        genes=genes,
        value_space=value_space,
        layer=layer,
        group_key=group_key,
        key=key,
    )
    training = None
    if train is not None:
        from spatialwhisperer.tl._training.checks import objects

        training = read_training(objects(train), pair, layer=layer, options=slide)
    warn_of_scales(pair.scales, () if training is None else training.scaled_over)
    lists = _lists(pair, training, gene_lists, gene_lists_from)
    if training is None and baselines:
        inform("No baselines: pass train=[…] to evaluate the training mean and the other baselines.")
    rows: list[Any] = []
    for predictor, values in _predictors(pair, training, baselines, scalar_key, patient_key):
        for group in pd.unique(pair.groups):
            take = np.flatnonzero(pair.groups == group)
            truth, predicted = pair.truth[take], values[take]
            of_genes = _per_gene_metrics(truth, predicted)
            if per_gene:
                of_genes = of_genes.drop(columns="constant")
                of_genes.insert(0, "gene", pair.genes)
                of_genes.insert(0, "predictor", predictor)
                of_genes.insert(0, "group", group)
                rows.append(of_genes)
                continue
            chosen = lists | (_own_lists(pair, truth) if gene_lists_from == "test" else {})
            for name, columns in chosen.items():
                for metric, value in _of_list(truth, predicted, of_genes, columns, hits):
                    rows.append((group, predictor, name, metric, value))
    out = pd.concat(rows, ignore_index=True) if per_gene else _with_mean(rows)
    out.attrs["convention"] = _convention(pair, lists, gene_lists_from)
    out.attrs["gene_lists"] = {name: [pair.genes[i] for i in columns] for name, columns in lists.items()}
    return out


def _predictors(
    pair: Pair, training: TrainingSpots | None, wanted: bool, scalar_key: str, patient_key: str
) -> Iterator[tuple[str, np.ndarray]]:
    yield "prediction", pair.predicted
    if training is None or not wanted:
        return
    incomplete = ~metrics.complete_rows(pair.predicted)
    for name, values in baseline_values(pair, training, scalar_key=scalar_key, patient_key=patient_key):
        # every predictor is evaluated on the spots that have a prediction
        values[incomplete] = np.nan
        yield name, values


def _per_gene_metrics(truth: Any, predicted: np.ndarray) -> pd.DataFrame:
    m = metrics.moments(truth, predicted)
    r = metrics.pearson(m)
    values = (r, metrics.mse(m), metrics.mae(truth, predicted), metrics.ssim(m), metrics.rmse_z(r))
    out = pd.DataFrame(dict(zip(_PER_GENE, values, strict=True)))
    out["constant"] = metrics.unpredicted(m)
    return out


def _of_list(
    truth: Any, predicted: np.ndarray, of_genes: pd.DataFrame, columns: np.ndarray, hits: Sequence[int]
) -> Iterator[tuple[str, float]]:
    part = of_genes.iloc[columns]
    means = _with_constant(part)[list(_PER_GENE)].mean()
    yield "pearson", float(means["pearson"])
    yield "pearson_defined", float(part["pearson"].mean())
    yield from ((name, float(means[name])) for name in _PER_GENE[1:])
    # with k genes or fewer every spot is a hit
    for k in (k for k in hits if k < len(columns)):
        yield f"hit@{k}", metrics.hit_at_k(truth[:, columns], predicted[:, columns], k)
    yield "n_genes", float(len(columns))
    yield "n_constant", float(part["constant"].sum())
    yield "n_undefined", float(part["pearson"].isna().sum())
    yield "n_spots", float(metrics.complete_rows(predicted).sum())


def _with_constant(of_genes: pd.DataFrame) -> pd.DataFrame:
    """The same, where a constant prediction of a gene that varies has no correlation with it: 0."""
    out = of_genes.copy()
    out.loc[out["constant"], "pearson"] = 0.0
    out["rmse_z"] = metrics.rmse_z(out["pearson"].to_numpy())
    return out


def _lists(
    pair: Pair, training: TrainingSpots | None, extra: Mapping[str, Sequence[str]] | None, origin: ListOrigin
) -> dict[str, np.ndarray]:
    """Columns of each list that is the same for all sections."""
    named: dict[str, Any] = {}
    if origin == "training" and training is not None:
        from spatialwhisperer.tl._training.expression.predictor import gene_lists

        named = dict(gene_lists(training.values, pair.genes, training.sections))
    elif origin == "training":
        named = dict(pair.lists)
        if not named:
            inform(
                "No lists HEG50 and HVG50: the prediction recorded none. Pass train=[…], or gene_lists_from='test' to choose "
                "them on the evaluated sections, as published evaluations do."
            )
    where = {g: i for i, g in enumerate(pair.genes)}
    out = {"ACG": np.arange(len(where))}
    for name, genes in named.items():
        columns = [where[g] for g in genes if g in where]
        if columns:
            out[name] = np.array(columns)
    for name, genes in (extra or {}).items():
        if name in ("ACG", "HEG50", "HVG50"):
            raise ValueError(f"The name {name!r} is taken; choose another name for the gene list.")
        genes = [genes] if isinstance(genes, str) else [str(g) for g in genes]
        columns = [where[g] for g in dict.fromkeys(genes) if g in where]
        if not columns:
            raise ValueError(
                f"No gene of the list {name!r} ({listing(genes, 5)}) is among the {len(where)} that are predicted and measured "
                f"({listing(where, 5)})."
            )
        out[name] = np.array(columns)
    return out


def _own_lists(pair: Pair, truth: Any) -> dict[str, np.ndarray]:
    from spatialwhisperer.tl._training.expression.predictor import gene_lists

    where = {g: i for i, g in enumerate(pair.genes)}
    chosen = gene_lists(truth, pair.genes, np.zeros(truth.shape[0], int))
    return {name: np.array([where[g] for g in genes]) for name, genes in chosen.items()}


def _with_mean(rows: list[Any]) -> pd.DataFrame:
    columns = ["group", "predictor", "gene_list", "metric", "value"]
    tidy = pd.DataFrame(rows, columns=columns)
    mean = pd.DataFrame(tidy.groupby(columns[1:4], sort=False, as_index=False)["value"].mean())
    mean.insert(0, "group", "mean")
    return pd.concat([tidy, mean], ignore_index=True)[columns]


def _convention(pair: Pair, lists: Mapping[str, Any], origin: ListOrigin) -> str:
    space = SPACES.get(pair.space, "as in the layer that was given")
    chosen = f" HEG50 and HVG50 {_ORIGIN[origin]}." if origin == "test" or "HEG50" in lists else ""
    return (
        f"Values: {pair.space} ({space}).{chosen} Each metric per gene over the spots of a group; mean over the genes of a list, "
        "where the correlation of a constant prediction is 0, and genes that are constant in truth and groups of fewer than "
        f"{metrics.FEWEST_SPOTS} spots have none; then unweighted mean over groups."
    )
