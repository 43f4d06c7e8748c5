from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np

from spatialwhisperer.protocols.nested.candidates import FEATURES
from spatialwhisperer.protocols.nested.materials import standardised

NAME = next(iter(FEATURES))


def section(seed: int, shift: float) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    arrays: Any = {part: shift + rng.normal(size=(40, 3)) for part in FEATURES[NAME]}
    return ad.AnnData(np.zeros((40, 0)), obsm=arrays)


def test_a_reported_section_does_not_move_its_own_standardisation() -> None:
    train, (near,) = standardised([section(0, 1.0), section(1, 1.0)], [section(2, 1.0)], [NAME])
    _, (far,) = standardised([section(0, 1.0), section(1, 1.0)], [section(2, 3.0)], [NAME])
    joined = np.concatenate([t.obsm[NAME] for t in train])
    np.testing.assert_allclose(joined.mean(axis=0), 0, atol=1e-5)
    assert joined.shape[1] == 6
    assert abs(near.obsm[NAME].mean()) < 0.3
    assert far.obsm[NAME].mean() > 1.5
