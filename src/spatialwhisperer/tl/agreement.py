"""Whether the image and the genes of a row give the same answer to the same labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access.elements.colours import distinct, lost_classes
from spatialwhisperer._access.names import check_names
from spatialwhisperer._access.result import Result
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._checks.values import check_text, one_of
from spatialwhisperer._docs import shared
from spatialwhisperer._messages import listing
from spatialwhisperer._provenance import recorded_as
from spatialwhisperer._storage.schema import Stored
from spatialwhisperer.statistics.labels import agreement as statistic
from spatialwhisperer.tl._annotation import scoring
from spatialwhisperer.tl._annotation.labels import class_embeddings
from spatialwhisperer.tl._annotation.range.compared import compare, say_empty
from spatialwhisperer.tl._annotation.record import AnnotationRecord
from spatialwhisperer.tl._embedding.models import describe_model, open_model
from spatialwhisperer.tl._embedding.rows import embed_rows, holds

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer._access.slide_options import SlideOptions
    from spatialwhisperer.models.whisperer import Whisperer

Background = Literal["section", "training"]

MODALITIES = ("image", "gene")
"""What answers are compared."""


@dataclass(frozen=True)
class AgreementRecord(Stored):
    """How the answers were compared.

    Attributes
    ----------
    labels
        Labels that were compared.
    background, temperature
        What the scores were centred on, and the temperature of their softmax, by modality.
    model
        Facts about the model.
    """

    labels: tuple[str, ...]
    background: str
    temperature: Mapping[str, float]
    model: Mapping[str, Any]


@shared
@checked
def agreement(
    data: AnnData | SpatialData,
    *,
    key: str = _keys.LABEL,
    model: Whisperer | str | Path | None = None,
    background: Background = "section",
    layer: str | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    inplace: bool = True,
    **slide: Unpack[SlideOptions],
) -> pd.DataFrame | None:
    """Compare the answer from the image of each row with that from its genes, for the labels of an annotation.

    A confidence is computed from one modality alone. Where a slide has both, image and genes describe the same tissue, and
    where they contradict each other one of them is wrong. Both are asked in the same words and in the same way, whatever decision the
    model holds for its labels: cosines with the labels, minus the mean of each label over the background of the modality, and a softmax.
    The agreement is one minus the Jensen–Shannon divergence, in bits, of the two probability vectors (Lin, IEEE Transactions on
    Information Theory 37:145, 1991): 1 where they are equal, 0 where no label is possible for both.

    Parameters
    ----------
    data
        Annotated by :func:`zero_shot_annotate`, with an image and counts.
    key
        Column of ``.obs`` written by the annotation, whose labels and sentences are used.
    %(model)s
    background
        Rows whose mean score of each label is subtracted: "section", those of the same section on tissue, or "training", the training tissue of
        the model, so that the result of a row does not depend on the others.
    %(layer)s
    %(batch_size)s
    %(device)s
    %(inplace)s
    %(slide)s

    Returns
    -------
    ``None``, or with ``inplace=False`` a DataFrame with the columns ``agreement`` and ``gene``. In place it writes:

    ``.obs['sw_label_agreement']`` : :class:`pandas.Series` (dtype ``float32``)
        Agreement, between 0 and 1; NaN where a row has no tile, no whole one on tissue (which features of the encoder
        "stain_texture" tell), or no counts.
    ``.obs['sw_label_gene']`` : :class:`pandas.Series` (dtype ``category``)
        Best label of the genes; NaN where a row has no counts, or no whole tile on tissue. Its colours are in
        ``.uns['sw_label_gene_colors']``.
    ``.obsm['X_sw_image']``, ``.obsm['X_sw_gene']`` : :class:`numpy.ndarray`
        The embeddings, see :func:`embed`.

    Another annotation under the same key removes the first two.

    Raises
    ------
    KeyError
        If there is no annotation, the data lack the image or the genes, or the model does not read them or has no text.
    ValueError
        If no row has both embeddings, or a whole tile on tissue, ``background="training"`` and the model holds no training tissue, or a
        column that is not a result of this package has one of the names above.

    Notes
    -----
    It ranks rows. Its level depends on the temperature and on the number of labels, so that 0.9 in one annotation is not 0.9 in another.
    Two modalities that are wrong in the same way agree: a model that was trained on the section makes them agree too.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> genes = sw.models.default_model().encoders["gene"].genes
    >>> section = sw.datasets.simulate_sections(
    ...     1, 60, n_genes=len(genes), n_reference_cells=50, random_state=0
    ... ).sections["P1"]
    >>> section["table"].var_names = genes
    >>> sw.tl.zero_shot_annotate(section, ["T cell", "fibroblast", "fat cell"], unknown="label")
    >>> sw.tl.agreement(section)
    >>> section["table"].obs["sw_label_agreement"].between(0, 1).all()
    np.True_
    """
    check_text("key", key)
    one_of("background", background, Background)
    model = open_model(model)
    lacking = [m for m in (*MODALITIES, "text") if m not in model.modalities]
    if lacking:
        raise KeyError(f"This model reads no {listing(lacking)} (it has: {listing(model.modalities)}).")
    opened = Slide.open(data, **slide)
    check_names([opened], layer=layer)
    asked = recorded_as(opened.table, key, AnnotationRecord)
    if asked is None:
        if lost := lost_classes(opened.table, key):
            raise KeyError(f"Nothing says how the labels {key!r} were made: {lost}")
        raise KeyError(
            f"There is no annotation {key!r} (.obs holds {listing(opened.table.obs)}). Run sw.tl.zero_shot_annotate(data, labels, "
            "model=model) first."
        )
    for m in MODALITIES:
        if not holds(opened, model, m):
            raise KeyError(
                f"The data hold no {m} that the model reads, and the agreement is that of image and genes. Confidences of one modality "
                f"are in .obs[{_keys.confidence(key)!r}]."
            )
    corrections = {m: scoring.choose_correction(model, "centre", background, modality=m) for m in MODALITIES}
    if not all(c.calibrated for c in corrections.values()):
        # probabilities of both are as sharp: what was fitted for one modality alone would set them apart
        corrections = {m: c._replace(temperature=1 / model.scale) for m, c in corrections.items()}
    text = class_embeddings(model, asked.prompts, device=device)
    options: dict[str, Any] = {"batch_size": batch_size, "device": device}
    rows = {m: embed_rows(opened, model, m, layer=layer if m == "gene" else None, **options) for m in MODALITIES}
    empty = compare(opened, model, rows["image"].features, rows["image"].results).empty
    # neither modality has an answer there, nor a part in the mean of the section
    z = {m: np.where(empty[:, None], np.float32(np.nan), rows[m].z) for m in MODALITIES}
    probability = {
        m: scoring.score_rows(z[m], text, sections=opened.sections, correction=corrections[m])[1] for m in MODALITIES
    }
    value = statistic.agreement(probability["image"], probability["gene"]).astype(np.float32)
    if not np.isfinite(value).any():
        raise ValueError(
            f"None of the {len(value)} rows has both a whole tile and counts in the model's genes. Check the coordinates, .var_names and "
            "layer=…"
        )
    say_empty(empty, "agreement (NaN)")
    best = scoring.best_labels(probability["gene"]).code
    gene = _labels(best, asked.labels)
    if not inplace:
        return pd.DataFrame({"agreement": value, "gene": gene}, index=opened.table.obs_names)
    record = AgreementRecord(
        asked.labels, background, {m: c.temperature for m, c in corrections.items()}, describe_model(model)
    )
    names = _keys.agreement(key), _keys.gene_label(key)
    colours = dict(zip(asked.labels, distinct(len(asked.labels)), strict=True))
    result = Result(
        names[0], record, obs=dict(zip(names, (value, gene), strict=True)), colours={names[1]: colours}, of=key
    )
    opened.put(*(r for one in rows.values() for r in one.results), result)
    return None


def _labels(code: np.ndarray, labels: tuple[str, ...]) -> pd.Categorical:
    """Labels of rows, of which only those that occur are categories."""
    used = [i for i in range(len(labels)) if (code == i).any()]
    place = {old: new for new, old in enumerate(used)}
    return pd.Categorical.from_codes(
        [place.get(int(c), -1) for c in code], categories=pd.Index([labels[i] for i in used], dtype=object)
    )
