"""Options of a retrieval, as plain frozen values."""

from __future__ import annotations

from dataclasses import dataclass

from spatialwhisperer._annotations import is_number
from spatialwhisperer._messages import listing
from spatialwhisperer._modalities import get_modality
from spatialwhisperer._storage.schema import Stored
from spatialwhisperer.retrieval.weights import WEIGHTS


@dataclass(frozen=True)
class Retrieval(Stored):
    """How expression is retrieved from a bank of paired observations.

    Attributes
    ----------
    query, key
        Modality of the queries, and modality of the bank that they are compared with.
    k
        Number of neighbours; ``None`` averages over the whole bank.
    weights
        How neighbours are weighted: "uniform", "inv_sq_l1", "inv_sq_l2", "exp_gap", "softmax", "raw_cosine" or "clipped_cosine"; see
        :data:`spatialwhisperer.retrieval.weights.WEIGHTS`.
    temperature
        What cosines are divided by before the softmax.

    Raises
    ------
    ValueError
        If a name is unknown, k is less than 1 or the temperature is not positive.
    """

    query: str = "image"
    key: str = "gene"
    k: int | None = 50
    weights: str = "uniform"
    temperature: float = 0.1

    def __post_init__(self) -> None:
        for modality in (self.query, self.key):
            get_modality(modality)
        if not isinstance(self.weights, str) or self.weights not in WEIGHTS:
            raise ValueError(f"Unknown weights {self.weights!r}; choose one of {listing(WEIGHTS)}.")
        if self.k is not None and (not isinstance(self.k, int) or self.k < 1):
            raise ValueError(f"k must be a whole number of at least 1, or None for the whole bank, not {self.k!r}.")
        if not is_number(self.temperature) or not self.temperature > 0:
            raise ValueError(f"temperature must be positive, not {self.temperature!r}.")
