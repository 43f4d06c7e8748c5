"""Exact search of a bank by cosine, block by block, in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialwhisperer.retrieval.sieve import Sieve

if TYPE_CHECKING:
    from spatialwhisperer.retrieval.vectors import Vectors

QUERY_ROWS = 1024
"""Number of queries that are searched together."""


def search(
    asks: Vectors, rows: np.ndarray, bank: Vectors, n: int, block_rows: int, device: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """The n rows of the bank of highest cosine for each query, in any order, and which of them the query may use.

    Both results have shape (queries, n). The search is exact up to the rounding of float32.
    """
    from spatialwhisperer._settings import settings

    where = settings.resolve_device(device)
    if str(where).startswith("cpu"):
        return Sieve(asks, rows, bank, n).search(block_rows)
    return _search_on(where, asks, rows, bank, n, block_rows)


def _search_on(
    device: Any, asks: Vectors, rows: np.ndarray, bank: Vectors, n: int, block_rows: int
) -> tuple[np.ndarray, np.ndarray]:
    import torch

    where = torch.device(device)
    queries = torch.from_numpy(asks.unit(rows)).to(where)
    # cosines are float32, whatever the default of torch is
    best = torch.full((len(rows), 0), -torch.inf, dtype=torch.float32, device=where)
    index = torch.zeros((len(rows), 0), dtype=torch.int64, device=where)
    for block in bank.blocks(block_rows):
        cosine = queries @ torch.from_numpy(bank.unit(block)).to(where).T
        if asks.group is not None and bank.group is not None:
            same = asks.group[rows][:, None] == bank.group[block][None, :]
            cosine.masked_fill_(torch.from_numpy(same).to(where), -torch.inf)
        positions = torch.from_numpy(block).to(where)
        if best.shape[1] == n:
            cosine, local = _above(cosine, best[:, -1:])
        else:
            cosine, local = cosine.topk(min(n, len(block)), dim=1)
        merged, order = torch.cat([best, cosine], dim=1).topk(min(n, best.shape[1] + cosine.shape[1]), dim=1)
        best, index = merged, torch.cat([index, positions[local]], dim=1).gather(1, order)
    return index.cpu().numpy(), (best > -torch.inf).cpu().numpy()


def _above(cosine: Any, threshold: Any) -> tuple[Any, Any]:
    """Entries above the threshold of their row, moved to the left; there are few of them after the first blocks."""
    import torch

    width = cosine.shape[1]
    flat = (cosine > threshold).reshape(-1).nonzero().reshape(-1)
    row = flat // width
    counts = torch.bincount(row, minlength=len(cosine))
    place = torch.arange(len(flat), device=flat.device) - (counts.cumsum(0) - counts)[row]
    widest = int(counts.max())
    values = torch.full((len(cosine), widest), -torch.inf, dtype=cosine.dtype, device=cosine.device)
    local = torch.zeros((len(cosine), widest), dtype=torch.int64, device=cosine.device)
    values[row, place] = cosine.reshape(-1)[flat]
    local[row, place] = flat - row * width
    return values, local


def search_all(
    asks: Vectors, rows: np.ndarray, bank: Vectors, n: int, block_rows: int
) -> tuple[np.ndarray, np.ndarray]:
    """As `search` in float64, with ties in the order of the bank: for queries with many equally similar keys."""
    query = asks.vectors[rows].astype(np.float64)
    best = np.zeros((len(rows), 0), dtype=np.float32)
    index = np.zeros((len(rows), 0), dtype=np.int64)
    for block in bank.blocks(block_rows):
        cosine = query @ bank.vectors[block].astype(np.float64).T
        cosine = (cosine / (asks.length[rows, None] * bank.length[block])).astype(np.float32)
        if asks.group is not None and bank.group is not None:
            cosine[asks.group[rows][:, None] == bank.group[block][None, :]] = -np.inf
        if best.shape[1] == n:
            # among keys of equal cosine the first ones are kept
            columns = np.flatnonzero((cosine > best[:, -1:]).any(axis=0))
            cosine, block = cosine[:, columns], block[columns]
        both = np.concatenate([best, cosine], axis=1)
        order = np.argsort(-both, axis=1, kind="stable")[:, :n]
        index = np.concatenate([index, np.broadcast_to(block, cosine.shape)], axis=1)
        best, index = np.take_along_axis(both, order, 1), np.take_along_axis(index, order, 1)
    return index, best > -np.inf


def groups(
    query_group: Any, key_group: Any, n_queries: int, n_keys: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Integer codes of the groups of queries and keys, equal where the groups are equal; ``None`` without groups.

    Raises
    ------
    ValueError
        If only one of both is given, a shape does not fit or a group is missing.
    """
    if query_group is None and key_group is None:
        return None, None
    if query_group is None or key_group is None:
        raise ValueError("query_group and key_group go together: pass both, or neither.")
    ours, theirs = np.asarray(query_group, dtype=object), np.asarray(key_group, dtype=object)
    for name, group, n in (("query_group", ours, n_queries), ("key_group", theirs, n_keys)):
        if group.shape != (n,):
            raise ValueError(f"{name} must name one group per row, shape ({n},), not {group.shape}.")
        if pd.isna(group).any():
            raise ValueError(
                f"{name} has {int(pd.isna(group).sum())} rows without a group; name one for each, or drop these rows."
            )
    codes = pd.factorize(np.concatenate([ours, theirs]))[0]
    return codes[:n_queries], codes[n_queries:]


def embeddings(queries: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Queries and keys as arrays.

    Raises
    ------
    ValueError
        If they are not matrices with the same number of columns.
    """
    queries, keys = np.asarray(queries), np.asarray(keys)
    if queries.ndim != 2 or keys.ndim != 2 or queries.shape[1] != keys.shape[1]:
        raise ValueError(
            f"queries and keys must be matrices with the same number of columns, not {queries.shape} and {keys.shape}; "
            "embed both with one model."
        )
    return queries, keys


def check_bank(k: int, asks: Vectors, bank: Vectors) -> None:
    """Refuse a k for which some query has too few usable keys.

    Raises
    ------
    ValueError
        The text says how many usable keys there are.
    """
    usable, but = len(bank.rows), ""
    if asks.group is not None and bank.group is not None and len(asks.rows):
        sizes = np.bincount(bank.group[bank.rows], minlength=int(asks.group.max()) + 1)
        usable -= int(sizes[asks.group[asks.rows]].max())
        but = " for the query whose own group is the largest"
    if but and usable <= 0 < k:
        raise ValueError(
            f"k = {k} neighbours were asked for, but all {len(bank.rows)} usable rows of the bank are of the section or patient of a query, "
            "and those are left out. Train the model on further sections, or predict by regression."
        )
    if k > usable:
        raise ValueError(
            f"k = {k} neighbours were asked for, but the bank has {usable} usable rows{but} ({len(bank.vectors)} in "
            f"all). Lower k to {usable} or less, or give a larger bank."
        )
