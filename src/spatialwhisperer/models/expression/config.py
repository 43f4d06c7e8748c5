"""Which genes a predictor of expression gives, and how; and whether its arrays fit that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from spatialwhisperer._frozen import frozen
from spatialwhisperer._messages import listing
from spatialwhisperer._storage.schema import Stored
from spatialwhisperer.models.configuration.model import RegressionFeatures
from spatialwhisperer.retrieval.rule import Retrieval
from spatialwhisperer.statistics.expression.gene_numbers import GeneNumbers

if TYPE_CHECKING:
    import numpy as np
    import scipy.sparse as sp

Method = Literal["retrieval", "regression", "both"]
Regression = Literal["features", "embedding", "decoder", "none"]

METHODS: tuple[Method, ...] = ("retrieval", "regression", "both")


@dataclass(frozen=True)
class ExpressionConfig(Stored):
    """Which genes are predicted, and how.

    Attributes
    ----------
    genes, gene_ids
        Names and Ensembl ids of the genes.
    value_space
        How predicted values are scaled and transformed: "per_spot_log1p", "per_spot_log10" or "per_gene_log10_peer", which
        :doc:`/concepts` defines; or "as given".
    retrieval
        How values are retrieved from the bank.
    method
        Default method of prediction.
    regression
        Input of the regression: image "features" or the joint "embedding"; "decoder" where a trained decoder takes its place, "none"
        where there is no regression.
    regression_rank
        Number of principal components of expression towards which the ridge regression is shrunk.
    weight
        Weight of the regression in the method "both"; retrieval has the rest.
    gene_lists
        Genes with the highest mean and variance in training, by the name of the list.
    sections, groups
        Names of the sections and patients (groups); the codes of the bank are positions in these.
    own_features
        Image features, side by side, of a second regression, for images that are fine enough for them; empty where there is none.
    own_weight
        Weight of that regression in the method "both".
    measured
        Genes of the training tables, where values were scaled over all genes of a table; ``None`` where they were not.
    """

    genes: tuple[str, ...]
    gene_ids: tuple[str, ...]
    value_space: str
    retrieval: Retrieval
    method: Method
    regression: Regression
    regression_rank: int
    weight: float = 0.7
    gene_lists: Mapping[str, tuple[str, ...]] = field(default_factory=frozen)
    sections: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    own_features: tuple[RegressionFeatures, ...] = ()
    own_weight: float = 0.7
    measured: GeneNumbers | None = None


def check_arrays(config: ExpressionConfig, values: sp.csr_matrix, arrays: Mapping[str, np.ndarray]) -> None:
    """Refuse a bank or a regression whose arrays are missing or of another size."""
    m, g = values.shape
    sizes = {"genes": (len(config.genes), g), "gene_ids": (len(config.gene_ids), g)}
    needed = {config.retrieval.key: m, "section": m, "group": m}
    if config.regression in ("features", "embedding"):
        needed |= {"weight": g, "intercept": g}
    if config.own_features:
        width = sum(one.dim for one in config.own_features)
        needed |= {"own_weight": g, "own_intercept": g, "own_mean": width, "own_std": width}
    needed |= {"row": m} if "row" in arrays else {}
    of_genes = [name for name in arrays if name.startswith("held_out_")]
    for name, expected in {**needed, **dict.fromkeys(of_genes, g)}.items():
        sizes[name] = (len(arrays[name]) if name in arrays else 0, expected)
    wrong = [f"{name} ({found}, not {expected})" for name, (found, expected) in sizes.items() if found != expected]
    if wrong:
        raise ValueError(f"The arrays of this predictor of expression do not fit its bank: {listing(wrong, 4)}.")
    _check_own(config, arrays)
    for name, names in (("section", config.sections), ("group", config.groups)):
        codes = arrays[name]
        if m and not 0 <= codes.min() <= codes.max() < len(names):
            raise ValueError(f"{name!r} of this predictor of expression does not fit its {len(names)} names.")


def _check_own(config: ExpressionConfig, arrays: Mapping[str, np.ndarray]) -> None:
    """Refuse features of the regression that nobody can compute, or whose number is not that of the weights."""
    if not config.own_features:
        return
    for one in config.own_features:
        encoder = one.recipe.encoder
        if encoder is None or not encoder.by_name or one.recipe.key is None:
            raise ValueError(
                f"The regression of this predictor of expression reads features ({one.recipe.name!r}) that no registered encoder gives."
            )
    expected = (len(config.genes), len(arrays["own_mean"]))
    if config.regression != "features" or arrays["own_weight"].shape != expected:
        raise ValueError(
            f"The arrays of this predictor of expression do not fit its bank: own_weight ({arrays['own_weight'].shape}, not {expected})."
        )
