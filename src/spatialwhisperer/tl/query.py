"""Free-text search: the score of every row for a text."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import pandas as pd
from pandas.api.types import is_list_like

from spatialwhisperer import _keys
from spatialwhisperer._access.names import check_names
from spatialwhisperer._access.result import Result
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._annotations import is_text
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._checks.texts import plain_text
from spatialwhisperer._docs import shared
from spatialwhisperer._messages import listing, shortened
from spatialwhisperer.tl._annotation.range.compared import compare
from spatialwhisperer.tl._annotation.reading import read_texts
from spatialwhisperer.tl._embedding.models import describe_model, open_model
from spatialwhisperer.tl._embedding.rows import check_modality, choose_modality, embed_rows, given_rows
from spatialwhisperer.tl._embedding.tissue_grid import on_tissue

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer._access.slide_options import SlideOptions
    from spatialwhisperer.models.whisperer import Whisperer


@shared
@checked
def query(
    data: AnnData | SpatialData,
    text: str | Sequence[str],
    *,
    model: Whisperer | str | Path | None = None,
    modality: str | None = None,
    embedding_key: str | None = None,
    layer: str | None = None,
    key_added: str = _keys.QUERY,
    batch_size: int | None = None,
    device: str | None = None,
    inplace: bool = True,
    **slide: Unpack[SlideOptions],
) -> pd.Series | None:
    """Score every row for a text: how well does it fit the description?

    A warning says where the images are unlike the training tissue of the model (:func:`tissue_range`). Their rows are scored
    nevertheless.

    Parameters
    ----------
    %(data)s
    text
        A description of what is looked for, or a list of several of the same thing, whose embeddings are averaged. Warnings name
        descriptions that are far from all texts that the model was trained with, those that it reads as negations (scores are then
        high where the thing is absent), and say where descriptions cancel out. Words beyond the longest input of the text encoder
        are cut off, with a warning: after 256 tokens (words, or parts of rare ones) in the embedded model.
    %(model)s
    %(modality)s
    embedding_key
        Key of ``.obsm`` with an embedding by this model, to use instead of computing one.
    %(layer)s
    key_added
        Column of ``.obs``.
    %(batch_size)s
    %(device)s
    %(inplace)s
    %(slide)s

    Returns
    -------
    ``None``, or the scores with ``inplace=False``. In place it writes:

    ``.obs['sw_query']`` : :class:`pandas.Series` (dtype ``float32``)
        Cosine between row and text; NaN where a row has no tile, or no whole one on tissue (which features of the encoder
        "stain_texture" tell, where no ``embedding_key`` is passed).

    Raises
    ------
    ValueError
        If the text is empty, or no row has a whole tile on tissue. Nothing is written then.
    TypeError
        If it is not text, or a mapping or a set.
    KeyError
        If there is neither image nor counts.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> section = sw.datasets.simulate_sections(1, 40, n_genes=100, n_reference_cells=50, random_state=0).sections["P1"]
    >>> scores = sw.tl.query(section, "fat cell", inplace=False)
    >>> len(scores)
    40
    """
    texts = _texts(text)
    check_modality(modality)
    model = open_model(model)
    read = read_texts(model, [listing(map(shortened, texts), 4)], [texts], device=device)
    tissue = on_tissue(data, model, modality if embedding_key is None else "stored", slide, keeps=inplace)
    opened = Slide.open(tissue.data, **slide)
    check_names([opened], layer=layer)
    if inplace:
        opened.check_column(key_added)
    if embedding_key is not None:
        embedded = given_rows(opened, model, embedding_key, modality)
    else:
        chosen = modality or choose_modality(opened, model)
        embedded = embed_rows(opened, model, chosen, layer=layer, batch_size=batch_size, device=device)
    scores = (embedded.z @ read.text[0]).astype(np.float32)
    if embedding_key is None and embedded.modality == "image":
        compared = compare(opened, model, embedded.features, embedded.results)
        scores[compared.empty] = np.nan
        compared.say(model, "score")
    read.say()
    if not inplace:
        return pd.Series(scores, index=opened.table.obs_names, name=key_added)
    record: dict[str, Any] = {"text": texts, "model": describe_model(model), "negations": read.negations}
    near = read.near
    if near is not None:
        record |= {"text_similarity": near.similarity[0], "nearest_text": near.nearest[0], "text_limit": near.limit}
    opened.put(*embedded.results, Result(key_added, record, obs={key_added: scores}))
    tissue.keep()
    return None


def _texts(text: Any) -> list[str]:
    if isinstance(text, Mapping | Set | pd.DataFrame):
        raise TypeError(
            f"text must be a sentence, or a list of several descriptions of the same thing, not a {type(text).__name__}. Pass the list "
            "of descriptions. Labels with descriptions of their own are what sw.tl.zero_shot_annotate takes."
        )
    texts = [text] if isinstance(text, str) else list(text) if is_list_like(text) else [text]
    if wrong := [t for t in texts if not is_text(t)]:
        raise TypeError(
            f"text must be a sentence, or a list of several descriptions of the same thing; found {listing(wrong, 3)}."
        )
    if not texts or not all(map(plain_text, texts)):
        raise ValueError(f"text must be a sentence or several; found {text!r}.")
    return texts
