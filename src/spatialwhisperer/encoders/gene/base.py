"""Base class of gene encoders."""

from __future__ import annotations

import hashlib
import json
import os
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from spatialwhisperer._artifact.artifact import Artifact
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._checks.values import check_batch_size
from spatialwhisperer._messages import listing
from spatialwhisperer._settings import settings
from spatialwhisperer._storage.schema import to_plain
from spatialwhisperer.encoders.base import Encoder
from spatialwhisperer.encoders.recipe import EncoderIdentity
from spatialwhisperer.statistics.counts import as_counts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import scipy.sparse as sp
    import torch

KIND = "gene encoder"
_LARGEST = 10**9
_COMMON = {"name", "dim", "fitted", "genes", "gene_ids"}


class GeneEncoder(Encoder):
    """Embeds raw counts. The embedding of a row does not depend on its batch.

    Attributes
    ----------
    genes
        Names of the genes, in the order of the columns that `encode` takes.
    gene_ids
        Ensembl id of each gene, or ``""`` where it is not known.
    fitted
        How it was fitted: rows, batches, seed, versions.
    fewest_genes
        How many of its genes a table must have; ``None`` asks for half of them.
    keeps_fits
        Whether a fit takes so long that it is kept for the next call on the same counts.
    encodes_zeros
        Whether a row without counts in its genes has an embedding, where it has counts in other genes.
    reads_library
        Whether ``encode`` takes ``library`` too, the total counts of each row over all genes of its table.
    """

    fits: ClassVar[bool] = True
    keeps_fits: ClassVar[bool] = False
    fewest_genes: ClassVar[int | None] = None
    encodes_zeros: ClassVar[bool] = False
    reads_library: ClassVar[bool] = False

    def __init__(
        self, genes: Sequence[str], gene_ids: Sequence[str] | None = None, fitted: Mapping[str, Any] | None = None
    ) -> None:
        self.genes = [str(g) for g in genes]
        self.gene_ids = [""] * len(self.genes) if gene_ids is None else [str(g) for g in gene_ids]
        self.fitted = dict(fitted or {})
        if len(set(self.genes)) != len(self.genes):
            raise ValueError("The names of an encoder's genes must be unique.")
        if len(self.gene_ids) != len(self.genes):
            raise ValueError(f"gene_ids has {len(self.gene_ids)} entries for {len(self.genes)} genes.")

    @property
    def name(self) -> str:
        """Name in the registry."""
        return self.spec.name

    @property
    @abstractmethod
    def dim(self) -> int:
        """Columns of the embedding."""

    @abstractmethod
    def encode_counts(
        self, counts: sp.csr_matrix, present: np.ndarray | None, batch_size: int, device: str | None
    ) -> np.ndarray:
        """Embed counts that `encode` has checked.

        Parameters
        ----------
        counts
            Raw counts, CSR (n, len(genes)).
        present
            Which genes were measured, bool (len(genes),); ``None`` means all.
        batch_size
            Rows in one pass.
        device
            Torch device; ``None`` takes ``settings.device``.

        Returns
        -------
        float32 (n, dim).
        """

    def tensors(self) -> dict[str, np.ndarray]:
        """Fitted arrays by name."""
        return {}

    def options(self) -> dict[str, Any]:
        """Arguments of the constructor besides genes and arrays, as plain values."""
        return {}

    @classmethod
    def from_parts(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> GeneEncoder:
        """Build the encoder of a stored configuration (genes, ids, how it was fitted, `options`) and its `tensors`."""
        take_tensors(tensors, {}, cls.__name__)
        own = {k: v for k, v in config.items() if k not in _COMMON}
        return cls(config["genes"], config["gene_ids"], fitted=config.get("fitted"), **own)

    def encode(
        self,
        inputs: Any,
        *,
        present: np.ndarray | None = None,
        batch_size: int | None = None,
        device: str | None = None,
    ) -> np.ndarray:
        """Embed raw counts.

        Parameters
        ----------
        inputs
            Raw counts, CSR or dense, shape (n, len(genes)), columns in the order of ``genes``.
        present
            Which genes were measured, bool, shape (len(genes),); ``None`` means all. The columns of the others hold zeros.
            How they are treated is described at each class.
        batch_size
            Rows in one pass; ``None`` takes ``settings.batch_size``. It does not change the result.
        device
            Torch device; ``None`` takes ``settings.device``.

        Returns
        -------
        Embedding, float32, shape (n, dim). Row i depends on row i of ``inputs`` alone.

        Raises
        ------
        ValueError
            If the number of columns differs, or values are negative, fractional or not finite.
        """
        matrix, present, batch_size = self._checked(inputs, present, batch_size)
        return self.encode_counts(matrix, present, batch_size, device)

    def _checked(
        self, inputs: Any, present: np.ndarray | None, batch_size: int | None
    ) -> tuple[sp.csr_matrix, np.ndarray | None, int]:
        """Counts, which genes were measured (``None`` means all), and the size of a batch, after checks."""
        check_batch_size(batch_size)
        matrix = as_counts(inputs, len(self.genes))
        if present is not None:
            present = np.asarray(present, dtype=bool)
            if present.shape != (len(self.genes),):
                raise ValueError(f"present has shape {present.shape}, not ({len(self.genes)},).")
            present = None if present.all() else present
        return matrix, present, settings.batch_size if batch_size is None else batch_size

    @property
    def identity(self) -> EncoderIdentity:
        """Name, and a digest of genes, options and fitted arrays."""
        artifact = self.artifact()
        sha = hashlib.sha256(json.dumps(to_plain(artifact.config), sort_keys=True).encode())
        for name, value in sorted(artifact.tensors.items()):
            array = np.ascontiguousarray(value)
            sha.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
        return EncoderIdentity(self.name, digest=sha.hexdigest())

    def collate(self, inputs: Any) -> torch.Tensor:
        """Turn counts into a dense float tensor (n, len(genes))."""
        import torch

        dense = inputs.toarray() if hasattr(inputs, "toarray") else inputs
        return torch.from_numpy(np.asarray(dense, dtype=np.float32))

    def artifact(self, *, trained: bool = False) -> Artifact:  # noqa: ARG002
        """Return genes, options and fitted arrays."""
        config = {
            "name": self.name,
            "dim": self.dim,
            **self.options(),
            "fitted": self.fitted,
            "genes": self.genes,
            "gene_ids": self.gene_ids,
        }
        return Artifact(KIND, config, self.tensors())

    @classmethod
    def from_artifact(cls, artifact: Artifact) -> GeneEncoder:
        """Open an encoder from what `artifact` returned.

        Raises
        ------
        ValueError
            If values are missing, or the tensors do not fit them.
        """
        missing = {"genes", "gene_ids", "dim"} - set(artifact.config)
        if missing:
            raise ValueError(f"The configuration of this {cls.__name__} lacks {listing(sorted(missing))}.")
        for name in ("genes", "gene_ids"):
            values = artifact.config.get(name)
            if not isinstance(values, list | tuple) or not set(map(type, values)) <= {str}:
                raise ValueError(f"{name} of this {cls.__name__} must be a list of texts.")
        return cls.from_parts(artifact.config, artifact.tensors)

    @checked
    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write the encoder to a folder; :func:`spatialwhisperer.models.load_gene_encoder` opens it.

        The folder appears whole or not at all.

        Parameters
        ----------
        folder
            The folder.
        overwrite
            Whether to replace a gene encoder that is there already.

        Raises
        ------
        FileExistsError
            If the folder is not empty and ``overwrite`` is off, or it holds something else than a gene encoder.
        """
        folder = Path(folder).expanduser()
        if not overwrite and os.path.exists(folder) and (not os.path.isdir(folder) or any(folder.iterdir())):
            raise FileExistsError(f"{folder} is there already; pass overwrite=True to replace it, or another folder.")
        self.artifact().write(folder)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.genes)} genes -> {self.dim})"


def whole_number(config: Mapping[str, Any], name: str, most: int = _LARGEST) -> int:
    """Return a stored size.

    Raises
    ------
    ValueError
        If it is missing, not a whole number, negative or larger than ``most``.
    """
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise ValueError(
            f"{name} of this gene encoder must be a whole number from 0 to {most}, not {str(value)[:80]!r}."
        )
    return value


def fraction(config: Mapping[str, Any], name: str) -> float:
    """Return a stored number between 0 and 1.

    Raises
    ------
    ValueError
        If it is missing or not one.
    """
    value = config.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError(f"{name} of this gene encoder must be a number between 0 and 1, not {str(value)[:80]!r}.")
    return float(value)


def take_tensors(
    tensors: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], owner: str
) -> dict[str, np.ndarray]:
    """Return arrays as float32 in the order of ``shapes``.

    Raises
    ------
    ValueError
        If arrays are missing, of another shape, not expected or not finite.
    """
    wrong = [
        f"{name}: {tuple(tensors[name].shape) if name in tensors else 'missing'}, expected {shape}"
        for name, shape in shapes.items()
        if name not in tensors or tuple(tensors[name].shape) != shape
    ]
    wrong += [f"{name}: not expected" for name in tensors if name not in shapes]
    if wrong:
        raise ValueError(f"The tensors do not fit this {owner}: {listing(wrong)}.")
    out = {name: np.ascontiguousarray(tensors[name], dtype=np.float32) for name in shapes}
    bad = [name for name, value in out.items() if not np.isfinite(value).all()]
    if bad:
        raise ValueError(f"The tensors of this {owner} are not finite: {listing(bad)}.")
    return out
