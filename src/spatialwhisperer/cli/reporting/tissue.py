"""How the sections of a slide compare with the training tissue of the model, as a section of the report."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._access.slide import Slide
from spatialwhisperer._provenance import recorded
from spatialwhisperer._settings import settings
from spatialwhisperer.cli.notes import collected

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping

    import pandas as pd
    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer.models.whisperer import Whisperer

_NOT_COMPARED = "The slide was not compared with the training tissue, because the labels do not come from image features that were computed here."
_TITLE = "Likeness to the training tissue"
_DISTANCES = {"mean_distance": "rows", "image_distance": "image"}


def compared(
    data: AnnData | SpatialData, model: Whisperer, options: Namespace, opening: Mapping[str, Any]
) -> pd.DataFrame | str:
    """What :func:`spatialwhisperer.tl.tissue_range` reports of an annotated object, or why it cannot.

    The image features are those that the annotation stored, so that none are computed again.

    Parameters
    ----------
    data
        The object.
    model
        The model.
    options
        What was typed.
    opening
        How the object is opened.
    """
    from spatialwhisperer.tl import tissue_range

    record = recorded(Slide.open(data, drawing=True, **opening).table, options.key_added) or {}
    if record.get("unknown") is None:
        return _NOT_COMPARED
    # the annotation has said what there is to say
    with settings.override(verbose=False, progress=False), collected(others=False):
        try:
            return tissue_range(data, model=model, batch_size=options.batch_size, device=options.device, **opening)
        except ValueError as error:
            return str(error)


def tissue_section(found: pd.DataFrame | str | None, *, labelled_anyway: bool) -> str:
    """The section of the page; empty where nothing was asked.

    Parameters
    ----------
    found
        What `compared` gave.
    labelled_anyway
        Whether rows got labels that are out of range.
    """
    if found is None:
        return ""
    if isinstance(found, str):
        return f"<section><h2>{_TITLE}</h2><p>{escape(found)}</p></section>"
    rows = "".join(_row(str(name), row) for name, row in found.iterrows())
    columns = ("rows on tissue", "distance of the rows", "distance of the image", "limit of both", "rows out of range")
    heads = "".join(f'<th scope="col" class="number">{one}</th>' for one in columns)
    return (
        f"<section><h2>{_TITLE}</h2><p>{escape(_explained(labelled_anyway=labelled_anyway))}</p><table>"
        f'<thead><tr><th scope="col">section</th>{heads}<th scope="col">verdict</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
        f'<p class="quiet">Rows out of range: of the rows with a tile, those whose own distance is above '
        f"{found.attrs['row_limit']:.2f}, whatever the verdict on the section.</p></section>"
    )


def _explained(*, labelled_anyway: bool) -> str:
    if labelled_anyway:
        consequence = "Rows were labelled all the same, because --unknown label was passed."
    else:
        consequence = "A section out of range gets no label at all, and a row out of range gets none."
    return (
        "Distances are those from the nearest training section, in standard deviations within training sections. A section is out of "
        "range where the distance of its rows (of their mean features) or that of its image (of tissue from all of it) is above the "
        f"limit. {consequence}"
    )


def _row(name: str, row: pd.Series) -> str:
    over = {key: bool(row[key] > row["limit"]) for key in _DISTANCES}
    cells = [f"{row['n_tissue']} of {row['n_rows']}"]
    # a distance that decided is set in bold
    decided = row["verdict"] == "out of range"
    cells += [_number(row[key], strong=decided and over[key]) for key in _DISTANCES]
    cells += [_number(row["limit"]), _fraction(row["out_of_range"])]
    numbers = "".join(f'<td class="number">{one}</td>' for one in cells)
    return f'<tr><th scope="row">{escape(name)}</th>{numbers}<td>{escape(_verdict(row, over))}</td></tr>'


def _verdict(row: pd.Series, over: Mapping[str, bool]) -> str:
    said = str(row["verdict"])
    if said == "out of range":
        by = " and ".join(f"its {what}" for key, what in _DISTANCES.items() if over[key])
        said = f"out of range by {by}"
    elif said == "too few rows":
        said = "too few rows on tissue for a verdict on the section"
    return f"{said}; the model was trained on it" if row["trained_on"] else said


def _number(value: float, *, strong: bool = False) -> str:
    if not np.isfinite(value):
        return "–"
    return f"<strong>{value:.2f}</strong>" if strong else f"{value:.2f}"


def _fraction(value: float) -> str:
    from spatialwhisperer.cli.reporting.facts import percent

    return percent(value, 1) if np.isfinite(value) else "–"
