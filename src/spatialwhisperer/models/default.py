"""The embedded model: small, trained on public sections, and part of the package."""

from __future__ import annotations

from functools import lru_cache

from spatialwhisperer.models.store import installed_model
from spatialwhisperer.models.whisperer import Whisperer


def default_model() -> Whisperer:
    """Return the embedded model "her2st-mini". It is read once, and every call with ``model=None`` uses it.

    Its training data are described in ``model.config.card``, and in one line on stderr when it is opened. All callers get the same
    object: to change a model, take a copy with ``sw.models.Whisperer.load("her2st-mini")``.

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
