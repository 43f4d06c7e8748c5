"""The genes that Geneformer knows: token and median of each, from a table, from JSON, or from the published pickles."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._messages import listing
from spatialwhisperer._storage.numpy_pickles import NUMBERS
from spatialwhisperer._storage.pickles import Call, read_pickle
from spatialwhisperer._storage.untrusted import LARGEST_JSON, parse_json, read_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FIRST_TOKEN = 2
"""0 is the padding and 1 the mask; neither is a gene."""

TABLES = (".tsv", ".csv", ".tsv.gz", ".csv.gz")
_COLUMNS = {
    "ensembl_id": ("ensembl_id", "gene_id", "ensembl"),
    "token": ("token", "geneformer_token"),
    "median": ("median", "geneformer_median"),
    "symbol": ("symbol", "gene_name", "gene_symbol"),
}
_LARGEST_TABLE = 64 * 2**20
_TOKENS_SHA256 = "190ec752f1a9220c22ea07605622ac2f105d1443eb483bcbd87aa4c403c37b8c"
_MEAN_LOG_MEDIAN = 1.16354
_CLOSE = 1e-5


@dataclass(frozen=True)
class GeneTokens:
    """Genes of a Geneformer model in the order of their tokens.

    Attributes
    ----------
    ids
        Ensembl ids without versions. They start with ENSG0, as only those are counted.
    symbols
        Symbol of each, or ``""``.
    tokens
        Token of each, ascending.
    medians
        Median of the non-zero normalised counts of each in the pre-training data.
    vocabulary
        Size of the vocabulary: the largest token of any entry, plus one.
    """

    ids: tuple[str, ...]
    symbols: tuple[str, ...]
    tokens: tuple[int, ...]
    medians: tuple[float, ...]
    vocabulary: int


def read_gene_tokens(source: str | Path | Sequence[str | Path]) -> GeneTokens:
    """Read the gene tokens of a Geneformer model.

    Parameters
    ----------
    source
        A table (``.tsv`` or ``.csv``, also with ``.gz``) with the columns ``ensembl_id``, ``token``, ``median`` and perhaps
        ``symbol``; a ``.json`` with these names, each a mapping from id (for ``symbol``: from symbol to id); or several files that
        each hold one mapping (``.json``, or ``.pkl`` as published): tokens, medians, and perhaps symbols, in this order.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file holds something else, or the files do not belong together.
    """
    if not isinstance(source, str | Path):
        return _of_mappings(*(_mapping(Path(path)) for path in source))
    path = Path(source)
    if path.name.endswith(TABLES):
        return _of_mappings(*_table(path))
    whole = _mapping(path)
    if not {"token", "median"} <= set(whole) or not all(isinstance(v, dict) for v in whole.values()):
        raise ValueError(f"{path} must hold the mappings 'token' and 'median' (found: {listing(whole, 4)}).")
    return _of_mappings(whole["token"], whole["median"], whole.get("symbol"))


def check_published(genes: GeneTokens) -> None:
    """Compare gene tokens that were downloaded with those that were published with the model of 30 million cells.

    Raises
    ------
    ValueError
        If they differ.
    """
    lines = "".join(f"{gene}\t{token}\n" for gene, token in zip(genes.ids, genes.tokens, strict=True))
    sha = hashlib.sha256(lines.encode()).hexdigest()
    # medians are printed with more or fewer digits; another data set has a mean of its logarithms that differs in the second
    mean = float(np.mean(np.log(genes.medians)))
    if sha != _TOKENS_SHA256 or abs(mean - _MEAN_LOG_MEDIAN) > _CLOSE:
        raise ValueError(
            f"These are not the gene tokens of Geneformer-12L-30M: {len(genes.ids)} genes with the sha256 {sha[:12]}… and a mean log "
            f"median of {mean:.5f}, not {_TOKENS_SHA256[:12]}… and {_MEAN_LOG_MEDIAN}. Delete them and load again, or pass the files."
        )


# ------------------------------------------------------------------------------------------------- files


def _table(path: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None]:
    content = read_bytes(path, _LARGEST_TABLE)
    try:
        if path.name.endswith(".gz"):
            with gzip.open(io.BytesIO(content)) as stream:
                # a small file may unpack to one that is not
                content = stream.read(_LARGEST_TABLE + 1)
        if len(content) > _LARGEST_TABLE:
            raise ValueError(f"more than {_LARGEST_TABLE} bytes")
        text = content.decode("utf-8-sig")
        rows = list(csv.reader(io.StringIO(text), delimiter="," if ".csv" in path.suffixes else "\t"))
    except (OSError, EOFError, ValueError, csv.Error) as error:
        raise ValueError(f"{path} is not a table that can be read ({error}).") from error
    head = rows[0] if rows else []
    at = {name: next((head.index(k) for k in known if k in head), None) for name, known in _COLUMNS.items()}
    lacking = [name for name, i in at.items() if i is None and name != "symbol"]
    if lacking:
        raise ValueError(f"{path} lacks the column {listing(lacking)} (found: {listing(head)}).")
    if any(len(row) != len(head) for row in rows[1:] if row):
        raise ValueError(f"{path} has rows of another number of columns than its first one.")
    gene, token, median, symbol = (at[name] for name in _COLUMNS)
    # genes without a token are genes that the model does not know
    known = [row for row in rows[1:] if row and row[token]]  # type: ignore[index]
    try:
        tokens = {row[gene]: int(float(row[token])) for row in known}  # type: ignore[index]
        medians = {row[gene]: float(row[median]) for row in known if row[median]}  # type: ignore[index]
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{path} holds a token or a median that is no number ({error}).") from error
    if len(tokens) != len(known):
        raise ValueError(f"{path} lists a gene twice.")
    symbols = None if symbol is None else {row[symbol]: row[gene] for row in reversed(known) if row[symbol]}  # type: ignore[index]
    return tokens, medians, symbols


def _mapping(path: Path) -> dict[Any, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no dictionary of Geneformer at {path}.")
    if path.suffix == ".json":
        found = parse_json(read_bytes(path, LARGEST_JSON), str(path))
    elif path.suffix in (".pkl", ".pickle"):
        found = read_pickle(read_bytes(path, _LARGEST_TABLE), str(path), calls=_CALLS)
    else:
        raise ValueError(f"{path} must be a .json or a .pkl, or a table ({listing(TABLES)}).")
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}, not a mapping from gene to value.")
    return found


_CALLS: dict[str, Call] = {"collections.OrderedDict": lambda *_: {}, **NUMBERS}


# ------------------------------------------------------------------------------------------------- what they say


def _of_mappings(
    tokens: Mapping[str, Any] | None = None,
    medians: Mapping[str, Any] | None = None,
    symbols: Mapping[str, Any] | None = None,
    *more: Any,
) -> GeneTokens:
    if tokens is None or medians is None or more:
        raise ValueError(
            "Geneformer takes the dictionaries of tokens and medians, and perhaps one of symbols, in this order."
        )
    _check_values(tokens, medians)
    genes = sorted((int(token), gene) for gene, token in tokens.items() if gene.startswith("ENSG0"))
    known = [(token, gene) for token, gene in genes if gene in medians]
    if not known:
        raise ValueError(
            f"No gene has a token and a median: {len(tokens)} tokens ({listing(tokens, 3)}) and {len(medians)} medians "
            f"({listing(medians, 3)}). Pass the dictionary of tokens first, with Ensembl ids of human genes."
        )
    if len(known) < len(genes):
        lacking = [gene for _, gene in genes if gene not in medians]
        raise ValueError(
            f"The dictionaries do not belong together: {len(lacking)} genes with a token have no median, such as {listing(lacking, 3)}."
        )
    named: dict[str, str] = {}
    for symbol, gene in (symbols or {}).items():
        if not isinstance(symbol, str) or not isinstance(gene, str):
            raise ValueError("The dictionary of symbols must map a symbol to an Ensembl id.")
        named.setdefault(gene, symbol)
    return GeneTokens(
        tuple(gene for _, gene in known),
        tuple(named.get(gene, "") for _, gene in known),
        tuple(token for token, _ in known),
        tuple(float(medians[gene]) for _, gene in known),
        1 + max(int(token) for token in tokens.values()),
    )


def _check_values(tokens: Mapping[Any, Any], medians: Mapping[Any, Any]) -> None:
    if not all(isinstance(gene, str) for gene in (*tokens, *medians)):
        raise ValueError("The dictionaries of Geneformer must map Ensembl ids.")
    for gene, token in tokens.items():
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < 2**31:
            raise ValueError(f"The token of {gene[:40]!r} is {str(token)[:40]!r}, not a whole number.")
        if token < FIRST_TOKEN and not gene.startswith("<"):
            raise ValueError(f"{gene[:40]!r} has the token {token}, which stands for the padding or the mask.")
    if len(set(tokens.values())) != len(tokens):
        raise ValueError("Two genes have the same token.")
    for gene, median in medians.items():
        if isinstance(median, bool) or not isinstance(median, int | float) or not 0 < median < math.inf:
            raise ValueError(f"The median of {gene[:40]!r} is {str(median)[:40]!r}, not a positive number.")
