"""What predicts expression from an image: a bank of paired observations, and a regression beside it. Arrays only."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from spatialwhisperer._messages import found
from spatialwhisperer.retrieval.retrieval import retrieve_mean
from spatialwhisperer.retrieval.rule import Retrieval
from spatialwhisperer.statistics.reduced_rank import reduced_rank_ridge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spatialwhisperer.models.whisperer import Whisperer

METHODS = ("retrieval", "regression", "both")


class ExpressionPredictor:
    """Expression of image embeddings, retrieved from training observations, regressed, or both.

    Attributes
    ----------
    config
        Plain values: ``genes``, ``gene_ids``, ``value_space``, ``retrieval``, ``method``, ``weight`` (of the regression in
        "both"), ``gene_lists`` chosen on training data, ``sections`` that it was trained on.
    values
        Expression of the bank, CSR, shape (m, g).
    arrays
        ``image`` or ``gene``: embeddings of the bank (m, u); ``section`` and ``group`` codes (m,); ``weight`` (g, d)
        and ``intercept`` (g,) of the regression; ``held_out_<method>``: Pearson of each gene on held-out training sections (g,).
    """

    def __init__(self, config: Mapping[str, Any], values: sp.csr_matrix, arrays: Mapping[str, np.ndarray]) -> None:
        self.config = dict(config)
        self.values = values
        self.arrays = dict(arrays)
        self.config.setdefault("weight", 0.7)

    @property
    def genes(self) -> list[str]:
        """Genes that it predicts."""
        return list(self.config["genes"])

    @property
    def retrieval(self) -> Retrieval:
        """How values are retrieved."""
        return Retrieval(**self.config["retrieval"])

    def __repr__(self) -> str:
        r = self.retrieval
        how = f"{r.query} → {r.key}, k = {r.k or 'all'}, {r.weights}"
        return f"{len(self.genes)} genes in {self.config['value_space']}; bank of {self.values.shape[0]} ({how})"

    def held_out(self, method: str) -> np.ndarray:
        """Pearson of each gene on held-out training sections, NaN where it was not measured; shape (g,)."""
        return self.arrays.get(f"held_out_{method}", np.full(len(self.genes), np.nan, np.float32))

    def methods(self) -> tuple[str, ...]:
        """Methods that it can answer with."""
        return METHODS if self.config["regression"] != "none" else METHODS[:1]

    def predict(
        self,
        model: Whisperer,
        features: Any,
        *,
        method: str | None = None,
        sections: Sequence[Any] | np.ndarray | None = None,
        positions: np.ndarray | None = None,
        k: int | None = None,
        exclude: tuple[str, np.ndarray] | None = None,
        device: str | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Predict from image features.

        Parameters
        ----------
        model
            The model that this belongs to.
        features
            Image features (n, d), or tiles for a model with an image tower.
        method
            "retrieval", "regression" or "both".
        sections, positions
            Of the rows; see :meth:`Whisperer.project`.
        k
            Neighbours instead of the preset's.
        exclude
            "section" or "group", and the name of it for each row: bank observations of the same name are not used.
        device
            Torch device.

        Returns
        -------
        Predicted values float32 (n, g), and the spread of the retrieved neighbours (n,): the standard deviation, mean over
        the genes. Rows with NaN in the features are NaN.

        Raises
        ------
        ValueError
            If the method is unknown or ``k`` is larger than the bank.
        """
        method = self.check_method(method)
        z = model.project("image", features, sections=sections, positions=positions, unit=False, device=device)
        retrieval = self.retrieval if k is None else replace(self.retrieval, k=k)
        if method == "regression" and retrieval.k is not None:
            # only the spread is taken from the bank
            retrieval = replace(retrieval, k=min(retrieval.k, self.values.shape[0]))
        groups = {} if exclude is None else self._groups(*exclude)
        mean, spread = retrieve_mean(
            z, self.arrays[retrieval.key], self.values, retrieval=retrieval, device=device, **groups
        )
        spread = spread.mean(axis=1)
        if method == "retrieval":
            return mean, spread
        regressed = self._regress(model, z, features, sections, positions)
        if method == "regression":
            return regressed, spread
        share = np.float32(self.config["weight"])
        return share * regressed + (1 - share) * mean, spread

    def check_method(self, method: str | None) -> str:
        """The method, or the default one."""
        method = method or self.config["method"]
        if method not in METHODS:
            raise ValueError(f"Unknown method {method!r}; choose one of {found(METHODS)}.")
        if method not in self.methods():
            raise ValueError(f"This model has no regression; use method='retrieval' instead of {method!r}.")
        return method

    def _groups(self, kind: str, names: np.ndarray) -> dict[str, np.ndarray]:
        known = self.config[f"{kind}s"]
        code = {name: i for i, name in enumerate(known)}
        return {"query_group": np.array([code.get(str(n), -1) for n in names]), "key_group": self.arrays[kind]}

    def _regress(self, model: Whisperer, z: np.ndarray, features: Any, sections: Any, positions: Any) -> np.ndarray:
        if self.config["regression"] == "decoder":
            return decode(model, z)
        x = z if self.config["regression"] == "embedding" else regression_input(model, features, sections, positions)
        return (x @ self.arrays["weight"].T + self.arrays["intercept"]).astype(np.float32)


def regression_input(model: Whisperer, features: Any, sections: Any, positions: Any) -> np.ndarray:
    """Standardised image features, with their context where that is not learnt."""
    learnt = "image" in model.contexts and any(True for _ in model.contexts["image"].parameters())
    if learnt or "image" not in model.contexts:
        return model.standardized("image", np.asarray(features, np.float32), sections)
    return model.contextual("image", features, sections=sections, positions=positions)


def decode(model: Whisperer, z: np.ndarray) -> np.ndarray:
    """Values from the trained decoder, float32 (n, g)."""
    import torch

    out = np.full((len(z), int(model.config["decoder"]["out_dim"])), np.nan, np.float32)
    complete = np.flatnonzero(np.isfinite(z).all(axis=1))
    with torch.inference_mode():
        scaled = model.scaled(torch.from_numpy(z[complete]))
        out[complete] = model.decoder(scaled).numpy()  # type: ignore[misc]
    return out


def fit_predictor(
    model: Whisperer,
    *,
    image: Any,
    gene: Any,
    values: sp.csr_matrix,
    sections: np.ndarray,
    groups: np.ndarray,
    positions: Mapping[str, np.ndarray | None],
    config: Mapping[str, Any],
    unpaired: Sequence[Any] = (),
) -> ExpressionPredictor:
    """Put observations that hold image and gene into a bank, and fit the regression beside it.

    Parameters
    ----------
    model
        Trained model.
    image, gene
        Features of the observations, or raw inputs of a tower; ``gene`` may be ``None`` where keys are images.
    values
        Their expression, CSR (m, g).
    sections, groups
        Section and patient of each (m,).
    positions
        Modality to positions (m, 2), or ``None``.
    config
        See :class:`ExpressionPredictor`.
    unpaired
        Expression of sections without an image, each CSR (k, g).
    """
    section_names, section_codes = np.unique(np.asarray(sections, dtype=str), return_inverse=True)
    group_names, group_codes = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    z = model.project("image", image, sections=sections, positions=positions.get("image"), unit=False)
    arrays = {"section": section_codes.astype(np.int32), "group": group_codes.astype(np.int32)}
    retrieval = Retrieval(**config["retrieval"])
    if retrieval.key == "image":
        arrays["image"] = z
    else:
        where = positions.get("gene")
        arrays["gene"] = model.project("gene", gene, sections=sections, positions=where, unit=False)
    kind = _regression_kind(model)
    if kind in ("features", "embedding"):
        x = z if kind == "embedding" else regression_input(model, image, sections, positions.get("image"))
        arrays |= reduced_rank_ridge(x, values, section_codes, rank=int(config["regression_rank"]), unpaired=unpaired)
    names = {"sections": section_names.tolist(), "groups": group_names.tolist(), "regression": kind}
    return ExpressionPredictor({**config, **names}, sp.csr_matrix(values, dtype=np.float32), arrays)


def _regression_kind(model: Whisperer) -> str:
    if model.decoder is not None:
        return "decoder"
    return "embedding" if "image" in model.towers else "features"
