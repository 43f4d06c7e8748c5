"""Features of texts, kept in this process for a call with the same texts and the same encoder."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING

from spatialwhisperer._settings import settings
from spatialwhisperer.encoders.outputs import encoded

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import numpy as np

    from spatialwhisperer.encoders.text.base import TextEncoder

_MOST = 4
_MOST_BYTES = 2**28
_KEPT: OrderedDict[Hashable, np.ndarray] = OrderedDict()
_LOCK = Lock()


def encoded_or_kept(encoder: TextEncoder, texts: Sequence[str]) -> np.ndarray:
    """Features of texts by an encoder that was opened by name, or a copy of those of one of the last calls, shape (n, d).

    The texts of a call share batches, whose padding moves the last bits of a row. Features are therefore kept for all texts of a call
    together. An encoder that its name does not define is always asked.
    """
    if not encoder.identity.by_name:
        return encoded(encoder, texts)
    key = _key(encoder, texts)
    with _LOCK:
        kept = _KEPT.get(key)
    if kept is not None:
        return kept.copy()
    features = encoded(encoder, texts)
    if features.nbytes <= _MOST_BYTES:
        with _LOCK:
            _KEPT[key] = features.copy()
            while len(_KEPT) > _MOST:
                _KEPT.popitem(last=False)
    return features


def _key(encoder: TextEncoder, texts: Sequence[str]) -> Hashable:
    import torch

    sha = hashlib.sha256(repr(list(texts)).encode("utf-8", "surrogatepass"))
    # what decides how sums are rounded has to be the same too
    how = (settings.batch_size, settings.resolve_device(None), torch.get_num_threads())
    # the class itself: one that is registered again under the name is another
    return type(encoder), encoder.identity, encoder.commit, sha.hexdigest(), how
