"""Prediction of expression from images: retrieval from a bank of paired observations, and a regression. Arrays only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy.sparse as sp

from spatialwhisperer._annotations import numbers, one_for_each, shown
from spatialwhisperer._artifact import Artifact
from spatialwhisperer._checks import checked
from spatialwhisperer._frozen import frozen
from spatialwhisperer._messages import listing
from spatialwhisperer._schema import Stored, from_plain, to_plain
from spatialwhisperer.models.config import RegressionFeatures
from spatialwhisperer.retrieval.retrieval import retrieve_mean
from spatialwhisperer.retrieval.rule import Retrieval
from spatialwhisperer.statistics.left_out import left_out_units
from spatialwhisperer.statistics.reduced_rank import reduced_rank_ridge
from spatialwhisperer.statistics.standardize import standardize

if TYPE_CHECKING:
    from collections.abc import Sequence

Method = Literal["retrieval", "regression", "both"]
Regression = Literal["features", "embedding", "decoder", "none"]

METHODS: tuple[Method, ...] = ("retrieval", "regression", "both")
KIND = "predictor of expression"
_CSR = ("data", "indices", "indptr")


@dataclass(frozen=True)
class ExpressionConfig(Stored):
    """Which genes are predicted, and how.

    Attributes
    ----------
    genes, gene_ids
        Names and Ensembl ids of the genes.
    value_space
        Space of the predicted values (:mod:`spatialwhisperer.statistics.value_spaces`), or "as given".
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
    training_sections
        Training sections by the hash of their rows, by which a section is recognised when it is predicted.
    own_features
        Image features, side by side, of a second regression, for images that are fine enough for them; empty where there is none.
    own_weight
        Weight of that regression in the method "both".
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
    training_sections: Mapping[str, str] = field(default_factory=frozen)
    own_features: tuple[RegressionFeatures, ...] = ()
    own_weight: float = 0.7


class ExpressionPredictor:
    """Expression of image embeddings, retrieved from training observations, regressed, or both.

    Attributes
    ----------
    config
        What is predicted, and how.
    values
        Expression of the bank, CSR, shape (m, g).
    arrays
        ``image`` or ``gene``: embeddings of the bank (m, u); ``section`` and ``group`` codes (m,); ``weight`` (g, d)
        and ``intercept`` (g,) of the regression; ``held_out_<method>``: Pearson correlation of each gene on held-out training
        sections (g,). Of the regression on features of its own: ``own_weight`` (g, e), ``own_intercept`` (g,), the training
        statistics ``own_mean`` and ``own_std`` (e,), and ``held_out_own_<method>`` (g,).

    Raises
    ------
    ValueError
        If the arrays do not fit the configuration or each other.
    """

    def __init__(self, config: ExpressionConfig, values: sp.csr_matrix, arrays: Mapping[str, np.ndarray]) -> None:
        self.config = config
        self.values = values
        self.arrays = dict(arrays)
        _check(config, values, self.arrays)

    @property
    def genes(self) -> list[str]:
        """Genes that it predicts."""
        return list(self.config.genes)

    def __repr__(self) -> str:
        r = self.config.retrieval
        how = f"{r.query} → {r.key}, k = {r.k or 'all'}, {r.weights}"
        bank = f"{len(self.genes)} genes in {self.config.value_space}; bank of {self.values.shape[0]} ({how})"
        own = " + ".join(one.recipe.name for one in self.config.own_features)
        return f"{bank}; regression on {own} of fine images, else on the image features of the model" if own else bank

    @checked
    def held_out(self, method: str, *, own: bool = False) -> np.ndarray:
        """Pearson of each gene on held-out training sections, NaN where it was not measured; shape (g,).

        Parameters
        ----------
        method
            "retrieval", "regression" or "both".
        own
            Of the regression on features of its own.
        """
        name = f"held_out_own_{method}" if own and method != "retrieval" else f"held_out_{method}"
        return self.arrays.get(name, np.full(len(self.genes), np.nan, np.float32))

    def methods(self) -> tuple[Method, ...]:
        """Methods of prediction that are available."""
        return METHODS if self.config.regression != "none" else METHODS[:1]

    @checked
    def predict(
        self,
        z: np.ndarray,
        regressed: np.ndarray | None = None,
        *,
        method: str | None = None,
        k: int | None = None,
        own: bool = False,
        exclude: tuple[str, np.ndarray] | None = None,
        device: str | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Predict from image embeddings.

        Parameters
        ----------
        z
            Image embeddings whose rows keep their length, shape (n, u).
        regressed
            Values of the regression, shape (n, g), for the methods that need it.
        method
            "retrieval", "regression" or "both"; ``None`` takes the default of the model.
        k
            Number of neighbours; ``None`` takes that of the model.
        own
            Whether ``regressed`` is of the regression on features of its own, which has another weight in "both".
        exclude
            "section" or "group", and the name of it for each row: bank observations of the same name are not used.
        device
            Torch device.

        Returns
        -------
        Predicted values float32 (n, g), and the standard deviation among the retrieved neighbours, mean over the genes (n,).
        Rows with NaN are NaN.

        Raises
        ------
        ValueError
            If the method is unknown or ``k`` is larger than the bank.
        """
        method = self.check_method(method)
        retrieval = self.config.retrieval if k is None else replace(self.config.retrieval, k=k)
        if method == "regression" and retrieval.k is not None:
            # only the standard deviation is taken from the bank
            retrieval = replace(retrieval, k=min(retrieval.k, self.values.shape[0]))
        z = numbers("z", z, (None, self.arrays[retrieval.key].shape[1]))
        groups = {} if exclude is None else self._groups(exclude, len(z))
        mean, std = retrieve_mean(
            z, self.arrays[retrieval.key], self.values, retrieval=retrieval, device=device, **groups
        )
        std = std.mean(axis=1)
        if method == "retrieval" or regressed is None:
            return mean, std
        regressed = numbers("regressed", regressed, mean.shape)
        if method == "regression":
            return regressed, std
        weight = np.float32(self.config.own_weight if own else self.config.weight)
        return weight * regressed + (1 - weight) * mean, std

    def regress(self, x: np.ndarray) -> np.ndarray:
        """Apply the ridge regression to its input (n, d); returns values float32 (n, g)."""
        return (x @ self.arrays["weight"].T + self.arrays["intercept"]).astype(np.float32)

    @checked
    def regress_own(self, features: np.ndarray, sections: Sequence[Any] | np.ndarray | None = None) -> np.ndarray:
        """Apply the regression on features of its own.

        Parameters
        ----------
        features
            Its features before they are standardised, shape (n, e), in the order of ``config.own_features``.
        sections
            Section of each row, shape (n,); ``None`` is one section.

        Returns
        -------
        Values float32 (n, g); rows with NaN are NaN.

        Raises
        ------
        ValueError
            If there is no such regression, or the features have another width.
        """
        if not self.config.own_features:
            raise ValueError(
                "The regression of this model has no features of its own, and regression_features gives some."
            )
        x = numbers("regression_features", features, (None, len(self.arrays["own_mean"])))
        z = standardized_blocks(x, self.config.own_features, self.arrays["own_mean"], self.arrays["own_std"], sections)
        return (z @ self.arrays["own_weight"].T + self.arrays["own_intercept"]).astype(np.float32)

    @checked
    def check_method(self, method: str | None) -> Method:
        """Return the method, or the default one for ``None``.

        Raises
        ------
        ValueError
            If it is unknown, or needs a regression that is not there.
        """
        method = method or self.config.method
        if method not in METHODS:
            raise ValueError(f"Unknown method {method!r}; choose one of {listing(METHODS)}.")
        if method not in self.methods():
            raise ValueError(f"This model has no regression; use method='retrieval' instead of {method!r}.")
        return method

    def with_accuracy(
        self, held_out: Mapping[str, np.ndarray], weight: float | None = None, *, own: bool = False
    ) -> ExpressionPredictor:
        """Return a copy with the held-out correlation (g,) of each method, and the best weight of the regression.

        Parameters
        ----------
        held_out
            Method to correlations.
        weight
            Weight of the regression in "both"; ``None`` leaves it as it is.
        own
            Whether both are of the regression on features of its own.
        """
        start = "own_" if own else ""
        config = self.config
        if weight is not None:
            config = replace(config, own_weight=weight) if own else replace(config, weight=weight)
        arrays = {f"held_out_{start}{method}": values for method, values in held_out.items()}
        return ExpressionPredictor(config, self.values, self.arrays | arrays)

    def with_own(self, features: Sequence[RegressionFeatures], arrays: Mapping[str, np.ndarray]) -> ExpressionPredictor:
        """Return a copy with a second regression, on features of its own; see the attribute ``arrays``."""
        config = replace(self.config, own_features=tuple(features), own_weight=self.config.weight)
        return ExpressionPredictor(config, self.values, self.arrays | dict(arrays))

    def _groups(self, exclude: Any, n: int) -> dict[str, Any]:
        kind, names = exclude if isinstance(exclude, tuple) and len(exclude) == 2 else (None, None)
        if kind not in ("section", "group"):
            raise ValueError(f"exclude must be ('section', names) or ('group', names), not {shown(exclude)}.")
        names = one_for_each("exclude", names, n)
        known = self.config.sections if kind == "section" else self.config.groups
        code = {name: i for i, name in enumerate(known)}
        return {"query_group": np.array([code.get(str(n), -1) for n in names]), "key_group": self.arrays[kind]}

    def artifact(self) -> Artifact:
        """Return everything that is stored of the predictor."""
        tensors = {f"values.{k}": getattr(self.values, k) for k in _CSR}
        tensors |= {"values.shape": np.array(self.values.shape)} | self.arrays
        return Artifact(KIND, to_plain(self.config), tensors)

    @classmethod
    def from_artifact(cls, artifact: Artifact) -> ExpressionPredictor:
        """Build the predictor that was stored.

        Raises
        ------
        ValueError
            If a value is missing or of another type, or arrays do not fit each other.
        """
        config = from_plain(ExpressionConfig, artifact.config, "the configuration of a predictor of expression")
        tensors = dict(artifact.tensors)
        try:
            shape = tuple(int(n) for n in tensors.pop("values.shape"))
            values = sp.csr_matrix(tuple(tensors.pop(f"values.{k}") for k in _CSR), shape=shape)
            values.check_format(full_check=True)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"The bank of this predictor of expression does not fit together ({error}).") from error
        return cls(config, values, tensors)


def _check(config: ExpressionConfig, values: sp.csr_matrix, arrays: Mapping[str, np.ndarray]) -> None:
    """Refuse a bank or a regression whose arrays are missing or of another size."""
    m, g = values.shape
    sizes = {"genes": (len(config.genes), g), "gene_ids": (len(config.gene_ids), g)}
    needed = {config.retrieval.key: m, "section": m, "group": m}
    if config.regression in ("features", "embedding"):
        needed |= {"weight": g, "intercept": g}
    if config.own_features:
        width = sum(one.dim for one in config.own_features)
        needed |= {"own_weight": g, "own_intercept": g, "own_mean": width, "own_std": width}
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


def standardized_blocks(
    x: np.ndarray, features: Sequence[RegressionFeatures], mean: np.ndarray, std: np.ndarray, sections: Any
) -> np.ndarray:
    """Features of the regression of its own, each block of columns standardised as it states, float32 (n, e)."""
    ends = np.cumsum([one.dim for one in features])
    blocks = [slice(end - one.dim, end) for one, end in zip(features, ends, strict=True)]
    return np.concatenate(
        [
            standardize(x[:, b], how=one.standardize, mean=mean[b], std=std[b], sections=sections)
            for one, b in zip(features, blocks, strict=True)
        ],
        axis=1,
    )


def fit_predictor(
    *,
    config: ExpressionConfig,
    image: np.ndarray,
    gene: np.ndarray | None,
    regress_on: np.ndarray | None,
    values: Any,
    sections: Sequence[Any] | np.ndarray,
    groups: Sequence[Any] | np.ndarray,
    positions: np.ndarray | None = None,
    unpaired: Sequence[Any] = (),
) -> ExpressionPredictor:
    """Build the bank of observations with image and counts, and fit the regression.

    Parameters
    ----------
    config
        Which genes are predicted, and how; the names of sections and groups are filled in.
    image, gene
        Embeddings of the observations before they are scaled to unit length, shape (m, u); ``gene`` may be ``None`` where retrieval
        compares with images.
    regress_on
        Input of the regression, shape (m, d); ``None`` fits none.
    values
        Expression of the observations, CSR (m, g).
    sections, groups
        Section and patient (group) of each observation, shape (m,).
    positions
        Position of each observation, shape (m, 2). It is used where there is one section, blocks of which are left out to choose the
        penalty of the regression.
    unpaired
        Expression of sections without an image, each CSR (k, g). It helps to find the components of expression.
    """
    section_names, section_codes = np.unique(np.asarray(sections, dtype=str), return_inverse=True)
    group_names, group_codes = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    arrays = {"section": section_codes.astype(np.int32), "group": group_codes.astype(np.int32)}
    if config.retrieval.key == "image":
        arrays["image"] = image
    elif gene is None:
        raise ValueError("This retrieval compares with gene embeddings, and there are none.")
    else:
        arrays["gene"] = gene
    if regress_on is not None:
        arrays |= reduced_rank_ridge(
            regress_on,
            values,
            section_codes,
            rank=config.regression_rank,
            units=left_out_units(group_codes, section_codes, positions),
            unpaired=list(unpaired),
        )
    config = replace(config, sections=tuple(section_names.tolist()), groups=tuple(group_names.tolist()))
    return ExpressionPredictor(config, sp.csr_matrix(values, dtype=np.float32), arrays)
