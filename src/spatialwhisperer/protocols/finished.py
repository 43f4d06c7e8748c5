"""A finished run is kept in a file of its own and is not repeated."""

from __future__ import annotations

import hashlib
import resource
import sys
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pandas as pd

from spatialwhisperer._messages import inform
from spatialwhisperer.protocols.output import write_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PACKAGES = ("spatialwhisperer", "anndata", "scanpy", "torch", "scvi-tools", "scikit-learn", "numpy")


def stamp(*depends: Any) -> str:
    """Eight hexadecimal digits of what a run depends on: numbers, texts, dataclasses, and sequences of them."""
    return hashlib.sha256(repr(depends).encode()).hexdigest()[:8]


def finished(path: Path, what: str, measure: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """Rows of a run, from its file where there is one.

    Parameters
    ----------
    path
        The file (.csv). Its name tells runs apart, with a `stamp` of all that they depend on.
    what
        What is said when the run starts.
    measure
        The run. Seconds, peak memory of the process so far (MiB) and versions are added to its rows.
    """
    if not path.is_file():
        inform(what)
        start = time.perf_counter()
        rows = measure()
        # macOS counts bytes
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
        rows = rows.assign(
            seconds=time.perf_counter() - start,
            peak_memory_mib=peak,
            versions="; ".join(f"{p} {version(p)}" for p in PACKAGES),
        )
        write_text(path, rows.to_csv(index=False))
    # an empty value is a missing one; an empty gene list is none
    return pd.read_csv(path, keep_default_na=False, na_values={"value": [""]})
