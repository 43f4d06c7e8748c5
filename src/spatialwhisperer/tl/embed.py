"""Embedding the rows of a table into the joint space of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from spatialwhisperer._access.names import check_names
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._docs import shared
from spatialwhisperer.tl._embedding.models import open_model
from spatialwhisperer.tl._embedding.rows import check_modality, choose_modality, embed_rows
from spatialwhisperer.tl._embedding.tissue_grid import on_tissue

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer._access.slide_options import SlideOptions
    from spatialwhisperer.models.whisperer import Whisperer


@shared
@checked
def embed(
    data: AnnData | SpatialData,
    *,
    model: Whisperer | str | Path | None = None,
    modality: str | None = None,
    layer: str | None = None,
    key_added: str | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    inplace: bool = True,
    **slide: Unpack[SlideOptions],
) -> np.ndarray | None:
    """Embed images or counts into the joint space.

    Image features in ``.obsm`` are used where they were computed with the encoder of the model, its tiles and this scale; else they
    are computed, and with ``inplace=True`` stored. Gene features are computed from the raw counts.

    Parameters
    ----------
    %(data)s
    %(model)s
    %(modality)s
    %(layer)s
    key_added
        Key in ``.obsm``; ``None`` takes ``X_sw_`` and the modality.
    %(batch_size)s
    %(device)s
    %(inplace)s
    %(slide)s

    Returns
    -------
    ``None``, or the array of shape (n, u) with ``inplace=False``. In place it writes:

    ``.obsm['X_sw_image']`` or ``.obsm['X_sw_gene']`` : :class:`numpy.ndarray` (dtype ``float32``)
        Rows of unit length; NaN where a row has no tile or no counts.

    Raises
    ------
    KeyError
        If the model has no such modality, or the data hold neither image nor counts.
    ValueError
        If there is no such modality, or ``key_added`` or ``batch_size`` is not valid.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> section = sw.datasets.simulate_sections(1, 40, n_genes=100, n_reference_cells=50, random_state=0).sections["P1"]
    >>> sw.tl.embed(section)
    >>> section["table"].obsm["X_sw_image"].shape
    (40, 33)
    """
    check_modality(modality)
    model = open_model(model)
    tissue = on_tissue(data, model, modality, slide, keeps=inplace)
    opened = Slide.open(tissue.data, **slide)
    check_names([opened], layer=layer)
    embedded = embed_rows(
        opened,
        model,
        modality or choose_modality(opened, model),
        layer=layer,
        key_added=key_added,
        batch_size=batch_size,
        device=device,
    )
    if not inplace:
        return embedded.z
    opened.put(*embedded.results)
    tissue.keep()
    return None
