"""Random numbers that leave the process's own state alone."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


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
