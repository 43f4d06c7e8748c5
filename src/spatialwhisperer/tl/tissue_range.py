"""Whether the images of a slide are like the training tissue of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import pandas as pd

from spatialwhisperer._access.result import Result
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._docs import shared
from spatialwhisperer.tl._annotation.range import guard
from spatialwhisperer.tl._annotation.range.trained import trained_on
from spatialwhisperer.tl._annotation.range.training_range import range_warnings, slide_ranges
from spatialwhisperer.tl._embedding.models import describe_model, open_model
from spatialwhisperer.tl._embedding.rows import row_inputs
from spatialwhisperer.tl._embedding.tissue_grid import on_tissue

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer._access.slide_options import SlideOptions
    from spatialwhisperer.models.whisperer import Whisperer
    from spatialwhisperer.tl._annotation.range.training_range import SectionRange


@shared
@checked
def tissue_range(
    data: AnnData | SpatialData,
    *,
    model: Whisperer | str | Path | None = None,
    key_added: str | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    **slide: Unpack[SlideOptions],
) -> pd.DataFrame:
    """Report whether the images are like the training tissue of a model, without a label for any row.

    Three distances are compared with limits. All are root mean square differences over features from the nearest training section, in
    standard deviations within training sections, and no feature counts for more than 10. The features are those before they are
    standardised within the section, because that would remove the difference.

    - A *row*: its image features, compared with the mean of the training section.
    - A *section*: the mean of its rows, compared in the same way.
    - Its *image*, for encoders that look at the whole image (``"stain_texture"``): the mean over up to 100 tiles of tissue from all of
      it, before stains are normalised. It does not depend on the rows. This distance is multiplied by a constant, so that it has the
      same limit as that of the section.

    The limits come from training tissue alone: each patient is left out in turn, and its tissue is compared with that of the others.
    A row is out of range above the 97.5 % quantile of their rows; a section above 1.5 times the largest distance of their sections, and
    at least 1. The limit of images, before it is multiplied, is 1.5 times their largest distance, and at least 1.25.
    :func:`zero_shot_annotate` gives no label to rows that are out of range, nor to any row of a section that is, by its rows or by its
    image.

    A model of one patient cannot tell how much patients differ. There the limit of rows is 1.25 times the quantile within the
    patient, and those of sections and images are at least 2.

    Parameters
    ----------
    %(data)s
    %(model)s
    key_added
        Column of ``.obs`` to write the distance of each row to (float32, NaN where there is no tile); computed features are stored
        too. ``None`` writes nothing.
    %(batch_size)s
    %(device)s
    %(slide)s

    Returns
    -------
    DataFrame with one row per section:

    ``n_rows``, ``n_tissue``
        rows, and those with a complete tile on tissue
    ``out_of_range``
        fraction of the rows with a tile that are out of range by themselves
    ``distance``, ``limit``
        of the section as a whole: the distance of its rows or of its image, whichever is larger, and the limit of both
    ``mean_distance``
        of the mean of its rows alone, with the same limit
    ``image_distance``
        of its image alone, with the same limit; NaN where the encoder does not look at the whole image
    ``verdict``
        "in range", "out of range", or "too few rows" (fewer than 20 on tissue, and an image in range; only rows are judged then)
    ``trained_on``
        whether the model was trained on this section, which is recognised by the names and positions of its rows, or by its image for
        encoders that look at the whole image; that image at another scale is not recognised

    ``.attrs`` holds ``row_limit``, the limit of rows; ``left_out``, what was left out of the training tissue ("groups", which are
    patients, "sections" or "rows"); ``range``, sentences on scale, colour and texture.

    Raises
    ------
    ValueError
        If the model holds no distances of left-out training tissue: it reads no images, trained its image encoder, or was made by
        an earlier version.
    KeyError
        If there is no image.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> section = sw.datasets.simulate_sections(1, 40, n_genes=100, n_reference_cells=50, random_state=0).sections["P1"]
    >>> report = sw.tl.tissue_range(section)
    >>> report.loc["P1_spots", "verdict"]
    'out of range'
    """
    model = open_model(model)
    reference = _checked(model)
    tissue = on_tissue(data, model, "image", slide, keeps=key_added is not None)
    opened = Slide.open(tissue.data, **slide)
    if key_added is not None:
        opened.check_column(key_added)
    inputs = row_inputs(opened, model, "image", batch_size=batch_size, device=device)
    ranges = slide_ranges(opened, model, inputs.values, inputs.results)
    found = guard.row_ranges(reference, inputs.values, opened.sections, ranges)
    if found is None:
        raise ValueError(_without(model))
    trained = trained_on(opened, model, inputs.results)
    names = opened.sections.astype(str)
    rows = [_row(one, found, names == one.name, trained=one.name in trained) for one in ranges]
    report = pd.DataFrame(rows).set_index("section")
    report.attrs |= {
        "row_limit": found.limit,
        "left_out": reference.config.unseen,
        "range": range_warnings(ranges, model),
    }
    if key_added is not None:
        record = {"row_limit": found.limit, "model": describe_model(model)}
        opened.put(*inputs.results, Result(key_added, record, obs={key_added: found.distance}))
        tissue.keep()
    return report


def _checked(model: Whisperer) -> Any:
    if model.reference is None or "image" not in model.modalities or model.reference.row_limit() is None:
        raise ValueError(_without(model))
    return model.reference


def _without(model: Whisperer) -> str:
    if "image" not in model.modalities:
        return "This model reads no images, so that it has no range of images."
    if "image" in model.towers:
        return "This model trained its image encoder, so that it holds no image features of its training tissue."
    return f"{guard.NOT_HELD} Train it again with sw.tl.train(…)."


def _row(one: SectionRange, found: guard.RowRange, inside: np.ndarray, *, trained: bool) -> dict[str, Any]:
    has = inside & np.isfinite(found.distance)
    return {
        "section": one.name,
        "n_rows": one.n_rows,
        "n_tissue": one.n_tissue,
        "out_of_range": float(found.row[has].mean()) if has.any() else np.nan,
        "distance": np.nan if one.distance is None else one.distance,
        "limit": np.nan if one.limit is None else one.limit,
        "mean_distance": np.nan if one.mean is None else one.mean,
        "image_distance": np.nan if one.look is None else one.look,
        "verdict": guard.verdict(one),
        "trained_on": trained,
    }
