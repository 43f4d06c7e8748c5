"""Principal components of log-normalised counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from spatialwhisperer._docs import shared
from spatialwhisperer.encoders.gene.base import GeneEncoder, take_tensors, whole_number
from spatialwhisperer.encoders.registry import register_encoder
from spatialwhisperer.encoders.spec import EncoderSpec
from spatialwhisperer.statistics.counts import training_counts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TARGET = 1e4
_DENSE_UP_TO = 4000


@register_encoder(
    EncoderSpec("pca", "gene", None, licence="BSD-3-Clause (no weights)", commercial=True),
)
class PCAEncoder(GeneEncoder):
    r"""Principal components of log1p(CP10k).

    With counts :math:`x_{ig}` over the encoder's own genes,

    .. math:: y_{ig} = \log\left(1 + 10^4\, \frac{x_{ig}}{\sum_h x_{ih}}\right), \qquad z_i = (y_i - \mu)\,V .

    The library size is the total over the encoder's genes, when fitting and when encoding, so that an embedding depends on these
    columns alone.

    Genes that were not measured (``present`` is false) take the training mean :math:`\mu_g` and so contribute nothing. The
    library is then scaled by the fraction of counts that the measured genes had in the training data, so that a panel's CP10k
    stay comparable.

    With several batches the components are those of the variation within batches: each batch is centred on its own mean when fitting.
    Encoding does not use the batch.
    """

    def __init__(
        self,
        genes: Sequence[str],
        gene_ids: Sequence[str] | None = None,
        *,
        mean: np.ndarray,
        components: np.ndarray,
        fraction: np.ndarray,
        fitted: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(genes, gene_ids, fitted)
        self.mean, self.components, self.fraction = mean, components, fraction

    @classmethod
    @shared
    def fit(
        cls,
        counts: Any,
        genes: Sequence[str],
        gene_ids: Sequence[str] | None = None,
        *,
        batch: np.ndarray | None = None,
        n_latent: int = 32,
        n_top_genes: int | None = 2000,
        random_state: int = 0,
    ) -> PCAEncoder:
        """Select genes and find the components. Rows without counts in these genes are left out.

        Parameters
        ----------
        %(training_counts)s
        n_latent
            Number of components.
        %(n_top_genes)s
        random_state
            Start of the iterative solver, used above 4000 genes; below, the solution is exact.

        Raises
        ------
        ValueError
            If values are not counts, or rows or genes are too few for ``n_latent``.
        """
        matrix, chosen, rows = training_counts(counts, len(genes), n_top_genes, batch)
        codes = (
            np.zeros(matrix.shape[0], int)
            if batch is None
            else np.unique(np.asarray(batch)[rows], return_inverse=True)[1]
        )
        limit = min(matrix.shape[0] - codes.max(initial=0) - 1, matrix.shape[1] - 1)
        if not 1 <= n_latent <= limit:
            raise ValueError(
                f"n_latent={n_latent} components cannot be found in {matrix.shape[0]} rows and {matrix.shape[1]} genes "
                f"(at most {max(limit, 0)})."
            )
        total = np.asarray(matrix.sum(axis=1)).ravel()
        # a shallow cell may hold none of the selected genes: its profile is zero, as in encode
        profile = sp.diags_array(1 / np.where(total > 0, total, 1)) @ matrix.astype(np.float64)
        logged = sp.csr_matrix(np.log1p(profile * _TARGET))
        components, explained = _components(logged, codes, n_latent, random_state)
        fitted = {
            "rows": matrix.shape[0],
            "batches": int(codes.max()) + 1,
            "explained_variance_ratio": round(float(explained), 6),
            "random_state": random_state,
        }
        return cls(
            [genes[i] for i in chosen],
            None if gene_ids is None else [gene_ids[i] for i in chosen],
            mean=np.asarray(logged.mean(axis=0), np.float32).ravel(),
            components=components.astype(np.float32),
            fraction=np.asarray(profile.mean(axis=0), np.float32).ravel(),
            fitted=fitted,
        )

    @property
    def dim(self) -> int:
        """Columns of the embedding."""
        return self.components.shape[1]

    def tensors(self) -> dict[str, np.ndarray]:
        """Training mean, components and fraction of counts, by name."""
        return {"mean": self.mean, "components": self.components, "fraction": self.fraction}

    @classmethod
    def from_parts(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> PCAEncoder:
        """Build the encoder of a stored configuration and its tensors."""
        n, d = len(config["genes"]), whole_number(config, "dim")
        values = take_tensors(tensors, {"mean": (n,), "components": (n, d), "fraction": (n,)}, cls.__name__)
        return cls(config["genes"], config["gene_ids"], fitted=config.get("fitted"), **values)

    def encode_counts(
        self,
        counts: sp.csr_matrix,
        present: np.ndarray | None,
        batch_size: int,
        device: str | None,  # noqa: ARG002
    ) -> np.ndarray:
        """Embed checked counts."""
        # one sparse product on the CPU: moving it elsewhere would cost more than it takes
        mean, scale = self.mean.astype(np.float64), _TARGET
        if present is not None:
            counts = counts @ sp.diags_array(present.astype(np.float32), format="csr")
            mean, scale = mean * present, _TARGET * float(self.fraction[present].sum())
        components = self.components.astype(np.float64)
        offset = mean @ components
        out = np.empty((counts.shape[0], self.dim), np.float32)
        for start in range(0, counts.shape[0], batch_size):
            part = counts[start : start + batch_size].astype(np.float64)
            total = np.asarray(part.sum(axis=1)).ravel()
            part = sp.diags_array(scale / np.where(total > 0, total, 1)) @ part
            out[start : start + batch_size] = np.log1p(part) @ components - offset
        return out


def _components(x: sp.csr_matrix, codes: np.ndarray, n_latent: int, random_state: int) -> tuple[np.ndarray, float]:
    """Leading axes of the variation within batches, and the fraction of that variation that they explain."""
    from scipy.linalg import eigh
    from scipy.sparse.linalg import LinearOperator, svds

    n, g = x.shape
    member = sp.csr_matrix((np.ones(n), (codes, np.arange(n))))
    size = np.asarray(member.sum(axis=1)).ravel()
    means = (sp.diags_array(1 / size) @ (member @ x)).toarray()
    total = x.multiply(x).sum() - (size[:, None] * means**2).sum()
    if g <= _DENSE_UP_TO:
        scatter = (x.T @ x).toarray() - (means * size[:, None]).T @ means
        values, axes = eigh(scatter, subset_by_index=(g - n_latent, g - 1))
        values, axes = values[::-1], axes[:, ::-1]
    else:
        centred = LinearOperator(
            (n, g),
            matvec=lambda v: x @ v - (means @ v)[codes],
            rmatvec=lambda u: x.T @ u - means.T @ (member @ u),
            dtype=np.float64,
        )
        start = np.random.default_rng(random_state).standard_normal(min(n, g))
        _, singular, axes = svds(centred, k=n_latent, v0=start)
        order = np.argsort(-singular)
        values, axes = singular[order] ** 2, axes[order].T
    # the sign of an axis is free: the largest loading is made positive
    sign = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(n_latent)])
    return axes * sign, float(values.sum() / total)
