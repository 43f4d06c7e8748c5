"""Expression as gene features, in a named value space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import scipy.sparse as sp

from spatialwhisperer._annotations import numbers
from spatialwhisperer._docs import shared
from spatialwhisperer._messages import listing
from spatialwhisperer.encoders.gene.base import GeneEncoder, take_tensors
from spatialwhisperer.encoders.registry import register_encoder
from spatialwhisperer.encoders.spec import EncoderSpec
from spatialwhisperer.statistics.counts import training_counts
from spatialwhisperer.statistics.expression.value_spaces import SPACES, check_space, to_space

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PEER = "per_gene_log10_peer"


@register_encoder(
    EncoderSpec("identity", "gene", None, licence="BSD-3-Clause (no weights)", commercial=True),
)
class ExpressionEncoder(GeneEncoder):
    """Scaled and logarithmised expression of the chosen genes, the gene features of BLEEP and mclSTExp.

    In "per_spot_log1p" the library size is the total over all genes of the table, as for predicted values, and the total over the
    panel where the table holds a panel. In "per_spot_log10" it is the total over the encoder's genes. Genes that were not measured
    count as zero, and a row without counts in the encoder's genes is a row of zeros. Only the choice of genes is fitted.
    """

    # no counts in the chosen genes are a measurement: a spot without three marker genes is no spot that was not measured
    encodes_zeros: ClassVar[bool] = True
    reads_library: ClassVar[bool] = True

    def __init__(
        self,
        genes: Sequence[str],
        gene_ids: Sequence[str] | None = None,
        *,
        value_space: str = "per_spot_log1p",
        fitted: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(genes, gene_ids, fitted)
        _check(value_space)
        self.value_space = value_space

    @classmethod
    @shared
    def fit(
        cls,
        counts: Any,
        genes: Sequence[str],
        gene_ids: Sequence[str] | None = None,
        *,
        batch: np.ndarray | None = None,
        n_top_genes: int | None = 2000,
        value_space: str = "per_spot_log1p",
    ) -> ExpressionEncoder:
        """Select genes.

        Parameters
        ----------
        %(training_counts)s
        %(n_top_genes)s
        value_space
            "per_spot_log1p" or "per_spot_log10": spaces in which a row depends on itself alone.

        Raises
        ------
        ValueError
            If values are not counts, or the space is unknown or depends on the section.
        """
        _check(value_space)
        matrix, chosen, _ = training_counts(counts, len(genes), n_top_genes, batch)
        return cls(
            [genes[i] for i in chosen],
            None if gene_ids is None else [gene_ids[i] for i in chosen],
            value_space=value_space,
            fitted={"rows": matrix.shape[0], "batches": 1 if batch is None else len(np.unique(batch))},
        )

    @property
    def dim(self) -> int:
        """Columns of the embedding."""
        return len(self.genes)

    def tensors(self) -> dict[str, np.ndarray]:
        """Return an empty mapping: no arrays are fitted."""
        return {}

    def options(self) -> dict[str, Any]:
        """Further arguments of the constructor."""
        return {"value_space": self.value_space}

    @classmethod
    def from_parts(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> ExpressionEncoder:
        """Build the encoder of a stored configuration and its tensors."""
        take_tensors(tensors, {}, cls.__name__)
        space = str(config.get("value_space"))
        return cls(config["genes"], config["gene_ids"], value_space=space, fitted=config.get("fitted"))

    def encode(
        self,
        inputs: Any,
        *,
        present: np.ndarray | None = None,
        library: np.ndarray | None = None,
        batch_size: int | None = None,
        device: str | None = None,  # noqa: ARG002
    ) -> np.ndarray:
        """Scale and transform raw counts.

        Parameters
        ----------
        inputs
            Raw counts, CSR or dense, shape (n, len(genes)), columns in the order of ``genes``.
        present
            Which genes were measured, bool, shape (len(genes),); ``None`` means all. The others count as zero.
        library
            Total counts of each row over all genes of its table, shape (n,), for "per_spot_log1p". ``None`` takes the total over
            ``inputs``; :func:`~spatialwhisperer.pp.embed_genes` takes that of the table.
        batch_size
            Rows in one pass; ``None`` takes ``settings.batch_size``. It does not change the result.
        device
            Not used.

        Returns
        -------
        Expression, float32, shape (n, dim). Row i depends on row i of the arguments alone.

        Raises
        ------
        ValueError
            If the number of columns differs, values are negative, fractional or not finite, or a library is smaller than the counts of
            its row.
        """
        counts, present, batch_size = self._checked(inputs, present, batch_size)
        total = None if library is None else _libraries(library, counts)
        return self._values(counts, present, total, batch_size)

    def encode_counts(
        self,
        counts: sp.csr_matrix,
        present: np.ndarray | None,
        batch_size: int,
        device: str | None,  # noqa: ARG002
    ) -> np.ndarray:
        """Embed checked counts; the library is the total over the encoder's genes."""
        return self._values(counts, present, None, batch_size)

    def _values(
        self, counts: sp.csr_matrix, present: np.ndarray | None, library: np.ndarray | None, batch_size: int
    ) -> np.ndarray:
        if present is not None:
            counts = counts @ sp.diags_array(present.astype(np.float32), format="csr")
        out = np.empty((counts.shape[0], self.dim), np.float32)
        for start in range(0, counts.shape[0], batch_size):
            rows = slice(start, start + batch_size)
            total = None if library is None else library[rows]
            out[rows] = to_space(counts[rows], self.value_space, library=total).toarray()
        return out


def _libraries(library: Any, counts: sp.csr_matrix) -> np.ndarray:
    own = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    given = numbers("library", library, (len(own),)).astype(np.float64)
    # float32 holds whole numbers up to 2**24
    small = ~(given >= own * (1 - 1e-6)) | ~np.isfinite(given)
    if small.any():
        i = int(np.flatnonzero(small)[0])
        raise ValueError(
            f"library[{i}] is {given[i]:g}, and the row has {own[i]:g} counts in the encoder's genes alone. Pass the total over all "
            "genes of the table, before genes are chosen."
        )
    return given


def _check(value_space: str) -> None:
    if value_space == _PEER:
        raise ValueError(
            f"value_space={_PEER!r} scales each gene within its section, so a row would depend on the others that are encoded "
            f"with it. An encoder takes one of {listing(s for s in SPACES if s != _PEER)}."
        )
    check_space(value_space)
