"""What every gene encoder can do: counts in, embedding out, saved as JSON and safetensors."""

from __future__ import annotations

import json
import shutil
import uuid
from abc import ABC, abstractmethod
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from spatialwhisperer._messages import found
from spatialwhisperer.statistics.counts import as_counts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import scipy.sparse as sp

_CONFIG, _TENSORS = "config.json", "model.safetensors"
_CLASSES = {
    "PCAEncoder": "spatialwhisperer.encoders.gene.pca",
    "SCVIEncoder": "spatialwhisperer.encoders.gene.scvi",
    "SCANVIEncoder": "spatialwhisperer.encoders.gene.scvi",
    "ExpressionEncoder": "spatialwhisperer.encoders.gene.expression",
    "SetTransformerEncoder": "spatialwhisperer.encoders.gene.set_transformer",
    "GeneSentenceEncoder": "spatialwhisperer.encoders.gene.sentence",
}


class GeneEncoder(ABC):
    """Raw counts of known genes in, a batch-agnostic embedding out.

    Attributes
    ----------
    genes
        Names of the genes, in the order of the columns that `encode` takes.
    gene_ids
        Ensembl id of each gene, or ``""`` where it is not known.
    fitted
        How it was fitted: rows, batches, seed, versions.
    """

    name: ClassVar[str]

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
    @abstractmethod
    def dim(self) -> int:
        """Columns of the embedding."""

    @abstractmethod
    def tensors(self) -> dict[str, np.ndarray]:
        """Everything that was learnt, by name."""

    @abstractmethod
    def _encode(
        self, counts: sp.csr_matrix, present: np.ndarray | None, batch_size: int, device: str | None
    ) -> np.ndarray: ...

    @classmethod
    @abstractmethod
    def _from(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> GeneEncoder: ...

    def _settings(self) -> dict[str, Any]:
        return {}

    def encode(
        self,
        counts: Any,
        *,
        present: np.ndarray | None = None,
        batch_size: int | None = None,
        device: str | None = None,
    ) -> np.ndarray:
        """Embed raw counts.

        Parameters
        ----------
        counts
            Raw counts, CSR or dense, shape (n, len(genes)), columns in the order of ``genes``.
        present
            Which genes were measured, bool, shape (len(genes),); ``None`` means all. The columns of the others hold zeros.
            The class says what it does about them.
        batch_size
            Rows in one pass; ``None`` takes ``settings.batch_size``. It does not change the result.
        device
            Torch device; ``None`` takes ``settings.device``.

        Returns
        -------
        Embedding, float32, shape (n, dim). Row i depends on row i of ``counts`` alone.

        Raises
        ------
        ValueError
            If the number of columns differs, or values are negative, fractional or not finite.
        """
        from spatialwhisperer._checks import check_batch_size
        from spatialwhisperer.settings import settings

        check_batch_size(batch_size)
        matrix = as_counts(counts, len(self.genes))
        if present is not None:
            present = np.asarray(present, dtype=bool)
            if present.shape != (len(self.genes),):
                raise ValueError(f"present has shape {present.shape}, not ({len(self.genes)},).")
            present = None if present.all() else present
        batch_size = settings.batch_size if batch_size is None else batch_size
        return self._encode(matrix, present, batch_size, device)

    def config(self) -> dict[str, Any]:
        """Everything but the tensors, ready for JSON."""
        return {
            "class": type(self).__name__,
            "name": self.name,
            "dim": self.dim,
            **self._settings(),
            "fitted": self.fitted,
            "genes": self.genes,
            "gene_ids": self.gene_ids,
        }

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write ``config.json`` and ``model.safetensors`` to a folder, all or nothing.

        Parameters
        ----------
        folder
            Folder to make.
        overwrite
            Replace a gene encoder that is already there.

        Raises
        ------
        ValueError
            If the folder holds something and is not to be replaced, or holds something that is not a gene encoder.
        """
        from safetensors.numpy import save_file

        from spatialwhisperer.models.store import open_to_others

        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            if not overwrite:
                raise ValueError(f"{folder} is there already; pass overwrite=True to replace it, or another folder.")
            _read_config(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        new, old = (folder.with_name(f".{folder.name}.{kind}.{uuid.uuid4().hex[:8]}") for kind in ("new", "old"))
        try:
            new.mkdir()
            (new / _CONFIG).write_text(json.dumps(self.config(), indent=1, ensure_ascii=False), encoding="utf-8")
            save_file({k: np.ascontiguousarray(v) for k, v in self.tensors().items()}, new / _TENSORS)
            open_to_others(new, [new / _TENSORS])
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
        except BaseException:
            if old.exists() and not folder.exists():
                old.rename(folder)
            raise
        finally:
            shutil.rmtree(new, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.genes)} genes -> {self.dim})"


def gene_encoder_from(config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> GeneEncoder:
    """Build the encoder that `GeneEncoder.config` and `GeneEncoder.tensors` describe.

    Parameters
    ----------
    config
        What `GeneEncoder.config` returned.
    tensors
        What `GeneEncoder.tensors` returned.

    Raises
    ------
    ValueError
        If the class is not one of the package's gene encoders, or the tensors do not fit the configuration.
    """
    name = config.get("class")
    if name not in _CLASSES:
        raise ValueError(f"{name!r} is not a gene encoder of this version (it knows {found(_CLASSES)}).")
    missing = {"genes", "gene_ids", "dim"} - set(config)
    if missing:
        raise ValueError(f"The configuration of this {name} lacks {found(sorted(missing))}.")
    return getattr(import_module(_CLASSES[name]), name)._from(config, tensors)


def load_gene_encoder(folder: str | Path) -> GeneEncoder:
    """Read an encoder that `GeneEncoder.save` wrote. Nothing is unpickled.

    Parameters
    ----------
    folder
        Folder with ``config.json`` and ``model.safetensors``.

    Raises
    ------
    ValueError
        If the folder does not hold a gene encoder, or one whose class or tensors this version does not know.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    folder = Path(folder)
    config = _read_config(folder)
    path = folder / _TENSORS
    if not path.is_file():
        raise ValueError(f"{folder} holds no {_TENSORS} (found: {found(sorted(p.name for p in folder.iterdir()))}).")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a valid safetensors file ({error}).") from error
    return gene_encoder_from(config, tensors)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / _CONFIG
    if not path.is_file():
        there = found(sorted(p.name for p in folder.iterdir())) if folder.is_dir() else "no such folder"
        raise ValueError(f"{folder} is not a saved gene encoder: it holds no {_CONFIG} ({there}).")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}).") from error
    if not isinstance(config, dict) or config.get("class") not in _CLASSES:
        raise ValueError(f"{path} does not describe a gene encoder of this version (it knows {found(_CLASSES)}).")
    return config


def take_tensors(
    tensors: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], owner: str
) -> dict[str, np.ndarray]:
    """Return the tensors as float32 in the order of ``shapes``, or say which of them do not fit."""
    wrong = [
        f"{name}: {tuple(tensors[name].shape) if name in tensors else 'missing'}, expected {shape}"
        for name, shape in shapes.items()
        if name not in tensors or tuple(tensors[name].shape) != shape
    ]
    wrong += [f"{name}: not expected" for name in tensors if name not in shapes]
    if wrong:
        raise ValueError(f"The tensors do not fit this {owner}: {found(wrong)}.")
    out = {name: np.ascontiguousarray(tensors[name], dtype=np.float32) for name in shapes}
    bad = [name for name, value in out.items() if not np.isfinite(value).all()]
    if bad:
        raise ValueError(f"The tensors of this {owner} are not finite: {found(bad)}.")
    return out
