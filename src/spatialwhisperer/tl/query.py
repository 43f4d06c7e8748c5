"""Free-text questions to a slide."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access import get_table
from spatialwhisperer._checks import check_key_added
from spatialwhisperer._messages import found
from spatialwhisperer._provenance import record
from spatialwhisperer.tl._annotation.labels import class_embeddings
from spatialwhisperer.tl.annotate import row_embeddings
from spatialwhisperer.tl.embed import check_modality, describe_model, open_model

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer.models import Whisperer


def query(
    data: AnnData | SpatialData,
    text: str | Sequence[str],
    *,
    model: Whisperer | str | Path | None = None,
    modality: Literal["image", "gene"] | None = None,
    embedding_key: str | None = None,
    table_key: str | None = None,
    layer: str | None = None,
    library_key: str | None = None,
    key_added: str = _keys.QUERY,
    batch_size: int | None = None,
    device: str | None = None,
    inplace: bool = True,
) -> pd.Series | None:
    """Score every row against a text.

    Parameters
    ----------
    data
        What to ask.
    text
        The question in words, or several wordings of it, which are averaged.
    model
        A trained model, its folder or its name on the hub.
    modality
        Which side of the data to read. Not given: image where there is one, else gene.
    embedding_key
        Slot of ``.obsm`` with an embedding to use instead of computing one.
    table_key
        Table of a SpatialData.
    layer
        Layer with raw counts, when genes are read.
    library_key
        Column of ``.obs`` that names the library of each row (AnnData with several libraries).
    key_added
        Column of ``.obs``.
    batch_size
        Tiles or rows in one pass.
    device
        Torch device; ``settings.device`` if not given.
    inplace
        Write to ``data`` or return.

    Returns
    -------
    ``None``, or the scores with ``inplace=False``. In place it writes:

    ``.obs['sw_query']`` : :class:`pandas.Series` (dtype ``float32``)
        Cosine between row and text; NaN where a row has no tile.

    Raises
    ------
    ValueError
        If the text is empty.
    TypeError
        If it is not text.
    KeyError
        If there is neither image nor counts.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sections, reference = sw.datasets.simulate_sections(2, 80, n_genes=100, n_reference_cells=200, random_state=0)
    >>> model = sw.tl.train([sections["P1"], reference], max_epochs=20, tile_px=64)
    >>> scores = sw.tl.query(sections["P2"], "fat tissue", model=model, inplace=False)
    >>> len(scores)
    80
    """
    check_key_added(key_added)
    texts = _texts(text)
    check_modality(modality)
    model = open_model(model)
    table = get_table(data, table_key)
    wanted = class_embeddings(model, [texts], device=device)[0]
    options = {"table_key": table_key, "layer": layer, "library_key": library_key}
    z = row_embeddings(data, table, model, modality, embedding_key, batch_size, device, inplace, options)
    scores = (z @ wanted).astype(np.float32)
    if not inplace:
        return pd.Series(scores, index=table.obs_names, name=key_added)
    table.obs[key_added] = scores
    record(table, key_added, text=texts, model=describe_model(model))
    return None


def _texts(text: Any) -> list[str]:
    texts = [text] if isinstance(text, str) else list(text) if isinstance(text, Iterable) else [text]
    if wrong := [t for t in texts if not isinstance(t, str)]:
        raise TypeError(f"text must be a sentence, or a list of several wordings of it; found {found(wrong, 3)}.")
    if not texts or any(not t.strip() for t in texts):
        raise ValueError(f"text must be a sentence or several; found {text!r}.")
    return texts
