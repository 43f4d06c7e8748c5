"""Prediction of expression from images: retrieval from a bank of paired observations, and a regression. Arrays only."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from spatialwhisperer._annotations import numbers, one_for_each, shown
from spatialwhisperer._artifact.artifact import Artifact
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._messages import listing
from spatialwhisperer._storage.schema import from_plain, to_plain
from spatialwhisperer.models.expression.config import METHODS, ExpressionConfig, Method, check_arrays
from spatialwhisperer.retrieval.retrieval import retrieve_mean
from spatialwhisperer.statistics.standardize import standardize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spatialwhisperer.models.configuration.model import RegressionFeatures

KIND = "predictor of expression"
_CSR = ("data", "indices", "indptr")


class ExpressionPredictor:
    """Expression of image embeddings, retrieved from training observations, regressed, or both.

    Attributes
    ----------
    config
        What is predicted, and how.
    values
        Expression of the bank, CSR, shape (m, g).
    arrays
        ``image`` or ``gene``: embeddings of the bank (m, u); ``section`` and ``group`` codes (m,); ``row``: hashes of
        names and positions (m,), by which observations are recognised when they are predicted; ``weight`` (g, d)
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
        check_arrays(config, values, self.arrays)

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
            Number of neighbours; ``None`` takes that of the model. Of "regression" the standard deviation alone depends on it.
        own
            Whether ``regressed`` is of the regression on features of its own, which has another weight in "both".
        exclude
            "section" or "group", and the name of it for each row: bank observations of the same name are not used.
        device
            Torch device.

        Returns
        -------
        Predicted values float32 (n, g), and the standard deviation among the retrieved neighbours, mean over the genes (n,).
        Rows with NaN are NaN. Of "regression" the standard deviation is NaN too where ``exclude`` leaves fewer than ``k`` neighbours.

        Raises
        ------
        ValueError
            If the method is unknown, ``k`` is larger than the bank, or another method than "regression" has fewer neighbours than
            ``k`` for a row.
        """
        method = self.check_method(method)
        retrieval = self.config.retrieval if k is None else replace(self.config.retrieval, k=k)
        z = numbers("z", z, (None, self.arrays[retrieval.key].shape[1]))
        groups = {} if exclude is None else self._groups(exclude, len(z))
        if method == "regression" and groups:
            # only the standard deviation is taken from the bank
            z = np.where(self._has_neighbours(retrieval.k, **groups)[:, None], z, np.nan)
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

    def _has_neighbours(self, k: int | None, query_group: np.ndarray, key_group: np.ndarray) -> np.ndarray:
        """Whether a row has as many neighbours as are asked for beside those of its own group, or as the bank has; shape (n,)."""
        m = len(key_group)
        sizes = np.bincount(key_group, minlength=int(query_group.max(initial=0)) + 1)
        left = m - np.where(query_group < 0, 0, sizes[query_group])
        return left >= (1 if k is None else min(k, m))

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
