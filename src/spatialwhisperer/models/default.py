"""The embedded model: small, trained on public sections, and there without a download."""

from __future__ import annotations

from functools import lru_cache

from spatialwhisperer.models.store import installed_model
from spatialwhisperer.models.whisperer import Whisperer


def default_model() -> Whisperer:
    """The embedded model "her2st-mini", read once and shared by all calls that are given no model.

    What it was trained on is in ``model.config.card``, and is said in one line when it is first opened.
    ``sw.models.Whisperer.load("her2st-mini")`` gives a copy that may be changed.

    Raises
    ------
    FileNotFoundError
        If this installation holds no embedded model.
    ValueError
        If a file of it is cut off, changed or missing.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sw.models.default_model().modalities
    ('gene', 'image', 'text')
    """
    return _shared()


@lru_cache(maxsize=1)
def _shared() -> Whisperer:
    # by its folder: a folder of that name in the working directory is another model
    return Whisperer.load(installed_model())
