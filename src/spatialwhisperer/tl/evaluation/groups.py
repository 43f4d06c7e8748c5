"""Groups of rows that are evaluated on their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer._messages import listing

if TYPE_CHECKING:
    from spatialwhisperer._access.slide import Slide


def row_groups(slide: Slide, group_key: str | None) -> np.ndarray:
    """Group of each row, text, shape (n,): a column of ``.obs``, or for ``None`` the section.

    Raises
    ------
    KeyError
        If the column does not exist.
    """
    if group_key is None:
        return slide.sections
    obs = slide.table.obs
    if group_key not in obs:
        raise KeyError(f"group_key={group_key!r} not in .obs (found: {listing(obs)}).")
    return np.array([str(value) for value in obs[group_key]], dtype=object)
