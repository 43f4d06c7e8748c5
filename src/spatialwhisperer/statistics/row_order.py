"""An order of rows that depends on what they hold, and not on where they stand."""

from __future__ import annotations

import numpy as np


def row_order(values: np.ndarray) -> np.ndarray:
    """Positions of the rows in an order of their own; equal rows stay as they are.

    A method that starts from drawn rows, or visits rows one after the other, gives the same answer for every order of a table once the
    rows are brought into this order.

    Parameters
    ----------
    values
        Shape (n, d).

    Returns
    -------
    Positions, shape (n,).
    """
    # -0.0 and 0.0 are equal, but not their bytes
    rows = np.ascontiguousarray(values) + 0
    if rows.size == 0:
        return np.arange(len(rows))
    return np.argsort(rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1])))[:, 0], kind="stable")
