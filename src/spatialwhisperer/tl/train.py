"""Training: paired data of any objects in, a joint space out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from spatialwhisperer._docs import shared

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import torch
    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer._access.slide import SlideOptions
    from spatialwhisperer.encoders.gene.base import GeneEncoder
    from spatialwhisperer.encoders.image.base import ImageEncoder
    from spatialwhisperer.encoders.text.base import TextEncoder
    from spatialwhisperer.models.parts import Preset
    from spatialwhisperer.models.whisperer import Whisperer
    from spatialwhisperer.pp.features import GeneFeatures, ImageFeatures, TextFeatures
    from spatialwhisperer.tl._training.options import ExpressionOptions


@shared
def train(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData] | Mapping[str, AnnData | SpatialData],
    *,
    preset: str | Preset = "spatialwhisperer",
    image: ImageFeatures | str | torch.nn.Module | ImageEncoder | None = None,
    gene: GeneFeatures | str | Path | GeneEncoder | None = None,
    text: TextFeatures | str | Path | TextEncoder | None = None,
    group_key: str | None = "patient",
    validation: float | str | Sequence[str] | None = None,
    expression: bool | ExpressionOptions | None = None,
    max_epochs: int | None = None,
    trainer: Mapping[str, Any] | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    random_state: int = 0,
    **slide: Unpack[SlideOptions],
) -> Whisperer:
    """Train a joint space of images, genes and text from objects that each hold some of them.

    Each object contributes what it has: an H&E image, raw counts, captions in a column of ``.obs``. No object needs all
    three: with image–gene pairs in some and gene–text pairs in others, text reaches images through the genes (Schaefer et
    al., ICML 2026).

    Frozen features are the default. They are computed once: image features are stored in ``.obsm["X_<encoder>"]`` of each object, and
    a later call that asks for the same encoder, tiles and scale uses them. An encoder that the preset unlocks is trained end to end.

    Rows that lack a modality never reach its encoder or its batch norm. Repeated captions are positives of each other
    rather than negatives. The split is by group, never by row.

    Parameters
    ----------
    data
        One object or several.
    preset
        Name of a published method (:func:`spatialwhisperer.models.presets` lists them), or a preset. What a preset fixes (pairs,
        locking, schedule, dimensions, rates, batch size) is changed by :meth:`spatialwhisperer.models.Preset.replace`.
    image
        Encoder of the tiles, or :class:`ImageFeatures`; ``None`` takes that of the preset.
    gene
        Encoder of the counts, or :class:`GeneFeatures`; ``None`` takes that of the preset.
    text
        Encoder of the captions, or :class:`TextFeatures`; ``None`` takes that of the preset and captions from ``.obs["text"]``.
    group_key
        Column of ``.obs`` with the patient. An object without it is a group of its own.
    validation
        Groups held out for a validation loss: their names, or the fraction of groups.
    expression
        Whether the model learns to predict expression (:func:`predict_expression`), or :class:`ExpressionOptions`; ``None`` does
        what the preset says.
    max_epochs
        Epochs; ``None`` takes those of the preset, and more where data are few. What is solved in closed form has none.
    trainer
        Arguments of Lightning's Trainer by name, such as ``{"devices": 2, "precision": "bf16-mixed"}``.
    folder
        Where the checkpoints and the finished model go; ``None`` makes a new folder under ``settings.cache_dir / "runs"``, in
        which only the finished model stays.
    resume
        Continue an interrupted run in ``folder``.
    %(random_state)s
    %(slide)s

    Returns
    -------
    The trained :class:`~spatialwhisperer.models.Whisperer`, also written to ``model.folder``, with the losses in
    ``model.history`` and a small sample of the training data in ``model.reference``.

    Raises
    ------
    ValueError
        If no modality pair is there, arguments do not fit each other, or counts are not counts.
    KeyError
        If a key that is named does not exist.
    TypeError
        If the Trainer has no argument of a name.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sections, reference = sw.datasets.simulate_sections(2, 80, n_genes=100, n_reference_cells=200, random_state=0)
    >>> tiles = sw.tl.ImageFeatures(tile_um=80, tile_px=64)
    >>> model = sw.tl.train([*sections.values(), reference], image=tiles, max_epochs=20)
    >>> model.modalities
    ('gene', 'image', 'text')
    """
    # torch and Lightning are imported by the call, not by whoever looks at the namespace
    from spatialwhisperer.tl._training.run import run_training

    return run_training(
        data,
        preset,
        image=image,
        gene=gene,
        text=text,
        group_key=group_key,
        validation=validation,
        expression=expression,
        max_epochs=max_epochs,
        trainer=trainer,
        folder=folder,
        resume=resume,
        random_state=random_state,
        options=slide,
    )
