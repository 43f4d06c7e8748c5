"""Fits of gene encoders that take long, kept in this process for a call on the same counts with the same arguments."""

from __future__ import annotations

import copy
import hashlib
from collections import OrderedDict
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._settings import settings
from spatialwhisperer.encoders.digests import object_digest

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    import scipy.sparse as sp

    from spatialwhisperer._artifact.artifact import Artifact
    from spatialwhisperer.encoders.gene.base import GeneEncoder

_MOST = 4
_KEPT: OrderedDict[Hashable, Artifact] = OrderedDict()
_LOCK = Lock()


def fit_or_kept(
    kind: type[GeneEncoder],
    counts: sp.csr_matrix,
    genes: Sequence[str],
    gene_ids: Sequence[str],
    values: Mapping[str, Any],
) -> tuple[GeneEncoder, bool]:
    """Fit an encoder, or return a copy of one of the last fits where that was made of the same.

    A fit is seeded, so that the copy is what another fit would give. The device and the number of threads, which decide how sums are
    rounded, have to be the same too. Fits with values whose content cannot be compared, such as intervals of pandas, are not kept.

    Returns
    -------
    The encoder, and whether it was kept.
    """
    fit = kind.fit  # type: ignore[attr-defined]
    if not (kind.keeps_fits and _plain(dict(values))):
        return fit(counts, genes, gene_ids, **values), False
    key = _key(kind, counts, genes, gene_ids, values)
    with _LOCK:
        kept = _KEPT.get(key)
    if kept is not None:
        return kind.from_artifact(_copied(kept)), True
    fitted: GeneEncoder = fit(counts, genes, gene_ids, **values)
    with _LOCK:
        _KEPT[key] = _copied(fitted.artifact())
        while len(_KEPT) > _MOST:
            _KEPT.popitem(last=False)
    return fitted, False


def _key(
    kind: type[GeneEncoder],
    counts: sp.csr_matrix,
    genes: Sequence[str],
    gene_ids: Sequence[str],
    values: Mapping[str, Any],
) -> Hashable:
    import torch

    sha = hashlib.sha256(repr((counts.shape, counts.data.dtype)).encode())
    for array in (counts.indptr.astype(np.int64), counts.indices.astype(np.int64), counts.data):
        sha.update(np.ascontiguousarray(array).data)
    rest = [list(genes), list(gene_ids), dict(values), settings.resolve_device(values.get("device"))]
    # the class itself: one that is defined again under its name is another
    return kind, sha.hexdigest(), object_digest(rest), torch.get_num_threads()


def _plain(value: Any) -> bool:
    """Whether a value is made of numbers, texts and containers of these alone, which are told apart by what they hold."""
    if isinstance(value, dict):
        return all(_plain(part) for pair in value.items() for part in pair)
    if isinstance(value, list | tuple | set | frozenset) or (isinstance(value, np.ndarray) and value.dtype == object):
        return all(map(_plain, value))
    return value is None or isinstance(value, bool | int | float | str | bytes | np.generic | np.ndarray)


def _copied(artifact: Artifact) -> Artifact:
    tensors = {name: np.array(value) for name, value in artifact.tensors.items()}
    return replace(artifact, config=copy.deepcopy(dict(artifact.config)), tensors=tensors)
