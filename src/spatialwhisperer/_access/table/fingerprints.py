"""Recognising rows that a model was trained on, by their names and positions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

    from spatialwhisperer._access.slide import Slide

KEPT = 128
"""Rows by which a training section is recognised."""


def row_ids(slide: Slide, names: np.ndarray | None = None) -> np.ndarray:
    """A number of each row that stands for its name and its position to one decimal, uint64, shape (n,).

    Names alone often repeat between slides. So do the positions on an array and on a grid of tiles: a row of these is recognised only
    together with all rows of its section.

    Parameters
    ----------
    slide
        The slide.
    names
        Its `name_hashes`, where they are known.
    """
    ids = name_hashes(slide.table) if names is None else names.copy()
    xy = slide.positions()
    if xy is not None:
        for values in np.where(np.isfinite(xy), np.round(xy * 10), -1).T:
            ids = _mixed(ids, values.astype(np.int64).view(np.uint64))
    if slide.shares_positions:
        for section in pd.unique(slide.sections):
            inside = slide.sections == section
            # a sum does not depend on the order of the rows
            ids[inside] = _mixed(ids[inside], np.full(inside.sum(), ids[inside].sum(dtype=np.uint64)))
    return ids


def name_hashes(table: AnnData) -> np.ndarray:
    """A number of each name of a row, uint64, shape (n,)."""
    return _hashed(table.obs_names.to_numpy(dtype=object))


def _mixed(ids: np.ndarray, values: np.ndarray) -> np.ndarray:
    return _hashed(ids ^ _hashed(values))


def _hashed(values: np.ndarray) -> np.ndarray:
    return pd.util.hash_array(values, categorize=False)


def trained_rows(
    names: np.ndarray, ids: np.ndarray, sections: np.ndarray
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Some rows of each training section, by which `trained_sections` recognises it and parts of it.

    Rows with the smallest hashes of their names are taken: of a part of a section they are the same ones.

    Parameters
    ----------
    names, ids
        `name_hashes` and `row_ids` of all training rows, shape (n,).
    sections
        Code of the section of each, shape (n,).

    Returns
    -------
    The codes, and the arrays ``trained_name``, ``trained_row`` and ``trained_section`` (position of the code).
    """
    rows = pd.DataFrame({"name": names, "row": ids, "section": np.asarray(sections).astype(str)})
    kept = rows.sort_values(["section", "name", "row"]).groupby("section").head(KEPT)
    codes, found = pd.factorize(kept["section"])
    arrays = {
        "trained_name": kept["name"].to_numpy(),
        "trained_row": kept["row"].to_numpy(),
        "trained_section": codes.astype(np.int32),
    }
    return tuple(found), arrays


def trained_sections(slide: Slide, codes: Sequence[str], arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Sections of a slide that a model was trained on, and their codes in training.

    A section is recognised where half of the rows that can be compared are the same, so that it may be a part of the training section
    or hold more rows.

    Parameters
    ----------
    slide
        The slide.
    codes, arrays
        What `trained_rows` gave; other arrays may be among them.
    """
    if not codes:
        return {}
    names = name_hashes(slide.table)
    # positions may have to be computed, which is not needed where no name is known
    if not np.isin(names, arrays["trained_name"]).any():
        return {}
    ids = row_ids(slide, names)
    out = {}
    for section in pd.unique(slide.sections):
        inside = slide.sections == section
        code = _most_alike(names[inside], ids[inside], arrays)
        if code is not None:
            out[str(section)] = codes[code]
    return out


def _most_alike(names: np.ndarray, ids: np.ndarray, arrays: Mapping[str, np.ndarray]) -> int | None:
    """Position of the training section that most rows are of."""
    known = np.isin(arrays["trained_row"], ids)
    counts = np.bincount(arrays["trained_section"][known])
    for code in np.argsort(-counts, kind="stable"):
        own = arrays["trained_section"] == code
        n = int(own.sum())
        # the rows of the slide that would have been kept, had they been in training
        asked = len(names) if n < KEPT else int((names <= arrays["trained_name"][own].max()).sum())
        if not counts[code]:
            break
        if 2 * counts[code] >= min(n, asked):
            return int(code)
    return None
