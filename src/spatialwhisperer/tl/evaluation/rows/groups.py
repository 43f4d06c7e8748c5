"""Groups of rows that are evaluated on their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spatialwhisperer._access.table.groups import group_names
from spatialwhisperer._messages import listing

if TYPE_CHECKING:
    import numpy as np

    from spatialwhisperer._access.slide import Slide


def row_groups(slide: Slide, group_key: str | None) -> np.ndarray:
    """Group of each row, text, shape (n,): a column of ``.obs``, or for ``None`` the section.

    Raises
    ------
    KeyError
        If the column does not exist.
    ValueError
        If rows have no group.
    """
    if group_key is None:
        return slide.sections
    obs = slide.table.obs
    if group_key not in obs:
        raise KeyError(f"group_key={group_key!r} not in .obs (found: {listing(obs)}).")
    groups = group_names(obs[group_key])
    missing = int((groups == None).sum())  # noqa: E711
    if missing:
        raise ValueError(
            f"{missing} of {len(groups)} rows have no group in .obs[{group_key!r}]. Fill it in, or leave the rows out."
        )
    return groups
