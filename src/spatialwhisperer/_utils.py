"""Small helpers that every room uses: optional imports, warnings, provenance, progress, random state."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import ModuleType

    from anndata import AnnData

logger = logging.getLogger("spatialwhisperer")
logger.addHandler(logging.NullHandler())


class SpatialWhispererWarning(UserWarning):
    """Something the user should know that does not stop the call."""


def warn(message: str, stacklevel: int = 3) -> None:
    """Warn with the package's own class, pointing at the caller's caller."""
    warnings.warn(message, SpatialWhispererWarning, stacklevel=stacklevel)


def say(message: str) -> None:
    """Tell the user which choice was made for them; silent when ``settings.verbose`` is off."""
    from spatialwhisperer.settings import settings

    logger.info(message)
    if settings.verbose:
        from tqdm.auto import tqdm

        # through tqdm, so that a running bar is not torn
        tqdm.write(f"spatialwhisperer: {message}", file=sys.stderr)


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional module, or say which extra installs it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{module} is needed here and is not installed. Install it with: pip install 'spatialwhisperer[{extra}]'"
        ) from error


def import_torch_stack(module: str) -> ModuleType:
    """Import a module that loads torchvision; name the cure where torch and torchvision do not match."""
    try:
        return import_module(module)
    except RuntimeError as error:
        if "torchvision" not in str(error):
            raise
        raise ImportError(
            f"{module} cannot be imported because torch and torchvision come from different builds ({error}). "
            "Install a matching pair: pip install --force-reinstall torch torchvision"
        ) from error


def found(names: Iterable[Any], limit: int = 12) -> str:
    """Render what is there, for an error message."""
    names = [str(n) for n in names]
    if not names:
        return "none"
    return ", ".join(names[:limit]) + (f", … ({len(names)} in all)" if len(names) > limit else "")


def check_key_added(key: Any) -> None:
    """Refuse a name of slots that storage formats cannot keep, or that belongs to the package; ``None`` is the function's own name.

    Raises
    ------
    TypeError, ValueError
        If it is not text, is empty, holds "/", or is the slot of the provenance.
    """
    from spatialwhisperer import _keys

    if key is None:
        return
    if not isinstance(key, str):
        raise TypeError(f"key_added must be text, not {key!r}. Pass another name, or leave it out.")
    if not key.strip() or "/" in key or key == _keys.UNS:
        raise ValueError(
            f'key_added must be a name without "/" (which divides folders in files), and not {_keys.UNS!r} (which holds the '
            f"provenance of all results); found {key!r}. Pass another name, or leave it out."
        )


def check_batch_size(size: Any) -> None:
    """Refuse a number of rows in one pass that is not a positive whole number; ``None`` leaves it to the settings."""
    if size is None:
        return
    if isinstance(size, bool) or not hasattr(size, "__index__") or size < 1:
        raise ValueError(f"batch_size must be a positive whole number, not {size!r}.")


def record(adata: AnnData, key: str, **parameters: Any) -> None:
    """Store the provenance of a result: the version and one JSON string, which every storage format keeps."""
    from spatialwhisperer import _keys

    uns = dict(adata.uns.get(_keys.UNS, {}))
    uns[key] = {"version": version("spatialwhisperer"), "parameters": json.dumps(parameters, default=_plain)}
    adata.uns[_keys.UNS] = uns


def recorded(adata: AnnData, key: str) -> dict[str, Any] | None:
    """Read back the parameters that `record` stored, or ``None``."""
    from spatialwhisperer import _keys

    entry = adata.uns.get(_keys.UNS, {}).get(key)
    # joining objects keeps of an entry what they share, which may be the version alone
    return json.loads(str(entry["parameters"])) if entry is not None and "parameters" in entry else None


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, set | frozenset):
        return sorted(value)
    return str(value)


def progress(
    iterable: Iterable[Any] | None = None, *, total: int | None = None, desc: str = "", unit: str = "it"
) -> Any:
    """Wrap in a tqdm bar on stderr, off when the settings say so or stderr is not a terminal."""
    from tqdm.auto import tqdm

    from spatialwhisperer.settings import settings

    # disable=None lets tqdm decide from the terminal
    return tqdm(iterable, total=total, desc=desc, unit=unit, disable=None if settings.progress else True)


@contextmanager
def isolated_rng(random_state: int | None) -> Iterator[None]:
    """Seed Python, NumPy and torch inside the block and give the process its own state back afterwards."""
    import os
    import random

    import numpy as np
    import torch

    python, numpy_, torch_ = random.getstate(), np.random.get_state(), torch.random.get_rng_state()  # noqa: NPY002
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None
    seed_env = os.environ.get("PL_GLOBAL_SEED")
    try:
        if random_state is not None:
            random.seed(random_state)
            np.random.seed(random_state)  # noqa: NPY002
            torch.manual_seed(random_state)
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy_)  # noqa: NPY002
        torch.random.set_rng_state(torch_)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
        if seed_env is None:
            os.environ.pop("PL_GLOBAL_SEED", None)
        else:
            os.environ["PL_GLOBAL_SEED"] = seed_env
