"""Training a joint space from paired data in any number of objects."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from spatialwhisperer._checks.checked import checked
from spatialwhisperer._docs import shared
from spatialwhisperer.pp.features.finished_batches import kept_until_done

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer._access.slide_options import SlideOptions
    from spatialwhisperer.encoders.gene.base import GeneEncoder
    from spatialwhisperer.encoders.image.base import ImageEncoder
    from spatialwhisperer.encoders.text.base import TextEncoder
    from spatialwhisperer.models.configuration.parts import Preset
    from spatialwhisperer.models.whisperer import Whisperer
    from spatialwhisperer.pp.features.options import GeneFeatures, ImageFeatures, TextFeatures
    from spatialwhisperer.tl._training.options import ExpressionOptions


@shared
@checked
def train(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData] | Mapping[str, AnnData | SpatialData] | str | Path,
    *,
    preset: str | Preset = "whisperer",
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

    Each object contributes the modalities that it holds: an H&E image, raw counts, captions in a column of ``.obs``. No object needs
    all three: with image–gene pairs in some objects and gene–text pairs in others, images and text are aligned through the genes
    (Schaefer et al., ICML 2026).

    Encoders are frozen by default, and their features are computed once. Image features are stored in ``.obsm["X_<encoder>"]`` of each
    object, and a later call that asks for the same encoder, tiles and scale uses them. So are those that only the regression of
    expression reads (``ExpressionOptions(image=…)``). An encoder that the preset unlocks is trained end
    to end.

    Rows without a modality never enter its encoder or its batch norm. Rows with the same caption are positives of each other, not
    negatives. Validation data are split off by group (patient), never by row, except where a recipe with ``select="best"`` has no
    validation groups: it then chooses the epoch on a fifth of the rows.

    Parameters
    ----------
    data
        One object, or several in a sequence or a mapping; or the folder of a corpus, see Notes.
    preset
        Name of a published method (:func:`spatialwhisperer.models.presets` lists them), or a preset. To change a part of a preset (pairs,
        locking, schedule, dimensions, learning rates, batch size, augmentation) use :meth:`spatialwhisperer.models.Preset.replace`.
    image
        Encoder of the tiles, or :class:`ImageFeatures`; ``None`` takes that of the preset.
    gene
        Encoder of the counts, or :class:`GeneFeatures`; ``None`` takes that of the preset.
    text
        Encoder of the captions, or :class:`TextFeatures`; ``None`` takes that of the preset and captions from ``.obs["text"]``.
    group_key
        Column of ``.obs`` with the patient. An object without this column is a group of its own.
    validation
        Groups held out for a validation loss, ``val_loss`` in ``model.history`` (NaN in epochs that did not measure it): their names,
        or the fraction of groups; ``None`` holds out none. Of a link in closed form the loss is the mean squared error that it leaves,
        before a refinement.
    expression
        Whether the model is trained to predict expression (:func:`predict_expression`), or :class:`ExpressionOptions`; ``None`` takes
        the default of the preset.
    max_epochs
        Number of epochs; ``None`` takes that of the preset, and more where data are few. A preset in closed form has no epochs.
    trainer
        Arguments of Lightning's Trainer by name, such as ``{"devices": 2, "precision": "bf16-mixed"}``. On several devices, a process
        that was killed ends the run within a minute, and one that does not answer ends it after ten. Another limit is given with the
        strategy: ``{"devices": 2, "strategy": DDPStrategy(timeout=timedelta(minutes=2))}``, of ``lightning.pytorch.strategies``.
        Each phase of training and each held-out patient has copies of ``callbacks`` as they were given, so that early stopping begins
        anew. What a callback notes stays in its copy, unless its method ``__deepcopy__`` returns the callback itself.
    folder
        Folder for the run: ``run.json`` states its data and arguments, ``phases`` holds the last two checkpoints of each phase and,
        where it has ended, its weights and history (``ended.pt``), and ``model`` the finished model. Loggers and callbacks of
        ``trainer`` write there too where they name no folder (``lightning_logs``, ``checkpoints``). ``None`` makes a new folder under ``settings.cache_dir / "runs"``, without ``run.json``
        and, in the end, without ``phases``; it is ``model.folder.parent``.
    resume
        Continue the run in ``folder``, or begin it where there is none. The data and every argument that shapes numbers must be those of
        the run; ``run.json`` is compared. On one process, the result is then the same to the last bit as that of a run that was never
        interrupted. ``max_epochs`` may be raised only where the learning rate does not depend on the number of epochs (a recipe with
        ``schedule="constant"`` and ``warmup=0``) and all pairs are trained together; else a longer run would have taken other steps from
        the beginning. A phase that had ended before its last epoch, by early stopping or ``max_steps`` for example, stays as it is. Where
        ``max_time`` ended it and all pairs are trained together, a larger one continues it. A damaged last checkpoint gives way to the
        one before it, with a warning.
    %(random_state)s
    %(slide)s

    Returns
    -------
    The trained :class:`~spatialwhisperer.models.Whisperer`. It is also stored in ``model.folder``; ``model.history`` holds the losses,
    and ``model.reference`` a small sample of the training data.

    Raises
    ------
    ValueError
        If no object holds a pair of modalities, arguments do not fit each other, or counts are not raw counts. If models cannot be
        trained with an argument of ``trainer``, this machine lacks a device of it, or it ends the training before the first step. If two
        objects hold the same section as two patients, or twice with an image. If ``resume`` is on and the folder holds another run (the
        message names each difference), or a run whose checkpoints are all damaged.
    RuntimeError
        If one of several processes is gone.
    KeyError
        If a key that is named does not exist.
    TypeError
        If an argument has the wrong type, ``trainer`` names an argument that Lightning's Trainer does not have, or a callback cannot be
        copied.
    FileExistsError
        If the folder holds another run, and ``resume`` is off; or if another process trains in it.

    Notes
    -----
    A corpus (:func:`spatialwhisperer.pp.build_corpus`) is read from the disk block by block, in memory that does not grow with it. It holds
    features, captions and patients, so that ``image``, ``gene``, ``text``, ``group_key`` and what opens slides are left out, encoders stay
    frozen, and no expression is predicted. All pairs are trained together by contrastive steps (``schedule="joint"``), also where a
    preset is solved in closed form on objects. Every batch holds the sets of modalities in equal parts, unless the recipe says
    ``mixture="natural"``; rows that do not fill a last batch are left out of a pass. Blocks of 256 rows are permuted over all shards, and
    rows are shuffled within 32 blocks; the order depends on the seed alone. Training statistics are those of 100,000 rows. Of several
    processes, each reads shards of its own where that is even, else blocks of its own. A pass is trained in parts of about 1,000 steps:
    after each, the history gets a row and a run with ``folder`` a checkpoint, so that ``resume=True`` continues in the middle of a pass,
    to the last bit. ``mpp`` of the model is that of all slides, and the reference is drawn from 10,000 rows; it has no profiles of
    counts.

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
    from spatialwhisperer.tl._training.corpus.run import run_corpus
    from spatialwhisperer.tl._training.run import run_training

    given: dict[str, Any] = {
        "image": image,
        "gene": gene,
        "text": text,
        "group_key": group_key,
        "validation": validation,
        "expression": expression,
        "max_epochs": max_epochs,
        "trainer": trainer,
        "folder": folder,
        "resume": resume,
        "random_state": random_state,
        "options": slide,
    }
    if isinstance(data, str | os.PathLike):
        return run_corpus(Path(data), preset, **given)
    with kept_until_done():
        return run_training(data, preset, **given)
