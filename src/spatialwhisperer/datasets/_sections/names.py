"""Which sections of a data set a call asks for."""

from __future__ import annotations

from collections.abc import Sequence

from spatialwhisperer._messages import listing


def checked_names(sections: str | Sequence[str], known: Sequence[str]) -> list[str]:
    """The sections that are asked for, in the order asked.

    Raises
    ------
    TypeError
        If they are neither a name nor a sequence of names.
    ValueError
        If there are none, one is not known, or one is named twice.
    """
    if not isinstance(sections, str | Sequence) or not all(isinstance(s, str) for s in sections):
        raise TypeError(f"sections must be a name such as {known[0]!r} or a sequence of names, not {sections!r}.")
    names = [sections] if isinstance(sections, str) else list(sections)
    unknown = [n for n in names if n not in known]
    if unknown or not names:
        raise ValueError(f"No such section: {listing(unknown)}. The data set has {listing(known, limit=len(known))}.")
    if len(set(names)) < len(names):
        raise ValueError(f"Each section can be asked for once; got {listing(names)}.")
    return names
