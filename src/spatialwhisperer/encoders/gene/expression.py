"""Expression as gene features, in a named value space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import scipy.sparse as sp

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

    The library size is the total over the encoder's genes, so that a row depends on these columns alone. Genes that were not measured
    count as zero, and a row without counts in these genes is a row of zeros. Only the choice of genes is fitted.
    """

    # no counts in the chosen genes are a measurement: a spot without three marker genes is no spot that was not measured
    encodes_zeros: ClassVar[bool] = True

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

    def encode_counts(
        self,
        counts: sp.csr_matrix,
        present: np.ndarray | None,
        batch_size: int,
        device: str | None,  # noqa: ARG002
    ) -> np.ndarray:
        """Embed checked counts."""
        if present is not None:
            counts = counts @ sp.diags_array(present.astype(np.float32), format="csr")
        out = np.empty((counts.shape[0], self.dim), np.float32)
        for start in range(0, counts.shape[0], batch_size):
            out[start : start + batch_size] = to_space(counts[start : start + batch_size], self.value_space).toarray()
        return out


def _check(value_space: str) -> None:
    if value_space == _PEER:
        raise ValueError(
            f"value_space={_PEER!r} scales each gene within its section, so a row would depend on the others that are encoded "
            f"with it. An encoder takes one of {listing(s for s in SPACES if s != _PEER)}."
        )
    check_space(value_space)
