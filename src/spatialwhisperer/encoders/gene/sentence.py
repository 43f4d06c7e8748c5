"""Gene sentences: the names of the most expressed genes of a row, embedded by a text encoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from spatialwhisperer._compute.blocks import blocks, each
from spatialwhisperer._docs import shared
from spatialwhisperer.encoders.gene.base import GeneEncoder, take_tensors, whole_number
from spatialwhisperer.encoders.outputs import encoded
from spatialwhisperer.encoders.registry import register_encoder
from spatialwhisperer.encoders.spec import EncoderSpec
from spatialwhisperer.statistics.counts import not_counts, training_counts

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from spatialwhisperer._artifact.artifact import Artifact

_ROWS = 4096


def gene_sentences(
    counts: Any, genes: Sequence[str], *, top: int = 50, drop: str = "none", exclude: Collection[str] = ()
) -> list[str]:
    """Write the most expressed genes of each row in descending order, joined by spaces (OmiCLIP, Chen et al., Nat Methods 2025).

    Normalising a row does not change its order, so raw counts are ranked. Genes with equal counts keep the order of ``genes``.

    Parameters
    ----------
    counts
        Raw counts, CSR or dense, shape (n, genes).
    genes
        Symbol of each column.
    top
        Genes in a sentence; a row with fewer expressed genes has a shorter one.
    drop
        ``"none"``, or ``"peer"``, as published: symbols with "." or "-" are dropped, and with them all HLA-* and MT-* genes.
    exclude
        Symbols never to write, such as housekeeping genes. The list that OmiCLIP leaves out is not included.

    Returns
    -------
    Sentences in row order, ``""`` where nothing is left.

    Raises
    ------
    ValueError
        If values are not raw counts, or an argument is not one of the above.

    Examples
    --------
    >>> from spatialwhisperer.encoders.gene.sentence import gene_sentences
    >>> gene_sentences([[1, 5, 0, 3], [0, 0, 2, 2]], ["ACTB", "ERBB2", "HLA-A", "CD3E"])
    ['ERBB2 CD3E ACTB', 'HLA-A CD3E']
    """
    _check(top, drop)
    from spatialwhisperer.encoders.gene._sentence_kernel import best_genes

    matrix = sp.csr_matrix(counts)
    if matrix.shape[1] != len(genes):
        raise ValueError(f"counts have {matrix.shape[1]} columns and there are {len(genes)} genes.")
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    top = min(top, max(len(genes), 1))
    best = np.zeros((matrix.shape[0], top), np.int32)
    usable = _usable(genes, drop, exclude)
    length = np.zeros(len(best), np.int64)

    def find(rows: slice) -> None:
        pointer = matrix.indptr[rows.start : rows.stop + 1]
        best_genes(matrix.data, matrix.indices, pointer, usable, best[rows], length[rows])

    each(find, blocks(len(best), 1, _ROWS))
    if (length < 0).any():
        raise ValueError(f"Gene sentences take raw counts; these hold {not_counts(matrix.data)}.")
    return _sentences(best, length, genes)


def _sentences(best: np.ndarray, length: np.ndarray, genes: Sequence[str]) -> list[str]:
    """Names of the genes of each row, separated by spaces."""
    from spatialwhisperer.encoders.gene._sentence_kernel import write_words

    words = [f"{gene} ".encode() for gene in genes]
    letters = np.frombuffer(b"".join(words), np.uint8)
    size = np.array([len(word) for word in words], np.int64)
    start = np.concatenate([[0], size.cumsum()])
    sentences: list[str] = []
    # in parts, because the bytes take as much space as the sentences
    for rows in blocks(len(best), 1, _ROWS):
        end = np.zeros(rows.stop - rows.start, np.int64)
        out = np.empty(int(length[rows].sum()) * int(size.max(initial=0)), np.uint8)
        write_words(best[rows], length[rows], letters, start, out, end)
        text = out[: end[-1]].tobytes()
        bounds = zip([0, *end[:-1].tolist()], end.tolist(), strict=True)
        # without the last space
        sentences += [text[a : max(a, b - 1)].decode() for a, b in bounds]
    return sentences


def _usable(genes: Sequence[str], drop: str, exclude: Collection[str]) -> np.ndarray:
    never = set(exclude)
    if drop == "none":
        return np.array([g not in never for g in genes], dtype=bool)
    return np.array([g not in never and "." not in g and "-" not in g for g in genes], dtype=bool)


@register_encoder(
    EncoderSpec(
        "gene_sentence",
        "gene",
        None,
        licence="that of its text encoder (minilm: apache-2.0)",
        citation="Chen et al. 2025, Nat Methods, s41592-025-02707-1",
    ),
)
class GeneSentenceEncoder(GeneEncoder):
    """A gene sentence, embedded by a text encoder (OmiCLIP, Chen et al., Nat Methods 2025). See `gene_sentences`.

    Of the counts only their order is used, and words beyond the text encoder's longest input are cut off. The encoder stores the name
    of its text encoder, not the weights, and opens it when it is first needed. Genes that were not measured count as zero. A row whose
    sentence is empty gets NaN.
    """

    library = "transformers"

    def __init__(
        self,
        genes: Sequence[str],
        gene_ids: Sequence[str] | None = None,
        *,
        dim: int,
        text_encoder: str | Path = "minilm",
        top: int = 50,
        drop: str = "none",
        exclude: Collection[str] = (),
        fitted: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(genes, gene_ids, fitted)
        _check(top, drop)
        self._dim, self.text_encoder, self.top, self.drop = dim, str(text_encoder), top, drop
        self.exclude = sorted(set(exclude))

    @classmethod
    def is_here(cls, name: str) -> bool:  # noqa: ARG003
        """Whether the text encoder that is taken by default opens without a download."""
        from spatialwhisperer.encoders.text.transformer import TransformerEncoder

        return TransformerEncoder.is_here("minilm")

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
        text_encoder: str | Path = "minilm",
        top: int = 50,
        drop: str = "none",
        exclude: Collection[str] = (),
    ) -> GeneSentenceEncoder:
        """Select genes and load the text encoder.

        Parameters
        ----------
        %(training_counts)s
        n_top_genes
            Highly variable genes that may be written; ``None`` takes every gene that is seen, as published.
        text_encoder
            Name, folder or hub id, as for :func:`spatialwhisperer.models.text_encoder`.
        top, drop, exclude
            As for `gene_sentences`.

        Raises
        ------
        TypeError
            If ``text_encoder`` is neither a string nor a path.
        ValueError
            If values are not counts, or an argument is not one of the above.
        """
        _check(top, drop)
        if not isinstance(text_encoder, str | Path):
            raise TypeError(f"text_encoder must be a name, folder or hub id, not {type(text_encoder).__name__}.")
        matrix, chosen, _ = training_counts(counts, len(genes), n_top_genes, batch)
        return cls(
            [genes[i] for i in chosen],
            None if gene_ids is None else [gene_ids[i] for i in chosen],
            dim=int(_load(text_encoder).spec.dim or 0),
            text_encoder=text_encoder,
            top=top,
            drop=drop,
            exclude=exclude,
            fitted={"rows": matrix.shape[0], "batches": 1 if batch is None else len(np.unique(batch))},
        )

    @property
    def dim(self) -> int:
        """Columns of the embedding."""
        return self._dim

    def tensors(self) -> dict[str, np.ndarray]:
        """Return an empty mapping: no arrays are fitted."""
        return {}

    def options(self) -> dict[str, Any]:
        """Further arguments of the constructor."""
        return {"text_encoder": self.text_encoder, "top": self.top, "drop": self.drop, "exclude": self.exclude}

    @classmethod
    def names_others(cls, artifact: Artifact) -> list[tuple[str, str]]:
        """Name of the text encoder, which is opened when it is first needed."""
        match artifact.config:
            case {"text_encoder": str(name)}:
                return [("text", name)]
        raise ValueError("The configuration of a GeneSentenceEncoder lacks text_encoder, the name of its text encoder.")

    @classmethod
    def from_parts(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> GeneSentenceEncoder:
        """Build the encoder of a stored configuration and its tensors."""
        take_tensors(tensors, {}, cls.__name__)
        return cls(
            config["genes"],
            config["gene_ids"],
            dim=whole_number(config, "dim"),
            text_encoder=config["text_encoder"],
            top=whole_number(config, "top"),
            drop=config["drop"],
            exclude=config["exclude"],
            fitted=config.get("fitted"),
        )

    def encode_counts(
        self, counts: sp.csr_matrix, present: np.ndarray | None, batch_size: int, device: str | None
    ) -> np.ndarray:
        """Embed checked counts."""
        missing = () if present is None else [g for g, there in zip(self.genes, present, strict=True) if not there]
        sentences = gene_sentences(counts, self.genes, top=self.top, drop=self.drop, exclude=[*self.exclude, *missing])
        written = np.array([bool(s) for s in sentences], dtype=bool)
        out = np.full((len(sentences), self.dim), np.nan, np.float32)
        if not written.any():
            return out
        vectors = encoded(_load(self.text_encoder), [s for s in sentences if s], batch_size=batch_size, device=device)
        if vectors.shape[1] != self.dim:
            raise ValueError(
                f"The text encoder {self.text_encoder!r} gives {vectors.shape[1]} columns, and this gene encoder was made with "
                f"one of {self.dim}: it is another model now. Fit the gene encoder again."
            )
        out[written] = vectors
        return out


def _load(text_encoder: str | Path) -> Any:
    from spatialwhisperer.encoders.text.transformer import TransformerEncoder

    return TransformerEncoder.open(text_encoder)


def _check(top: int, drop: str) -> None:
    if drop not in ("none", "peer"):
        raise ValueError(f"drop must be 'none' or 'peer', not {drop!r}.")
    if top < 1:
        raise ValueError(f"top must be a positive integer, not {top!r}.")
