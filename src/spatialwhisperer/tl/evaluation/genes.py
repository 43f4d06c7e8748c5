"""Which genes are predicted well over many sections, and which gene sets they belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access.names import check_names
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._annotations import is_path, iterated, shown
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._checks.values import check_path
from spatialwhisperer._docs import shared
from spatialwhisperer._messages import listing
from spatialwhisperer.statistics.expression import metrics
from spatialwhisperer.tl.evaluation.rows.pairs import make_pair
from spatialwhisperer.tl.evaluation.rows.scales import warn_of_scales

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer._access.slide_options import SlideOptions

GeneSets = Mapping[str, Sequence[str]] | str | Path


@shared
@checked
def gene_report(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    prediction: AnnData | Sequence[AnnData] | None = None,
    *,
    genes: Sequence[str] | None = None,
    alpha: float = 0.05,
    value_space: str | None = None,
    layer: str | None = None,
    group_key: str | None = None,
    key: str = _keys.EXPRESSION,
    **slide: Unpack[SlideOptions],
) -> pd.DataFrame:
    """Rank genes by how well they are predicted over the sections.

    Parameters
    ----------
    data
        One object with measured counts, or several.
    prediction
        Result of :func:`predict_expression`, one per object; ``None`` takes the table ``key`` of each SpatialData.
    genes
        Genes to report; ``None`` takes all. A gene that only some objects have is reported over those.
    alpha
        False discovery rate below which a gene is called significant.
    value_space, group_key, key
        As in :func:`evaluate_expression`.
    %(layer)s
    %(slide)s

    Returns
    -------
    DataFrame indexed by gene, best first:

    ``pearson``, ``pearson_sd``
        Mean and standard deviation (n - 1) of the correlation over sections; NaN where too few sections have one.
    ``n_sections``
        Number of sections in which the correlation is defined; none of fewer than four spots, where it is ±1 or nearly so by chance.
    ``neg_log10_p``
        Two-sided p-value of the mean over sections, as -log10 p. Sections may truly differ (random effects of Fisher's z;
        DerSimonian and Laird, 1986; Student's t after Hartung and Knapp, 2001): a gene with a high correlation in one section and a
        low one in another is not significant. Of a gene with one section it is the p-value within that section.
    ``between_sections``
        Standard deviation of Fisher's z between sections, beyond what spots explain.
    ``mean_neg_log10_p``
        Mean of -log10 p over sections, by which mclSTExp ranks genes.
    ``p_adjusted``
        Combined p after Benjamini and Hochberg.
    ``significant``
        Whether ``p_adjusted`` is below ``alpha`` and the combined correlation is positive.
    ``rank``
        By mean correlation, 1 is the best; NaN where it is undefined.

    Raises
    ------
    KeyError
        If there is no prediction, a column or layer does not exist, or no object has a gene that is named.
    ValueError
        If the numbers of objects and predictions differ, or as in :func:`evaluate_expression`.

    Notes
    -----
    With several sections, ``neg_log10_p``, ``p_adjusted`` and ``significant`` are about further sections like these; two sections can
    hardly show anything, because their difference has one degree of freedom. With one section (``n_sections``) they are about more
    tissue of that section only. How a gene is predicted in other sections is then unknown, even where it is called significant.

    The variance within a section is that of independent spots. Neighbouring spots are similar, and so are serial sections of a
    patient, so that the p-values are too small, most of all with one section: use them to rank genes, not as evidence for a single
    gene.

    Examples
    --------
    >>> import numpy as np, anndata as ad, spatialwhisperer as sw
    >>> from spatialwhisperer.statistics.expression.value_spaces import to_space
    >>> rng = np.random.default_rng(0)
    >>> truth = ad.AnnData(rng.poisson(3.0, (50, 4)).astype("float32"))
    >>> values = to_space(truth.X)
    >>> values[:, 1:] += rng.normal(0, [0.5, 2, 8], (50, 3))
    >>> report = sw.tl.gene_report(truth, ad.AnnData(values), value_space="per_spot_log1p")
    >>> report.index[0], float(report["pearson"].iloc[0].round(3))
    ('0', 1.0)
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, not {alpha!r}.")
    pairs = [(Slide.open(one, **slide), its) for one, its in _objects(data, prediction)]
    check_names([opened for opened, _ in pairs], layer=layer, group_key=group_key)
    asked = None if genes is None else [genes] if isinstance(genes, str) else [str(gene) for gene in genes]
    columns = [
        column
        for number, (opened, its) in enumerate(pairs)
        for column in _sections(
            opened,
            its,
            number,
            genes=asked,
            value_space=value_space,
            layer=layer,
            group_key=group_key,
            key=key,
        )
    ]
    _check_found(asked, columns)
    r = pd.concat([c[0] for c in columns], axis=1)
    p = pd.concat([c[1] for c in columns], axis=1)
    score, df, between = metrics.random_effects(r.to_numpy().T, np.array([c[2] for c in columns]))
    out = pd.DataFrame({"pearson": r.mean(axis=1), "pearson_sd": r.std(axis=1), "n_sections": r.notna().sum(axis=1)})
    out["neg_log10_p"] = metrics.neg_log10_p_of_t(score, df)
    out["between_sections"] = between
    out["mean_neg_log10_p"] = p.mean(axis=1)
    out["p_adjusted"] = 10 ** -metrics.benjamini_hochberg(out["neg_log10_p"].to_numpy())
    out["significant"] = (out["p_adjusted"] < alpha) & (score > 0)
    out["rank"] = out["pearson"].rank(ascending=False, method="first")
    out.index.name = "gene"
    return out.sort_values("rank", kind="stable")


def _objects(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData], prediction: AnnData | Sequence[AnnData] | None
) -> list[tuple[AnnData | SpatialData, AnnData | None]]:
    """Each object with its prediction."""
    objects = list(data) if isinstance(data, Sequence) else [data]
    if not objects:
        raise ValueError("data is an empty list; pass at least one AnnData or SpatialData.")
    if prediction is None:
        return [(one, None) for one in objects]
    predictions = list(prediction) if isinstance(prediction, Sequence) else [prediction]
    if len(predictions) != len(objects):
        raise ValueError(f"There are {len(objects)} objects and {len(predictions)} predictions; pass one for each.")
    return list(zip(objects, predictions, strict=True))


def _sections(
    slide: Slide, prediction: AnnData | None, number: int, **options: Any
) -> list[tuple[pd.Series, pd.Series, int]]:
    """Correlations and -log10 p of the genes in each section of one object, and its number of spots."""
    pair = make_pair(slide, prediction, all_genes=False, **options)
    warn_of_scales(pair.scales)
    out: list[tuple[pd.Series, pd.Series, int]] = []
    if not pair.genes:
        return out
    for group in pd.unique(pair.groups):
        take = np.flatnonzero(pair.groups == group)
        m = metrics.moments(pair.truth[take], pair.predicted[take])
        r = metrics.pearson(m)
        name = f"{number}:{group}"
        series = [pd.Series(v, index=pair.genes, name=name) for v in (r, metrics.neg_log10_p(r, m.n))]
        out.append((series[0], series[1], m.n))
    return out


def _check_found(asked: Sequence[str] | None, columns: Sequence[tuple[pd.Series, pd.Series, int]]) -> None:
    """Refuse a gene that is asked for and that no object has."""
    found = {gene for column in columns for gene in column[0].index}
    if missing := [gene for gene in asked or () if gene not in found]:
        raise KeyError(f"genes that no object has both predicted and measured: {listing(missing)}.")


@checked
def gene_set_enrichment(
    report: pd.DataFrame, gene_sets: GeneSets, *, by: str = "pearson", n_top: int = 50, min_genes: int = 5
) -> pd.DataFrame:
    """Test which gene sets are predicted better than the other genes.

    Parameters
    ----------
    report
        Result of :func:`gene_report`, or any DataFrame with a score per gene; genes with a NaN score are left out.
    gene_sets
        Genes by name of the set, or a GMT file.
    by
        Column with the score, higher is better.
    n_top
        Number of the highest genes that the hypergeometric test counts. Genes that score as high as the last of them count too.
    min_genes
        Sets with fewer genes in the report are left out.

    Returns
    -------
    DataFrame indexed by set, smallest ``p`` first: ``n_genes`` in the report, ``mean`` score, ``auroc`` (probability that a gene of
    the set scores higher than another gene), ``p`` and ``p_adjusted`` of the one-sided Mann–Whitney test; ``n_top`` genes among
    the highest, ``p_top`` and ``p_top_adjusted`` of the hypergeometric test. Adjusted after Benjamini and Hochberg.

    Raises
    ------
    KeyError
        If the report has no such column.
    ValueError
        If no set has enough genes in the report, or a file is not GMT.

    Notes
    -----
    Genes of a set are co-expressed, so they are not independent and the p-values are too small. A set is compared with the other
    genes of the report: where these were chosen for high expression, so is the background.

    Examples
    --------
    >>> import numpy as np, pandas as pd, spatialwhisperer as sw
    >>> report = pd.DataFrame({"pearson": np.linspace(1, 0, 60)}, index=[f"G{i}" for i in range(60)])
    >>> sets = {"first": [f"G{i}" for i in range(8)], "others": [f"G{i}" for i in range(0, 60, 8)]}
    >>> sw.tl.gene_set_enrichment(report, sets, n_top=10)["auroc"].round(2).to_dict()
    {'first': 1.0, 'others': 0.53}
    """
    from scipy.stats import false_discovery_control, hypergeom, mannwhitneyu

    if by not in report:
        raise KeyError(f"by={by!r} is not a column of the report (found: {listing(report)}).")
    if n_top < 1 or min_genes < 1:
        raise ValueError(f"n_top and min_genes must be at least 1, not {n_top!r} and {min_genes!r}.")
    score = report[by].dropna()
    score = score[~score.index.duplicated()].astype(float)
    # with all that are tied at the end, so that the order of the rows does not decide which of them count
    top = (score.rank(ascending=False, method="min") <= n_top).to_numpy()
    rows = {}
    for name, genes in read_gene_sets(gene_sets).items():
        inside = score.index.isin([str(g) for g in genes])
        size = int(inside.sum())
        if size < min_genes or size == len(score):
            continue
        test = mannwhitneyu(score[inside], score[~inside], alternative="greater")
        hits = int((inside & top).sum())
        rows[name] = {
            "n_genes": size,
            "mean": score[inside].mean(),
            "auroc": test.statistic / (size * (len(score) - size)),
            "p": test.pvalue,
            "n_top": hits,
            "p_top": hypergeom.sf(hits - 1, len(score), size, top.sum()),
        }
    if not rows:
        raise ValueError(
            f"No gene set has at least {min_genes} of the {len(score)} genes of the report ({listing(score.index, 5)}), and some "
            "outside it. Check that both name genes alike, or lower min_genes."
        )
    out = pd.DataFrame.from_dict(rows, orient="index")
    for column in ("p", "p_top"):
        out[f"{column}_adjusted"] = false_discovery_control(out[column].clip(0, 1))
    out.index.name = "gene_set"
    order = ["n_genes", "mean", "auroc", "p", "p_adjusted", "n_top", "p_top", "p_top_adjusted"]
    return out[order].sort_values("p", kind="stable")


def read_gene_sets(gene_sets: GeneSets) -> dict[str, list[str]]:
    """Genes by name of the set; a path is read as GMT (name, description and genes, separated by tabs).

    Raises
    ------
    TypeError
        If it is neither a mapping of lists nor a path.
    FileNotFoundError
        If there is no such file.
    ValueError
        If there is no set, a line has no genes, or a file names a set twice.
    """
    if isinstance(gene_sets, Mapping):
        out = {str(name): _genes_of(str(name), genes) for name, genes in gene_sets.items()}
    else:
        if not is_path(gene_sets):
            raise TypeError(
                f"gene_sets must be a dictionary or the path of a GMT file; found {type(gene_sets).__name__}. Pass the genes by name of the "
                "set, such as {'hypoxia': ['CA9', 'VEGFA']}; .to_dict() makes a dictionary of a Series of lists."
            )
        check_path("gene_sets", gene_sets)
        path, out = Path(gene_sets).expanduser(), {}
        for number, line in enumerate(_lines(path), 1):
            if not line.strip():
                continue
            name, *rest = line.split("\t")
            if len(rest) < 2:
                raise ValueError(
                    f"Line {number} of {path} is not GMT: expected a name, a description and genes, with tabs."
                )
            if name in out:
                raise ValueError(
                    f"Line {number} of {path} names the gene set {name!r} a second time. Give each set a name of its own, or join their genes."
                )
            out[name] = [g.strip() for g in rest[1:] if g.strip()]
    if not out:
        raise ValueError("There are no gene sets.")
    return out


def _genes_of(name: str, genes: Any) -> list[str]:
    found = iterated(genes)
    if found is None:
        raise TypeError(f"The gene set {name!r} must be a list of genes, not {shown(genes)}.")
    return [str(g) for g in found]


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path} to read gene sets from.")
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text file ({error}). Gene sets are read from GMT.") from error
